//! Merges what is due, again and again. Any number of workers may run; one that dies leaves
//! nothing behind. With the database away it waits and says so.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use penstock_common::retry::Backoff;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};
use tokio_util::sync::CancellationToken;

use crate::store::postgres::StoreError;
use crate::store::rollup::RollupStore;
use crate::store::rollup::merge::Group;

/// Marks looked at for groups with work.
const DUE_MAX: i64 = 5_000;
/// Marks of one transaction.
const MARKS_MAX: i64 = 500;
/// Groups worked on at the same time.
const PARALLEL: usize = 2;
/// The wait when nothing is due.
const IDLE: Duration = Duration::from_millis(500);
/// How often the backlog is counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// What merging counts.
#[derive(Clone)]
pub struct MergeMetrics {
    rows: IntCounterVec,
    read: IntCounter,
    failures: IntCounter,
    waiting: IntGauge,
    overdue: Gauge,
    seconds: Histogram,
}

impl MergeMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &prometheus::Registry) -> prometheus::Result<Self> {
        let counter = |name, help| IntCounter::new(name, help);
        let rows = Opts::new("penstock_merge_rows_total", "Merged rows that changed or went");
        let seconds = HistogramOpts::new("penstock_merge_seconds", "Time of one merge");
        let metrics = Self {
            rows: IntCounterVec::new(rows, &["level"])?,
            read: counter("penstock_merge_rows_read_total", "Finer rows read")?,
            failures: counter("penstock_merge_failures_total", "Merges to be tried again")?,
            waiting: IntGauge::new("penstock_merge_marks", "Windows to be merged")?,
            overdue: Gauge::new(
                "penstock_merge_overdue_seconds",
                "How long the oldest window has been due",
            )?,
            seconds: Histogram::with_opts(seconds)?,
        };
        registry.register(Box::new(metrics.rows.clone()))?;
        registry.register(Box::new(metrics.read.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.overdue.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }

    /// Merges that have to be tried again.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }
}

/// A worker; clones share the store.
#[derive(Clone)]
pub struct MergeWorker {
    /// The rollups.
    pub store: RollupStore,
    /// Counted here.
    pub metrics: MergeMetrics,
}

impl MergeWorker {
    /// Works until `stop`; a merge under way is dropped then, which changes nothing.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
        let mut counted: Option<Instant> = None;
        while !stop.is_cancelled() {
            let work = async {
                if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                    let (waiting, overdue) = self.store.merge_backlog().await?;
                    self.metrics.waiting.set(waiting);
                    self.metrics.overdue.set(overdue);
                    counted = Some(Instant::now());
                }
                self.round().await
            };
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = work => done,
            };
            let pause = match done {
                Ok(0) => IDLE,
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    let delay = backoff.next_delay();
                    self.metrics.failures.inc();
                    tracing::warn!(%error, ?delay, "can't merge rollups now");
                    delay
                }
            };
            if pause <= IDLE {
                backoff.reset();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Merges what is due now; says how many marks that were.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn round(&self) -> Result<usize, StoreError> {
        let groups = self.store.merge_groups(DUE_MAX).await?;
        let merges = stream::iter(groups).map(|group| self.merge(group)).buffer_unordered(PARALLEL);
        merges.try_fold(0, |sum, marks| async move { Ok(sum + marks) }).await
    }

    async fn merge(&self, group: Group) -> Result<usize, StoreError> {
        let started = Instant::now();
        match self.store.merge(group, MARKS_MAX).await {
            Ok(Some(merged)) => {
                let rows = (merged.changed + merged.deleted) as u64;
                self.metrics.rows.with_label_values(&[group.level.label()]).inc_by(rows);
                self.metrics.read.inc_by(merged.read as u64);
                self.metrics.seconds.observe(started.elapsed().as_secs_f64());
                Ok(merged.marks)
            }
            // Another worker is at it.
            Ok(None) => Ok(0),
            Err(StoreError::Damaged(what)) => {
                self.metrics.failures.inc();
                tracing::error!(
                    level = group.level.label(),
                    bucket = group.bucket,
                    what,
                    "a stored row can't be read; its window is not merged"
                );
                self.store.postpone(group).await?;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}
