//! What a gateway needs to know of the world while it can't ask: schemas, firmware rules, the
//! fleets with their keys and limits, and whether the core wants events held back (spec I4, I11).
//!
//! **Contract**, format 1 (`docs/contracts/snapshot.md`): one JSON object in a file of its own.
//!
//! ```text
//! {"format": 1, "sha256": "…", "snapshot": {…}}
//! ```
//!
//! `sha256` is of the bytes of `snapshot`'s value exactly as they stand in the file, so that
//! damage is noticed and two snapshots can be told apart. Fields unknown to this version are
//! passed over; another `format` is refused. Of a key there is its hash only.
//!
//! | limit | value |
//! |---|---|
//! | the file | [`BYTES_MAX`] |
//! | schema versions | [`SCHEMAS_MAX`] |
//! | fleets | [`FLEETS_MAX`] |
//! | keys of a fleet | [`KEYS_MAX`] |
//! | the reason of a hold | [`REASON_BYTES_MAX`] |

mod file;
mod key;

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use self::file::{FileError, Problem as FileProblem, read, write};
pub use self::key::KeyHash;
use crate::event::is_name;
use crate::schema::{SCHEMA_VERSION_MAX, SchemaError, SchemaSet};

/// The version of this format.
pub const FORMAT: u32 = 1;
/// The largest file that is read or written.
pub const BYTES_MAX: usize = 16 << 20;
/// Schema versions at most.
pub const SCHEMAS_MAX: usize = 1_000;
/// Fleets at most.
pub const FLEETS_MAX: usize = 10_000;
/// Keys of a fleet at most: one in use, one to come, and some that are forgotten to be revoked.
pub const KEYS_MAX: usize = 64;
/// Bytes of a reason at most.
pub const REASON_BYTES_MAX: usize = 500;

/// The whole of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was made.
    pub made_at: Timestamp,
    /// The event schemas.
    pub schemas: Vec<SchemaDocument>,
    /// Which schema belongs to which firmware, in the form of `schemas/firmware-rules.json`.
    pub firmware_rules: Box<RawValue>,
    /// The fleets whose devices may send.
    #[serde(default)]
    pub fleets: Vec<Fleet>,
    /// Whether the core wants events held back.
    #[serde(default)]
    pub core_pressure: CorePressure,
}

/// One schema version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SchemaDocument {
    /// Its number.
    pub version: u32,
    /// The JSON Schema.
    pub schema: Box<RawValue>,
}

/// A fleet of devices that share keys and limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// Its name: part of every event's identity.
    pub name: String,
    /// How much it may send to one gateway.
    #[serde(default)]
    pub limits: Limits,
    /// The keys that are good for it, any number at once.
    #[serde(default)]
    pub keys: Vec<FleetKey>,
}

/// A key of a fleet, without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetKey {
    /// Its name among people; no secret.
    pub id: Uuid,
    /// The hash of the key.
    pub sha256: KeyHash,
    /// It is not good any more from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// How much a fleet may send to one gateway; absent: as much as it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Rate>,
    /// Events, accepted or rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Rate>,
}

/// A bucket that fills steadily.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// So much flows in every second.
    pub per_second: f64,
    /// So much fits.
    pub burst: u32,
}

/// Whether gateways should keep events on their disks for a while: the core is behind with raw
/// events (spec I9).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorePressure {
    /// Hold events back.
    pub hold: bool,
    /// Why, in plain words.
    #[serde(default)]
    pub reason: String,
    /// When it was judged; 1970 where it never was. Whoever holds decides how old a judgement
    /// may be.
    #[serde(default)]
    pub as_of: Timestamp,
}

/// Why bytes are no snapshot, or a snapshot can't be.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// More than is read.
    #[error("{bytes} bytes; a snapshot has at most {BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// No JSON, cut off, or a field is missing or of another kind.
    #[error("not a whole snapshot: {0}")]
    Json(#[from] serde_json::Error),
    /// A format of another version.
    #[error(
        "format {0}; this program reads format {FORMAT}: update it, or write the snapshot with the core that fits it"
    )]
    Format(u32),
    /// The content is not what was written.
    #[error(
        "its checksum is {found}, and {expected} was written: the file is damaged, or was changed by hand"
    )]
    Checksum {
        /// As the file says.
        expected: String,
        /// As it is.
        found: String,
    },
    /// It contradicts itself, or a limit.
    #[error("{0}")]
    Impossible(String),
    /// The schemas or the firmware rules can't be used.
    #[error(transparent)]
    Schemas(#[from] SchemaError),
}

/// A snapshot as it was read, and what it is known by.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The content.
    pub snapshot: Snapshot,
    /// The checksum, as 64 hexadecimal digits: the same for the same content.
    pub sha256: String,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: u32,
    sha256: String,
    #[serde(borrow)]
    snapshot: &'a RawValue,
}

impl Snapshot {
    /// The file's bytes.
    ///
    /// # Errors
    /// When it contradicts itself or a limit: a gateway would refuse it.
    pub fn encode(&self) -> Result<Vec<u8>, SnapshotError> {
        self.check()?;
        let snapshot = serde_json::value::to_raw_value(self)?;
        let sha256 = hex(&Sha256::digest(snapshot.get().as_bytes()));
        let mut bytes =
            serde_json::to_vec(&Envelope { format: FORMAT, sha256, snapshot: &snapshot })?;
        bytes.push(b'\n');
        if bytes.len() > BYTES_MAX {
            return Err(SnapshotError::TooLarge { bytes: bytes.len() as u64 });
        }
        Ok(bytes)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// When they are no snapshot, damaged, of another version, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Decoded, SnapshotError> {
        if bytes.len() > BYTES_MAX {
            return Err(SnapshotError::TooLarge { bytes: bytes.len() as u64 });
        }
        // First: fields of another version may be of other kinds.
        let FormatOnly { format } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(SnapshotError::Format(format));
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        let found = hex(&Sha256::digest(envelope.snapshot.get().as_bytes()));
        if found != envelope.sha256 {
            return Err(SnapshotError::Checksum { expected: envelope.sha256, found });
        }
        let snapshot: Self = serde_json::from_str(envelope.snapshot.get())?;
        snapshot.check()?;
        Ok(Decoded { snapshot, sha256: found })
    }

    /// The schemas, compiled.
    ///
    /// # Errors
    /// When they or the firmware rules can't be used.
    pub fn schema_set(&self) -> Result<SchemaSet, SnapshotError> {
        let texts = self.schemas.iter().map(|schema| (schema.version, schema.schema.get()));
        Ok(SchemaSet::compile(texts, self.firmware_rules.get())?)
    }

    fn check(&self) -> Result<(), SnapshotError> {
        let fail = |what: String| Err(SnapshotError::Impossible(what));
        let most = |count: usize, most: usize, what: &str| match count <= most {
            true => Ok(()),
            false => fail(format!("{count} {what}; at most {most}")),
        };
        most(self.schemas.len(), SCHEMAS_MAX, "schema versions")?;
        most(self.fleets.len(), FLEETS_MAX, "fleets")?;
        most(self.core_pressure.reason.len(), REASON_BYTES_MAX, "bytes of a reason to hold")?;
        let mut versions = HashSet::new();
        for schema in &self.schemas {
            if !(1..=SCHEMA_VERSION_MAX).contains(&schema.version) {
                return fail(format!(
                    "schema version {}: 1 to {SCHEMA_VERSION_MAX}",
                    schema.version
                ));
            }
            if !versions.insert(schema.version) {
                return fail(format!("schema version {} is there twice", schema.version));
            }
        }
        let (mut names, mut hashes, mut ids) = (HashSet::new(), HashSet::new(), HashSet::new());
        for fleet in &self.fleets {
            if !is_name(&fleet.name) {
                return fail(format!("{:?} is no name of a fleet", fleet.name));
            }
            if !names.insert(&fleet.name) {
                return fail(format!("the fleet {} is there twice", fleet.name));
            }
            most(fleet.keys.len(), KEYS_MAX, &format!("keys of the fleet {}", fleet.name))?;
            for key in &fleet.keys {
                // One key must lead to one fleet.
                if !hashes.insert(key.sha256.bytes()) || !ids.insert(key.id) {
                    return fail(format!("the key {} is there twice", key.id));
                }
            }
            let Limits { requests, events } = fleet.limits;
            for rate in [requests, events].into_iter().flatten() {
                if !rate.is_possible() {
                    return fail(format!("the fleet {} has the limit {rate:?}", fleet.name));
                }
            }
        }
        Ok(())
    }
}

impl Rate {
    /// Whether a bucket can work by it: anything else would let nothing through, or everything.
    pub fn is_possible(&self) -> bool {
        self.per_second.is_finite() && (0.001..=1e9).contains(&self.per_second) && self.burst > 0
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A String takes every write.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
