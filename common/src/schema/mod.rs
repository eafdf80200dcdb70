//! The event schemas (spec E2–E5): versioned JSON Schema files, the firmware rules that choose
//! between them, and validators compiled for the [`tape`].
//!
//! The files are in `schemas/` and baked into the binary, so that a gateway that has never
//! reached a registry can admit events. Their content model is open: fields and metrics that a
//! version does not know are let through (spec E4) and reported by [`Schema::knows_all`].
//!
//! `format` is an annotation in JSON Schema 2020-12; what the pipeline reads itself (event id,
//! timestamp, firmware) is checked where it is read, in the gateway's admission.

mod rules;
pub mod tape;

use std::path::Path;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::Value;

pub use self::rules::{FirmwareMatch, FirmwareRules};
use self::tape::{TapeJson, TapeNode};

/// The file of the firmware rules.
const RULES_FILE: &str = "firmware-rules.json";

/// Schema versions lie in 1..=this.
pub const SCHEMA_VERSION_MAX: u32 = 9_999;

/// Why schemas could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A file could not be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file or directory.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A schema is not one, or not what the pipeline needs.
    #[error("schema v{version}: {problem}")]
    Schema {
        /// Its version.
        version: u32,
        /// What is wrong.
        problem: String,
    },
    /// The firmware rules can't be used.
    #[error("{RULES_FILE}: {0}")]
    Rules(String),
}

/// One schema version, compiled.
pub struct Schema {
    version: u32,
    validator: Validator<TapeJson>,
    document: Value,
    fields: Vec<Box<str>>,
    metrics: Vec<Box<str>>,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schema(v{})", self.version)
    }
}

/// All schema versions and the rules that choose one; cheap to clone.
#[derive(Clone, Debug)]
pub struct SchemaSet {
    /// Ascending by version; never empty.
    schemas: Arc<[Schema]>,
    rules: Arc<FirmwareRules>,
}

/// What was chosen for an event.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// Its schema.
    Schema(&'a Schema),
    /// A semantic version that no rule covers.
    UnknownFirmware,
    /// Not a semantic version.
    NotAVersion,
}

impl Schema {
    fn compile(version: u32, json: &str) -> Result<Self, SchemaError> {
        let fail = |problem: String| SchemaError::Schema { version, problem };
        let document: Value =
            serde_json::from_str(json).map_err(|error| fail(format!("not JSON: {error}")))?;
        let validator = jsonschema::options_for::<TapeJson>()
            .with_draft(jsonschema::Draft::Draft202012)
            .build(&document)
            .map_err(|error| fail(format!("does not compile: {error}")))?;
        let names = |pointer: &str| -> Result<Vec<Box<str>>, SchemaError> {
            let properties = document.pointer(pointer).and_then(Value::as_object);
            let properties = properties.ok_or_else(|| fail(format!("{pointer} is missing")))?;
            Ok(properties.keys().map(|name| name.as_str().into()).collect())
        };
        let fields = names("/properties")?;
        let metrics = names("/properties/metrics/properties")?;
        Ok(Self { version, validator, fields, metrics, document })
    }

    /// Its version.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The schema document itself.
    pub const fn document(&self) -> &Value {
        &self.document
    }

    /// The metrics that this version knows, in alphabetical order.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.metrics.iter().map(AsRef::as_ref)
    }

    /// The validator; its detailed errors are slow.
    pub const fn validator(&self) -> &Validator<TapeJson> {
        &self.validator
    }

    /// Whether the event has no field and no metric that this version does not know (spec E4).
    pub fn knows_all(&self, event: TapeNode<'_>) -> bool {
        event.members().all(|(name, value)| {
            known(&self.fields, name)
                && (!name.text_is("metrics")
                    || value.members().all(|(name, _)| known(&self.metrics, name)))
        })
    }
}

fn known(names: &[Box<str>], name: TapeNode<'_>) -> bool {
    names.iter().any(|known| name.text_is(known))
}

impl SchemaSet {
    /// The schema documents that the binary was built with, from version 1 on.
    pub const BAKED: [&str; 3] = [
        include_str!("../../../schemas/v1.json"),
        include_str!("../../../schemas/v2.json"),
        include_str!("../../../schemas/v3.json"),
    ];
    /// The firmware rules that the binary was built with.
    pub const BAKED_RULES: &str = include_str!("../../../schemas/firmware-rules.json");

    /// The schemas that the binary was built with.
    ///
    /// # Errors
    /// Never, as long as the tests of this module pass.
    pub fn baked() -> Result<Self, SchemaError> {
        Self::compile((1..).zip(Self::BAKED), Self::BAKED_RULES)
    }

    /// Reads `v<number>.json` and the firmware rules from a directory; other files are passed over.
    ///
    /// # Errors
    /// When a file can't be read or compiled, or the rules don't fit the schemas.
    pub fn load(dir: &Path) -> Result<Self, SchemaError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| SchemaError::Read { path: path.display().to_string(), source })
        };
        let failed = |source| SchemaError::Read { path: dir.display().to_string(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let Some(version) = path.file_name().and_then(|name| version_of(name.to_str()?)) {
                files.push((version, read(&path)?));
            }
        }
        let rules = read(&dir.join(RULES_FILE))?;
        Self::compile(files.iter().map(|(version, json)| (*version, json.as_str())), &rules)
    }

    /// Compiles schema documents and the firmware rules that choose between them.
    ///
    /// # Errors
    /// When one can't be used, or the rules don't fit the schemas.
    pub fn compile<'a>(
        files: impl Iterator<Item = (u32, &'a str)>,
        rules: &str,
    ) -> Result<Self, SchemaError> {
        let mut schemas = files
            .map(|(version, json)| Schema::compile(version, json))
            .collect::<Result<Vec<_>, _>>()?;
        schemas.sort_by_key(Schema::version);
        if schemas.is_empty() {
            return Err(SchemaError::Rules("there is no schema beside it".to_owned()));
        }
        let rules = FirmwareRules::parse(rules)?;
        for version in rules.schemas() {
            if !schemas.iter().any(|schema| schema.version == version) {
                return Err(SchemaError::Rules(format!("schema {version} does not exist")));
            }
        }
        Ok(Self { schemas: schemas.into(), rules: rules.into() })
    }

    /// All versions, ascending.
    pub fn schemas(&self) -> &[Schema] {
        &self.schemas
    }

    /// The newest version.
    pub fn newest(&self) -> &Schema {
        // `compile` refuses an empty set.
        &self.schemas[self.schemas.len() - 1]
    }

    /// A version by its number.
    pub fn get(&self, version: u32) -> Option<&Schema> {
        self.schemas.iter().find(|schema| schema.version == version)
    }

    /// The schema for a device's firmware version.
    pub fn choose(&self, firmware: &str) -> Choice<'_> {
        match self.rules.find(firmware) {
            FirmwareMatch::Schema(version) => {
                self.get(version).map_or(Choice::UnknownFirmware, Choice::Schema)
            }
            FirmwareMatch::Unknown => Choice::UnknownFirmware,
            FirmwareMatch::NotAVersion => Choice::NotAVersion,
        }
    }

    /// The firmware rules.
    pub fn rules(&self) -> &FirmwareRules {
        &self.rules
    }
}

/// The version of `v<number>.json`.
fn version_of(file_name: &str) -> Option<u32> {
    let digits = file_name.strip_prefix('v')?.strip_suffix(".json")?;
    let version = digits.parse().ok()?;
    (1..=SCHEMA_VERSION_MAX).contains(&version).then_some(version)
}

#[cfg(test)]
mod tests;
