//! The whole configuration of a process, and its validation in one go.

use std::path::{Path, PathBuf};

use penstock_common::telemetry::LogConfig;
use serde::Deserialize;

use crate::api::ApiConfig;
use crate::api::admin::AdminConfig;
use crate::bus::kafka::KafkaConfig;
use crate::compact::CompactConfig;
use crate::deadletter::DeadLetterConfig;
use crate::ledger::LedgerConfig;
use crate::live::LiveConfig;
use crate::raw::RawConfig;
use crate::rebuild::config::RebuildConfig;
use crate::rollup::RollupConfig;
use crate::snapshot::pressure::PressureConfig;
use crate::store::object::StoreConfig;
use crate::store::postgres::CatalogConfig;

/// One TOML file; every section has defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoreConfig {
    /// The bus.
    pub kafka: KafkaConfig,
    /// The catalog.
    pub catalog: CatalogConfig,
    /// The object store.
    pub store: StoreConfig,
    /// The raw writer.
    pub raw: RawConfig,
    /// The rollups.
    pub rollup: RollupConfig,
    /// Rebuilding rollups from raw events.
    pub rebuild: RebuildConfig,
    /// Compaction.
    pub compact: CompactConfig,
    /// The dead-letter store.
    pub deadletter: DeadLetterConfig,
    /// The loss ledger.
    pub ledger: LedgerConfig,
    /// When gateways hold events back.
    pub pressure: PressureConfig,
    /// The live view.
    pub live: LiveConfig,
    /// The API.
    pub api: ApiConfig,
    /// Health and metrics.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogConfig,
    /// Written once the process serves: `{"api":"address:port","admin":"address:port"}`, without
    /// `api` where that role does not run.
    pub ready_file: Option<PathBuf>,
}

impl CoreConfig {
    /// Reads and validates it.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn load(path: Option<&Path>, overrides: &[String]) -> anyhow::Result<Self> {
        penstock_common::config::load_checked(path, overrides, Self::problems)
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.kafka.validate(&mut problems);
        self.catalog.validate(&mut problems);
        self.store.validate(&mut problems);
        self.raw.validate(&mut problems);
        self.rollup.validate(&mut problems);
        self.rebuild.validate(&mut problems);
        self.compact.validate(&mut problems);
        self.deadletter.validate(&mut problems);
        self.ledger.validate(&mut problems);
        self.pressure.validate(&mut problems);
        self.live.validate(&mut problems);
        self.api.validate(&mut problems);
        self.admin.validate(&mut problems);
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_valid() {
        let example =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cloud/core.example.toml"));
        CoreConfig::load(Some(example), &[]).unwrap();
    }

    #[test]
    fn the_defaults_are_valid_and_all_mistakes_are_reported_together() {
        assert!(CoreConfig::load(None, &[]).is_ok());
        let set = ["store.url=/tmp", "raw.flush_events=0", "api.listen=x", "kafka.replication=0"];
        let error = CoreConfig::load(None, &set.map(String::from)).unwrap_err().to_string();
        for name in ["store.url", "raw.flush_events", "api.listen", "kafka.replication"] {
            assert!(error.contains(name), "{name} in {error}");
        }
    }
}
