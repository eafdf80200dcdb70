//! Which schema version belongs to which firmware (spec E2).
//!
//! `schemas/firmware-rules.json` lists semver ranges, each with a schema version. A range is what
//! the `semver` crate reads (`>=1.0.0, <2.0.0`, `^1.4`, `=1.2.3`, …): always one interval. Ranges
//! must not overlap, so that their order means nothing.
//!
//! A device's version is compared without its pre-release and build parts: `2.0.0-rc.1` is a
//! `2.0.0` here, since a device on a release candidate sends what the release will send.

use semver::{BuildMetadata, Comparator, Op, Prerelease, Version, VersionReq};
use serde::Deserialize;

use super::SchemaError;

/// Firmware ranges and their schema versions, free of overlaps.
#[derive(Clone, Debug)]
pub struct FirmwareRules {
    rules: Vec<Rule>,
    expected: String,
}

#[derive(Clone, Debug)]
struct Rule {
    firmware: VersionReq,
    schema: u32,
}

/// What a device's firmware version leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirmwareMatch {
    /// Events are held against this schema version.
    Schema(u32),
    /// A version, but in no range.
    Unknown,
    /// Not a semantic version.
    NotAVersion,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "description", default)]
    _description: String,
    rules: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    firmware: String,
    schema: u32,
}

impl FirmwareRules {
    /// Reads and checks the rules file.
    ///
    /// # Errors
    /// When it can't be read, or two ranges overlap.
    pub fn parse(json: &str) -> Result<Self, SchemaError> {
        let file: File = serde_json::from_str(json)
            .map_err(|error| SchemaError::Rules(format!("not readable: {error}")))?;
        let mut rules = Vec::with_capacity(file.rules.len());
        for FileRule { firmware, schema } in file.rules {
            let firmware = firmware.parse().map_err(|error| {
                SchemaError::Rules(format!("{firmware:?} is not a semver range: {error}"))
            })?;
            rules.push(Rule { firmware, schema });
        }
        let expected = rules
            .iter()
            .map(|rule| format!("{} (schema {})", rule.firmware, rule.schema))
            .collect::<Vec<_>>()
            .join("; ");
        let rules = Self { rules, expected };
        rules.refuse_overlaps()?;
        Ok(rules)
    }

    /// The schema version for a device's firmware version.
    pub fn find(&self, firmware: &str) -> FirmwareMatch {
        let Ok(mut version) = Version::parse(firmware) else { return FirmwareMatch::NotAVersion };
        version.pre = Prerelease::EMPTY;
        version.build = BuildMetadata::EMPTY;
        match self.rules.iter().find(|rule| rule.firmware.matches(&version)) {
            Some(rule) => FirmwareMatch::Schema(rule.schema),
            None => FirmwareMatch::Unknown,
        }
    }

    /// The ranges in words, for errors.
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// The schema versions that rules lead to.
    pub fn schemas(&self) -> impl Iterator<Item = u32> {
        self.rules.iter().map(|rule| rule.schema)
    }

    /// Each range is one interval, and of two intervals that overlap one begins inside the other:
    /// it is enough to try where each begins.
    fn refuse_overlaps(&self) -> Result<(), SchemaError> {
        let firsts = self.rules.iter().flat_map(|rule| &rule.firmware.comparators).map(first_of);
        for version in firsts.chain([Version::new(0, 0, 0)]) {
            let mut matching = self.rules.iter().filter(|rule| rule.firmware.matches(&version));
            if let (Some(one), Some(other)) = (matching.next(), matching.next()) {
                return Err(SchemaError::Rules(format!(
                    "{:?} and {:?} overlap: both match {version}",
                    one.firmware.to_string(),
                    other.firmware.to_string(),
                )));
            }
        }
        Ok(())
    }
}

/// The least version that a comparator lets through, as far as it bounds from below.
fn first_of(comparator: &Comparator) -> Version {
    let Comparator { op, major, minor, patch, .. } = comparator;
    match (op, minor, patch) {
        (Op::Less | Op::LessEq, ..) => Version::new(0, 0, 0),
        (Op::Greater, None, _) => Version::new(major.saturating_add(1), 0, 0),
        (Op::Greater, Some(minor), None) => Version::new(*major, minor.saturating_add(1), 0),
        (Op::Greater, Some(minor), Some(patch)) => {
            Version::new(*major, *minor, patch.saturating_add(1))
        }
        (_, minor, patch) => Version::new(*major, minor.unwrap_or(0), patch.unwrap_or(0)),
    }
}
