//! The work of the ledger: fold, judge, look again, count. All of it can be done by several
//! processes at once or cut short anywhere: nothing is kept but in the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use penstock_common::clock::Clock;
use penstock_common::event::Epoch;
use tokio_util::sync::CancellationToken;

use super::LedgerConfig;
use super::barrier::{Barrier, Bounds, Partition};
use super::metrics::LedgerMetrics;
use crate::bus::LogEnds;
use crate::store::ledger::{Found, LedgerStore, Target};
use crate::store::positions::Positions;

/// Notes folded in one transaction.
const FOLD_MAX: i64 = 2_000;
/// Missing ranges looked at again in one check.
const RECHECK_MAX: i64 = 200;
/// Epochs with damage looked at again in one check.
const DAMAGED_MAX: i64 = 50;
/// New missing ranges logged in one check; the others are in the catalog.
const LOGGED_MAX: usize = 100;
/// After how many checks people are told that verdicts wait for a partition, and again each time.
const WAITING_TOLD: u32 = 60;

/// What must have read everything before a verdict is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The role, as in the positions.
    pub role: String,
    /// The topic's full name.
    pub topic: String,
}

/// The ledger at work.
pub struct Checker {
    /// The ledger.
    pub store: LedgerStore,
    /// The positions of the readers.
    pub positions: Positions,
    /// Where the readers' topics end.
    pub ends: Arc<dyn LogEnds>,
    /// Raw writer and dead-letter writer.
    pub readers: Vec<Reader>,
    /// How it works.
    pub config: LedgerConfig,
    /// For the age of statuses.
    pub clock: Arc<dyn Clock>,
    /// Counted here.
    pub metrics: LedgerMetrics,
}

/// What is to be judged, once the readers have passed the barrier.
struct Pending {
    targets: Vec<Target>,
    barrier: Barrier,
    checks: u32,
}

impl Checker {
    /// Checks until `stop`. What fails is tried again at the next check.
    pub async fn run(self, stop: CancellationToken) {
        let mut pending = None;
        let mut interval =
            tokio::time::interval(Duration::from_millis(self.config.check_interval_ms));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                checked = self.check(&mut pending) => if let Err(error) = checked {
                    tracing::warn!(error = format!("{error:#}"), "the ledger could not be checked");
                },
            }
        }
    }

    async fn check(&self, pending: &mut Option<Pending>) -> anyhow::Result<()> {
        while self.store.fold(FOLD_MAX).await.context("fold")? >= FOLD_MAX as usize {}
        if pending.is_none() {
            *pending = self.arm().await?;
        }
        if let Some(waiting) = pending
            && self.is_passed(waiting).await?
        {
            self.judge(&waiting.targets).await?;
            *pending = None;
        }
        self.metrics.waiting.set(i64::from(pending.is_some()));
        for found in self.store.recheck_missing(RECHECK_MAX).await.context("look again")? {
            let Found { gateway, epoch, missing } = found;
            tracing::warn!(
                gateway,
                epoch = %Epoch(epoch.unsigned_abs()),
                from = missing.range.start,
                to = missing.range.end,
                numbers = missing.numbers,
                "numbers that were missing are accounted for"
            );
        }
        self.store.recheck_damaged(DAMAGED_MAX).await.context("count damage")?;
        self.store.forget_history(self.config.history_days).await.context("forget history")?;
        self.show().await
    }

    /// First what is to be judged, then where the logs end: what was acknowledged before is below.
    async fn arm(&self) -> anyhow::Result<Option<Pending>> {
        let targets = self.store.targets().await.context("see what is to be judged")?;
        if targets.is_empty() {
            return Ok(None);
        }
        let mut ends = BTreeMap::new();
        for reader in &self.readers {
            let marks = self.ends.ends(&reader.topic).await;
            for mark in marks.with_context(|| format!("see where {} ends", reader.topic))? {
                let bounds = Bounds { low: mark.low, high: mark.high };
                ends.insert((reader.topic.clone(), mark.partition), bounds);
            }
        }
        Ok(Some(Pending { targets, barrier: Barrier::new(ends), checks: 0 }))
    }

    async fn is_passed(&self, pending: &mut Pending) -> anyhow::Result<bool> {
        let mut positions: BTreeMap<Partition, i64> = BTreeMap::new();
        for reader in &self.readers {
            for position in self.positions.of_role(&reader.role).await? {
                if position.topic == reader.topic {
                    positions.insert((position.topic, position.partition), position.next_offset);
                }
            }
        }
        let Some((topic, partition)) = pending.barrier.stands(&positions) else { return Ok(true) };
        pending.checks += 1;
        if pending.checks.is_multiple_of(WAITING_TOLD) {
            let checks = pending.checks;
            tracing::warn!(topic, partition, checks, "the ledger waits for it to be read");
        }
        Ok(false)
    }

    async fn judge(&self, targets: &[Target]) -> anyhow::Result<()> {
        let mut told = 0;
        for target in targets {
            for found in self.store.judge(target).await.context("judge")? {
                told += 1;
                if told > LOGGED_MAX {
                    continue;
                }
                let Found { gateway, epoch, missing } = found;
                tracing::error!(
                    gateway,
                    epoch = %Epoch(epoch.unsigned_abs()),
                    from = missing.range.start,
                    to = missing.range.end,
                    numbers = missing.numbers,
                    "LOSS: numbers that a gateway handed over arrived nowhere"
                );
            }
        }
        if told > LOGGED_MAX {
            tracing::error!(ranges = told, "LOSS: more missing ranges: see `cloud-core ledger`");
        }
        Ok(())
    }

    async fn show(&self) -> anyhow::Result<()> {
        let totals = self.store.totals().await.context("count")?;
        let now = self.clock.now().0;
        let age = |at: i64| now.saturating_sub(at).max(0) / 1_000_000;
        let gateways =
            totals.iter().map(|one| (one.gateway.as_str(), &one.verdict, one.status_at.map(age)));
        self.metrics.show(gateways, self.config.gateways_max);
        Ok(())
    }
}
