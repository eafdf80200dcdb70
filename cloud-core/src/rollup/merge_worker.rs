//! Merging, again and again: hours, days and whole fleets from finer rows.
//!
//! Any number of workers may run; each group of marks is one transaction, and a group that another
//! worker is at is passed over. A worker that dies has changed nothing.

use std::time::Duration;

use penstock_common::retry::Backoff;
use prometheus::{Gauge, IntCounter, IntGauge, Opts, Registry};
use tokio_util::sync::CancellationToken;

use crate::store::postgres::StoreError;
use crate::store::rollup::RollupStore;
use crate::store::rollup::merge::Group;

/// Marks looked at in one go.
const MARKS_LOOKED_AT: i64 = 20_000;
/// Marks of one transaction.
const MARKS_MAX: i64 = 2_000;
/// With nothing due.
const IDLE: Duration = Duration::from_millis(500);

/// The worker's metrics, `penstock_merge_…`.
#[derive(Clone, Debug)]
pub struct MergeMetrics {
    /// Marks worked off.
    pub marks: IntCounter,
    /// Finer rows read.
    pub rows_read: IntCounter,
    /// Rows written that were new or changed.
    pub rows: IntCounter,
    /// Rows whose finer rows are all gone.
    pub deleted: IntCounter,
    /// Groups that failed, and are tried again.
    pub failures: IntCounter,
    /// Marks waiting.
    pub waiting: IntGauge,
    /// For how long the oldest is due, seconds.
    pub overdue_seconds: Gauge,
}

impl MergeMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("penstock_merge_{name}"), help);
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::with_opts(opts(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let waiting = IntGauge::with_opts(opts("waiting_marks", "Windows waiting to be merged"))?;
        registry.register(Box::new(waiting.clone()))?;
        let overdue = opts("overdue_seconds", "For how long the oldest mark is due");
        let overdue_seconds = Gauge::with_opts(overdue)?;
        registry.register(Box::new(overdue_seconds.clone()))?;
        Ok(Self {
            marks: counter("marks_total", "Windows merged")?,
            rows_read: counter("rows_read_total", "Finer rows read")?,
            rows: counter("rows_total", "Rows written that were new or changed")?,
            deleted: counter("deleted_rows_total", "Rows whose finer rows are gone")?,
            failures: counter("failures_total", "Merges that failed and are tried again")?,
            waiting,
            overdue_seconds,
        })
    }
}

/// Runs until told to stop; a merge under way is left, and nothing of it counts.
pub async fn run(store: RollupStore, metrics: MergeMetrics, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = look(&store, &metrics) => looked,
        };
        let wait = match looked {
            Ok(0) => IDLE,
            Ok(_) => {
                backoff.reset();
                continue;
            }
            Err(error) => {
                let delay = backoff.next_delay();
                metrics.failures.inc();
                tracing::warn!(%error, ?delay, "merging waits");
                delay
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Merges what is due; says how many marks that were.
///
/// # Errors
/// When the database is away.
pub async fn look(store: &RollupStore, metrics: &MergeMetrics) -> Result<usize, StoreError> {
    let (waiting, overdue_seconds) = store.merge_backlog().await?;
    metrics.waiting.set(waiting);
    metrics.overdue_seconds.set(overdue_seconds);
    let mut marks = 0;
    for group in store.merge_groups(MARKS_LOOKED_AT).await? {
        marks += merge(store, metrics, group).await?;
    }
    Ok(marks)
}

async fn merge(
    store: &RollupStore,
    metrics: &MergeMetrics,
    group: Group,
) -> Result<usize, StoreError> {
    match store.merge(group, MARKS_MAX).await {
        Ok(None) => Ok(0),
        Ok(Some(merged)) => {
            metrics.marks.inc_by(merged.marks as u64);
            metrics.rows_read.inc_by(merged.read as u64);
            metrics.rows.inc_by(merged.changed as u64);
            metrics.deleted.inc_by(merged.deleted as u64);
            Ok(merged.marks)
        }
        Err(error) => {
            // One damaged row must not hold up the others; an outage fails here too.
            tracing::warn!(%error, ?group, "a group can't be merged; the others go on");
            metrics.failures.inc();
            store.postpone(group).await?;
            Ok(0)
        }
    }
}
