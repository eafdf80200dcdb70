//! Compaction (spec P3): the small files of an append hour become few, large and public.
//!
//! ```text
//! catalog: staged files of an hour ─▶ plan ─▶ merge (k-way, one fleet at a time, one copy per
//! identity) ─▶ announce, upload ─▶ swap: new files in, old ones out, one transaction
//! ```
//! - `plan.rs` decides what is worth merging (pure).
//! - `merge.rs` merges sorted rows (pure, over Arrow batches).
//! - `job.rs` carries one merge through.
//!
//! The public prefix is `raw/date=<day>/hour=<hour>/<fleet>-<uuid>.parquet`, in UTC and by append
//! time: hive partitions that other engines understand; `deploy/cloud/duckdb/raw.sql` reads it.
//!
//! **Safe at any moment**: readers see the old files or the new ones, by the catalog's sequence;
//! the old objects stay for `raw.replaced_keep_ms`. Two compactors at once waste work, no more:
//! the swap requires every input to be published still. A copy that is left out because another
//! of its identity is canonical is counted; if its bytes differ it is a dead letter first.
//!
//! Memory: about one row group of each input (at most `files_max`, 12 MB each at 300 B an event)
//! and one output of at most `file_rows_max` rows (62 B each).

use serde::Deserialize;

pub mod job;
pub mod merge;
pub mod metrics;
pub mod plan;
pub mod stage;

/// How compaction works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompactConfig {
    /// How often there is a look for something to do.
    pub interval_ms: u64,
    /// An hour is closed so long after its end.
    pub hour_grace_ms: u64,
    /// And when no file of it was published for so long: a writer that catches up is not done.
    pub settle_ms: u64,
    /// Files merged at once; an hour that is still open is compacted as soon as it has so many.
    pub files_max: usize,
    /// Rows of an output at most, roughly: a device is not split unless it alone has more.
    pub file_rows_max: usize,
}

impl Default for CompactConfig {
    fn default() -> Self {
        Self {
            interval_ms: 30_000,
            hour_grace_ms: 300_000,
            settle_ms: 120_000,
            files_max: 24,
            file_rows_max: 2_000_000,
        }
    }
}

impl CompactConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        if self.interval_ms < 10 {
            problems.push("compact.interval_ms: at least 10".into());
        }
        if !(2..=200).contains(&self.files_max) {
            problems.push("compact.files_max: 2 to 200".into());
        }
        if self.file_rows_max < 1_000 {
            problems.push("compact.file_rows_max: at least 1000".into());
        }
    }
}
