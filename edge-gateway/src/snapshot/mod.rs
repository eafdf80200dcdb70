//! What the gateway knows of the world while it can't ask: the last good snapshot (spec I4, I11;
//! format: `common/src/snapshot/`).
//!
//! ```text
//! snapshot.file ─▶ kept copy ─▶ snapshot.image_file ─▶ built in (schemas, no keys)      at the start
//! snapshot.file, when it changes ─▶ read, check, compile ─▶ replace, keep a copy        from then on
//!                                          └─ no good: told once, counted; the present one stays
//! ```
//!
//! Whoever asks gets the snapshot of that moment and goes on with it.

mod keys;
mod metrics;
mod watcher;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use penstock_common::event::UnixMicros;
use penstock_common::schema::SchemaSet;
use penstock_common::snapshot::{CorePressure, Decoded, SnapshotError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::keys::{FleetEntry, KeyFault, Keyring};
pub use self::metrics::SnapshotMetrics;
pub use self::watcher::{Watcher, open, survey};

/// `[snapshot]`: where it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotConfig {
    /// The file that is replaced from outside; none: what is built in, for ever.
    pub file: Option<PathBuf>,
    /// Where a copy of the last good one is kept; by default beside it, with `.kept` appended.
    /// Empty: nowhere.
    pub kept_file: Option<PathBuf>,
    /// One that came with the image, for a gateway that has never had another.
    pub image_file: Option<PathBuf>,
    /// How often the file is looked at.
    pub poll_interval_ms: u64,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { file: None, kept_file: None, image_file: None, poll_interval_ms: 1_000 }
    }
}

impl SnapshotConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        if !(10..=600_000).contains(&self.poll_interval_ms) {
            let value = self.poll_interval_ms;
            problems.push(format!("snapshot.poll_interval_ms: {value}; expected 10 to 600000"));
        }
        let empty =
            |path: &Option<PathBuf>| path.as_ref().is_some_and(|p| p.as_os_str().is_empty());
        for (key, path) in [("file", &self.file), ("image_file", &self.image_file)] {
            if empty(path) {
                problems.push(format!("snapshot.{key} is empty; leave it out, or name a file"));
            }
        }
        if self.kept_file.is_some() && self.kept_file == self.file {
            problems.push("snapshot.kept_file is snapshot.file: it keeps a copy of that".into());
        }
    }

    /// Whether only what is built in could ever be used, which knows no key.
    pub const fn has_no_keys(&self) -> bool {
        self.file.is_none() && self.image_file.is_none()
    }

    /// Where the copy of the last good one is.
    fn kept(&self) -> Option<PathBuf> {
        match (&self.kept_file, &self.file) {
            (Some(kept), _) => Some(kept.clone()).filter(|path| !path.as_os_str().is_empty()),
            (None, Some(file)) => {
                let mut name = file.as_os_str().to_owned();
                name.push(".kept");
                Some(name.into())
            }
            (None, None) => None,
        }
    }
}

/// Where a snapshot came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// `snapshot.file`.
    File,
    /// The copy of the last good one.
    Kept,
    /// `snapshot.image_file`.
    Image,
    /// The program.
    Baked,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::File, Self::Kept, Self::Image, Self::Baked];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Kept => "kept",
            Self::Image => "image",
            Self::Baked => "baked",
        }
    }
}

/// One snapshot, ready for use.
#[derive(Debug)]
pub struct Current {
    /// The schemas and the firmware rules.
    pub schemas: SchemaSet,
    /// The keys, and the fleets that they lead to.
    pub keys: Keyring,
    /// Whether the core wants events held back.
    pub core_pressure: CorePressure,
    /// When it was made; nobody knows of the one that is built in.
    pub made_at: Option<Timestamp>,
    /// What it is known by; empty for the one that is built in.
    pub sha256: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Current {
    /// What the program brings: schemas, and no key.
    fn baked() -> Result<Self, SnapshotError> {
        Ok(Self {
            schemas: SchemaSet::baked()?,
            keys: Keyring::default(),
            core_pressure: CorePressure::default(),
            made_at: None,
            sha256: String::new(),
            origin: Origin::Baked,
        })
    }

    fn of(decoded: Decoded, origin: Origin) -> Result<Self, SnapshotError> {
        let Decoded { snapshot, sha256 } = decoded;
        Ok(Self {
            schemas: snapshot.schema_set()?,
            keys: Keyring::of(&snapshot.fleets),
            core_pressure: snapshot.core_pressure,
            made_at: Some(snapshot.made_at),
            sha256,
            origin,
        })
    }

    /// The versions of its schemas.
    pub fn schema_versions(&self) -> Vec<u32> {
        self.schemas.schemas().iter().map(|schema| schema.version()).collect()
    }

    /// How old it is, in seconds; negative while the gateway's clock is behind.
    pub fn age_s(&self, now: UnixMicros) -> Option<i64> {
        self.made_at.map(|made_at| (now.0 - made_at.as_microsecond()) / 1_000_000)
    }
}

/// The snapshot of the moment; clones share it.
#[derive(Clone)]
pub struct Snapshots {
    current: watch::Receiver<Arc<Current>>,
    core_pressure: watch::Receiver<CorePressure>,
    fault: Arc<Mutex<Option<String>>>,
}

impl Snapshots {
    /// The one that holds now.
    pub fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// Whether the core wants events held back, as the last snapshot says.
    pub fn core_pressure(&self) -> watch::Receiver<CorePressure> {
        self.core_pressure.clone()
    }

    /// Why the file can't be used, while it can't: the present snapshot is then an older one.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests;
