//! The gateway's configuration. Every key has a default but `gateway.name`, `gateway.fleet` and
//! `spool.dir`; unknown keys are refused; everything that is wrong is reported at once, with its line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_common::config;
use penstock_common::event::is_name;
use penstock_common::telemetry::LogConfig;
use penstock_common::telemetry::traces::TracesConfig;
use serde::{Deserialize, Serialize};

use crate::admit::budget::BudgetConfig;
use crate::forward::KafkaConfig;
use crate::forward::report::StatusConfig;
use crate::listen::mqtt::MqttConfig;
use crate::listen::{Auth, ListenConfig};
use crate::pressure::PressureConfig;
use crate::snapshot::SnapshotConfig;
use crate::spool::SpoolConfig;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Who this gateway is.
    pub gateway: Identity,
    /// The devices' side.
    pub http: ListenConfig,
    /// The facility's MQTT broker; none: no MQTT.
    pub mqtt: Option<MqttConfig>,
    /// Health and metrics.
    pub admin: AdminConfig,
    /// Schemas, keys, limits.
    pub snapshot: SnapshotConfig,
    /// The durable spool.
    pub spool: SpoolConfig,
    /// How many rejections are kept.
    pub dead_letters: BudgetConfig,
    /// What is done when not everything can be kept or forwarded.
    pub pressure: PressureConfig,
    /// The bus.
    pub kafka: KafkaConfig,
    /// What it says of itself for the ledger.
    pub status: StatusConfig,
    /// Logs.
    pub log: LogConfig,
    /// Traces of some events' way.
    pub traces: TracesConfig,
    /// Written once the gateway is ready: JSON with the addresses it listens on.
    pub ready_file: Option<PathBuf>,
}

/// Who this gateway is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Unique among all gateways: it names every record's provenance for ever.
    pub name: String,
    /// The fleet of the devices of this facility: of what comes without a key, and the first of
    /// those whose keys are taken.
    pub fleet: String,
    /// Further fleets whose keys are taken.
    pub other_fleets: Vec<String>,
}

/// Where health and metrics are served, apart from the devices' port.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// `address:port`; port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8081)) }
    }
}

impl GatewayConfig {
    /// Reads and validates.
    ///
    /// # Errors
    /// With every problem found.
    pub fn load(path: Option<&Path>, overrides: &[String]) -> anyhow::Result<Self> {
        config::load_checked(path, overrides, Self::problems)
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.gateway.validate(&mut problems);
        self.http.validate(&mut problems);
        if let Some(mqtt) = &self.mqtt {
            mqtt.validate(&mut problems);
        }
        self.snapshot.validate(&mut problems);
        self.spool.validate(&mut problems);
        self.dead_letters.validate(&mut problems);
        self.pressure.validate(&mut problems);
        self.kafka.validate(&mut problems);
        self.status.validate(&mut problems);
        self.traces.validate(&mut problems);
        if self.http.auth == Auth::Required && self.snapshot.has_no_keys() {
            problems.push(
                "http.auth: \"required\" (the default), and no snapshot.file is set, so that no \
                 key would ever be known: make one with `cloud-core snapshot write`, or set \
                 http.auth = \"off\" on a network where everybody may send"
                    .into(),
            );
        }
        problems
    }

    /// The fleets whose devices need a key here; none where no key is asked for.
    pub fn fleets_with_keys(&self) -> Vec<Arc<str>> {
        let Identity { fleet, other_fleets, .. } = &self.gateway;
        let fleets = std::iter::once(fleet).chain(other_fleets);
        fleets
            .filter(|_| self.http.auth == Auth::Required)
            .map(|fleet| fleet.as_str().into())
            .collect()
    }
}

impl Identity {
    fn validate(&self, problems: &mut Vec<String>) {
        let others = self.other_fleets.iter().map(|fleet| ("gateway.other_fleets", fleet));
        let own = [("gateway.name", &self.name), ("gateway.fleet", &self.fleet)];
        for (key, value) in own.into_iter().chain(others) {
            if !is_name(value) {
                problems.push(format!(
                    "{key}: {value:?}; expected 1 to 64 characters of A-Z a-z 0-9 . _ -"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_valid() {
        let example =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/edge/gateway.example.toml"));
        GatewayConfig::load(Some(example), &[]).unwrap();
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let set = [
            "gateway.name=a b",
            "kafka.bootstrap=\"\"",
            "kafka.compression=gzip",
            "kafka.in_flight_records_max=300",
        ];
        let error = GatewayConfig::load(None, &set.map(String::from)).unwrap_err().to_string();
        let keys = set.iter().filter_map(|set| set.split('=').next()).chain(["gateway.fleet"]);
        for key in keys {
            assert!(error.contains(key), "{key} is not in: {error}");
        }
    }
}
