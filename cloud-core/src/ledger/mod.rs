//! The loss ledger (spec N1): what became of every record that a gateway ever numbered.
//!
//! ```text
//! raw writer, dead-letter writer ─▶ what they saw, in the transaction that publishes it
//!                                                  │ fold
//! gateways ─▶ gateway-status ─▶ sink ─▶ epochs     ▼
//!                                  └──────▶ check (judge) ─▶ missing ranges, metrics, log
//! ```
//! - `bits.rs`: sets of numbers by chunk; `verdict.rs`: sets → what became of each number. Pure,
//!   and used by the store, which stands below the rest.
//! - `barrier.rs`: when a verdict may be given. Pure.
//! - `sink.rs` stores statuses; `check.rs` folds, judges, looks again and reports.
//! - `answer.rs`: what `GET /v1/ledger` and `cloud-core ledger` say.
//!
//! **A number is missing** when its gateway said that the bus had acknowledged it, it was not
//! seen, and everything that was on the bus when that was heard has been read: the positions on
//! `raw-events` and `dead-letter` have passed the ends asked for after the status. A partition
//! that stalls delays verdicts; it never makes them wrong. A number that turns up later resolves
//! its range.
//!
//! An epoch that its gateway no longer lists though it never was complete is gone with its disk:
//! what it had durably and what was not seen is missing too.

use serde::Deserialize;

use crate::source::runner::RunnerConfig;

pub mod answer;
pub mod barrier;
pub mod bits;
pub mod check;
pub mod metrics;
pub mod sink;
pub mod verdict;

/// The role's name, in the positions too.
pub const ROLE: &str = "ledger";

/// The role whose position on `dead-letter` verdicts wait for.
pub const DEAD_LETTER_ROLE: &str = "deadletter";

/// How the ledger works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerConfig {
    /// The consumer group on `gateway-status`, after the topic prefix.
    pub group: String,
    /// Statuses are stored about this long after they were read.
    pub flush_interval_ms: u64,
    /// How often it folds, judges and counts.
    pub check_interval_ms: u64,
    /// A gateway that has sent no status for this long is said to be silent.
    pub silent_after_ms: u64,
    /// How long it is known how gateways stood, for questions between two moments, in days.
    pub history_days: u32,
    /// So many gateways have metrics of their own; the others share those of `other`.
    pub gateways_max: usize,
    /// How long the last flush may take when the process is told to stop.
    pub drain_ms: u64,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            group: "penstock-ledger".into(),
            flush_interval_ms: 2_000,
            check_interval_ms: 10_000,
            silent_after_ms: 60_000,
            history_days: 400,
            gateways_max: 1_000,
            drain_ms: 10_000,
        }
    }
}

impl LedgerConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut want = |good: bool, text: &str| {
            if !good {
                problems.push(text.to_owned());
            }
        };
        want(!self.group.is_empty(), "ledger.group is empty");
        want(
            (10..=60_000).contains(&self.flush_interval_ms),
            "ledger.flush_interval_ms: 10 to 60000",
        );
        want(
            (10..=600_000).contains(&self.check_interval_ms),
            "ledger.check_interval_ms: 10 to 600000",
        );
        want(self.silent_after_ms >= 1_000, "ledger.silent_after_ms: at least 1000");
        want(self.history_days >= 1, "ledger.history_days: at least 1");
        want((1..=100_000).contains(&self.gateways_max), "ledger.gateways_max: 1 to 100000");
        want(self.drain_ms <= 300_000, "ledger.drain_ms: at most 300000");
    }

    /// The consumer's patience.
    pub const fn runner(&self) -> RunnerConfig {
        RunnerConfig {
            drain: std::time::Duration::from_millis(self.drain_ms),
            revoke_grace: std::time::Duration::from_secs(5),
        }
    }
}
