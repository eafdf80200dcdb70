//! The raw writer (spec P3): every admitted event, as sent, into Parquet, exactly once.
//!
//! ```text
//! bus ─▶ sink  ─▶ batch (parse, columns in memory) ─▶ encode (sort, Parquet) ─▶ write ─▶ catalog
//!          │                                                                     │
//!          └─ poison ─▶ dead-letter topic, delivered before the position passes  └─▶ object store
//! ```
//! - `sink.rs` takes records from the consumer framework (`source/runner.rs`), and says when to
//!   flush: by events, bytes or wall clock, also when idle.
//! - `write.rs` owns a flush: dead letters, announce, upload, publish; each step is tried until
//!   it succeeds, unless the partitions are taken away.
//! - `sweep.rs` removes what crashed flushes left behind.
//!
//! **Exactly once**: the position moves in the transaction that publishes the file
//! (`store/publish.rs`), by whoever holds the newest generation. A crash before it leaves a
//! pending row (swept) and perhaps an object (deleted); the events are read again. A crash after
//! it leaves nothing to do.
//!
//! Limits: a batch holds at most `flush_events` events and about `flush_bytes` bytes in memory,
//! the file being encoded adds about a third of that, records waiting at most 64 MiB.

use std::time::Duration;

use serde::Deserialize;

use crate::source::runner::RunnerConfig;

pub mod batch;
pub mod dead;
pub mod encode;
pub mod metrics;
pub mod parse;
pub mod schema;
pub mod sink;
pub mod sweep;
pub mod write;

/// The role's name, in the catalog's positions too.
pub const ROLE: &str = "raw";

/// How the raw writer works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// The consumer group, after the topic prefix.
    pub group: String,
    /// An event is in a file at most about this long after it was read.
    pub flush_interval_ms: u64,
    /// A file has at most this many events.
    pub flush_events: usize,
    /// A batch takes at most about this much memory.
    pub flush_bytes: usize,
    /// How long the last flush may take when the process is told to stop.
    pub drain_ms: u64,
    /// How long a flush may go on after its partitions were asked back.
    pub revoke_grace_ms: u64,
    /// How often leftovers are looked for.
    pub sweep_interval_ms: u64,
    /// A file still pending after this is a leftover.
    pub stale_pending_ms: u64,
    /// Files that compaction replaced are deleted after this; no query may take longer.
    pub replaced_keep_ms: u64,
    /// An event this many days older than its arrival becomes a dead letter: it would be deleted
    /// at once (raw retention minus 2 days, spec P5).
    pub late_days_max: u32,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            group: "penstock-raw".into(),
            flush_interval_ms: 60_000,
            flush_events: 500_000,
            flush_bytes: 192 << 20,
            drain_ms: 20_000,
            revoke_grace_ms: 5_000,
            sweep_interval_ms: 60_000,
            stale_pending_ms: 15 * 60_000,
            replaced_keep_ms: 24 * 3_600_000,
            late_days_max: 88,
        }
    }
}

impl RawConfig {
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
        want(!self.group.is_empty(), "raw.group is empty");
        want(
            (10..=3_600_000).contains(&self.flush_interval_ms),
            "raw.flush_interval_ms: 10 to 3600000",
        );
        want((1..=10_000_000).contains(&self.flush_events), "raw.flush_events: 1 to 10000000");
        want(
            ((1 << 20)..=(1 << 30)).contains(&self.flush_bytes),
            "raw.flush_bytes: 1 MiB to 1 GiB",
        );
        want(self.drain_ms <= 300_000, "raw.drain_ms: at most 300000");
        want(self.revoke_grace_ms <= 15_000, "raw.revoke_grace_ms: at most 15000");
        want(self.sweep_interval_ms >= 10, "raw.sweep_interval_ms: at least 10");
        want(self.stale_pending_ms >= 10, "raw.stale_pending_ms: at least 10");
        want(self.replaced_keep_ms >= 10, "raw.replaced_keep_ms: at least 10");
        want((1..=3_650).contains(&self.late_days_max), "raw.late_days_max: 1 to 3650");
    }
}
