//! The snapshot files of tests.

use std::path::PathBuf;

use edge_gateway::snapshot::SnapshotConfig;
use penstock_common::schema::SchemaSet;
use penstock_common::snapshot::{
    self as file, CorePressure, Fleet, FleetKey, KeyHash, Limits, SchemaDocument, Snapshot,
};
use tempfile::TempDir;
use uuid::Uuid;

/// A snapshot file in a directory of its own, and what is in it.
pub(crate) struct SnapshotFile {
    dir: TempDir,
    pub(crate) fleets: Vec<Fleet>,
}

impl SnapshotFile {
    /// With fleets and their keys.
    pub(crate) fn of(fleets: &[(&str, &[&str])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fleets = fleets.iter().map(|(name, keys)| fleet(name, keys)).collect();
        let file = Self { dir, fleets };
        file.write();
        file
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("snapshot.json")
    }

    pub(crate) fn config(&self) -> SnapshotConfig {
        SnapshotConfig { file: Some(self.path()), ..SnapshotConfig::default() }
    }

    pub(crate) fn write(&self) {
        let schema = |(version, text): (u32, &str)| SchemaDocument {
            version,
            schema: serde_json::from_str(text).unwrap(),
        };
        let snapshot = Snapshot {
            made_at: jiff::Timestamp::now(),
            schemas: (1..).zip(SchemaSet::BAKED).map(schema).collect(),
            firmware_rules: serde_json::from_str(SchemaSet::BAKED_RULES).unwrap(),
            fleets: self.fleets.clone(),
            core_pressure: CorePressure::default(),
        };
        file::write(&self.path(), &snapshot.encode().unwrap()).unwrap();
    }
}

pub(crate) fn key(secret: &str, expires_at: Option<&str>) -> FleetKey {
    FleetKey {
        id: Uuid::new_v4(),
        sha256: KeyHash::of(secret.as_bytes()),
        expires_at: expires_at.map(|end| end.parse().unwrap()),
    }
}

fn fleet(name: &str, keys: &[&str]) -> Fleet {
    let keys = keys.iter().map(|secret| key(secret, None)).collect();
    Fleet { name: name.into(), limits: Limits::default(), keys }
}
