//! The rollups (spec P4): one row for each device, metric and minute, as events stream by; merged
//! to hours, days and whole fleets; and rebuilt from raw where the stream could not know.
//!
//! ```text
//! bus ─▶ stage ─▶ stream (windows in memory, pure) ─▶ store/rollup: rows, closes, marks, position
//! ```
//! - `sum.rs`, `sketch.rs`, `aggregate.rs`: the values of one series in one window; whatever
//!   their order and however they are merged, the same bytes (pure).
//! - `merge.rs` (pure), `merge_worker.rs`: hours, days and whole fleets from finer rows.
//! - `canonical.rs`: from copies of events to minute rows, as a rebuild does it; `counted.rs`:
//!   which metrics count; `window.rs`: minutes, hours, days (all pure).
//! - `stream/`: windows, duplicates, late events and restarts, without time or I/O of its own.
//!
//! **A minute row is a pure function of the set of distinct events** (spec P2): the stream, a
//! rebuild, and any restart in between give the same bytes.

use std::time::Duration;

use serde::Deserialize;

use crate::source::runner::RunnerConfig;

pub mod aggregate;
pub mod canonical;
pub mod counted;
pub mod merge;
pub mod merge_worker;
pub mod metrics;
pub mod replays;
pub mod sketch;
pub mod stage;
pub mod stream;
pub mod sum;
pub mod window;

/// The role's name, in the positions too.
pub const ROLE: &str = "rollup";

/// How the rollups work.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollupConfig {
    /// Where the rows are: `postgres://user:password@host:port/database`; empty for the
    /// catalog's database.
    pub dsn: String,
    /// Connections at most.
    pub connections_max: usize,
    /// The consumer group, after the topic prefix.
    pub group: String,
    /// What has been read is in the database at most about this long after.
    pub flush_interval_ms: u64,
    /// A flush begins early once it would write so many rows.
    pub flush_rows: usize,
    /// A minute's rows are written so long after its end, and again as it changes until it closes.
    pub provisional_delay_ms: u64,
    /// How far behind a device's newest event another one still enters its minute as it streams
    /// by. Later ones get in by a rebuild.
    pub lateness_ms: u64,
    /// Events remembered at most, for duplicates and open minutes; beyond it the oldest minutes
    /// close early and are rebuilt.
    pub events_max: usize,
    /// The same for one device.
    pub device_events_max: usize,
    /// How long the last flush may take when the process is told to stop.
    pub drain_ms: u64,
    /// How long a flush may go on after its partitions were asked back.
    pub revoke_grace_ms: u64,
    /// How long an hour that is not over waits for more before it is merged again.
    pub merge_delay_ms: u64,
    /// The same for a day.
    pub day_delay_ms: u64,
    /// How long a fleet's minute waits for more devices before it is merged.
    pub fleet_delay_ms: u64,
}

// By hand: the password stays out of logs.
impl std::fmt::Debug for RollupConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RollupConfig")
            .field("connections_max", &self.connections_max)
            .field("group", &self.group)
            .field("flush_interval_ms", &self.flush_interval_ms)
            .field("lateness_ms", &self.lateness_ms)
            .finish_non_exhaustive()
    }
}

impl Default for RollupConfig {
    fn default() -> Self {
        Self {
            dsn: String::new(),
            connections_max: 8,
            group: "penstock-rollup".into(),
            flush_interval_ms: 5_000,
            flush_rows: 50_000,
            provisional_delay_ms: 10_000,
            lateness_ms: 600_000,
            events_max: 10_000_000,
            device_events_max: 100_000,
            drain_ms: 20_000,
            revoke_grace_ms: 5_000,
            merge_delay_ms: 60_000,
            day_delay_ms: 300_000,
            fleet_delay_ms: 20_000,
        }
    }
}

impl RollupConfig {
    /// Its patience.
    pub const fn runner(&self) -> RunnerConfig {
        RunnerConfig {
            drain: Duration::from_millis(self.drain_ms),
            revoke_grace: Duration::from_millis(self.revoke_grace_ms),
        }
    }

    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut want = |good: bool, text: &str| {
            if !good {
                problems.push(text.to_owned());
            }
        };
        want((1..=1_000).contains(&self.connections_max), "rollup.connections_max: 1 to 1000");
        want(!self.group.is_empty(), "rollup.group is empty");
        want(
            (10..=3_600_000).contains(&self.flush_interval_ms),
            "rollup.flush_interval_ms: 10 to 3600000",
        );
        want((1..=1_000_000).contains(&self.flush_rows), "rollup.flush_rows: 1 to 1000000");
        want(self.provisional_delay_ms <= 600_000, "rollup.provisional_delay_ms: at most 600000");
        // An hour: a mark names one hour, and a conflict reaches no further than its neighbours.
        want(
            (1_000..=3_600_000).contains(&self.lateness_ms),
            "rollup.lateness_ms: 1000 to 3600000",
        );
        want(
            (1_000..=1_000_000_000).contains(&self.events_max),
            "rollup.events_max: 1000 to 1000000000",
        );
        want(
            (100..=self.events_max).contains(&self.device_events_max),
            "rollup.device_events_max: 100 to rollup.events_max",
        );
        want(self.drain_ms <= 300_000, "rollup.drain_ms: at most 300000");
        want(self.revoke_grace_ms <= 15_000, "rollup.revoke_grace_ms: at most 15000");
        want(self.merge_delay_ms <= 3_600_000, "rollup.merge_delay_ms: at most 3600000");
        want(self.day_delay_ms <= 3_600_000, "rollup.day_delay_ms: at most 3600000");
        want(self.fleet_delay_ms <= 3_600_000, "rollup.fleet_delay_ms: at most 3600000");
        if !self.dsn.is_empty() {
            crate::store::postgres::validate_dsn("rollup.dsn", &self.dsn, problems);
        }
    }
}
