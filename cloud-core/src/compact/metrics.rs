//! Compaction's metrics.

use prometheus::{IntCounter, Opts, Registry};

/// All of them, `penstock_compact_…`.
#[derive(Clone, Debug)]
pub struct CompactMetrics {
    /// Files that were merged.
    pub inputs: IntCounter,
    /// Files that came of it.
    pub outputs: IntCounter,
    /// Rows written.
    pub rows: IntCounter,
    /// Bytes written.
    pub bytes: IntCounter,
    /// Copies of an identity left out.
    pub duplicates: IntCounter,
    /// Copies left out whose bytes differ: dead letters.
    pub conflicts: IntCounter,
    /// Merges given up because somebody else was first.
    pub conflicts_of_compactors: IntCounter,
    /// Failed tries.
    pub failures: IntCounter,
}

impl CompactMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter =
                IntCounter::with_opts(Opts::new(format!("penstock_compact_{name}"), help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            inputs: counter("input_files_total", "Files that were merged")?,
            outputs: counter("output_files_total", "Files written into the public prefix")?,
            rows: counter("rows_total", "Rows written into the public prefix")?,
            bytes: counter("bytes_total", "Bytes written into the public prefix")?,
            duplicates: counter("duplicates_total", "Copies of an identity left out")?,
            conflicts: counter("id_conflicts_total", "Copies left out whose bytes differ")?,
            conflicts_of_compactors: counter("lost_races_total", "Merges that another did first")?,
            failures: counter("failures_total", "Merges that failed and are tried again")?,
        })
    }
}
