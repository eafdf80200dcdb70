//! Statuses from the bus into the catalog.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use penstock_common::retry::Backoff;
use penstock_common::status::{EpochStatus, GatewayStatus};
use tokio::time::Instant;

use super::metrics::LedgerMetrics;
use super::{LedgerConfig, ROLE};
use crate::bus::Record;
use crate::source::runner::Sink;
use crate::store::ledger::{HeardStatus, LedgerStore, StatusFlush};
use crate::store::positions::Claim;
use crate::store::publish::{Covered, PublishError};

/// So many statuses are stored at once: a transaction stays short.
const STATUSES_MAX: usize = 500;
const MINUTE_MICROS: i64 = 60 * 1_000_000;

/// The ledger's sink on `gateway-status`.
pub struct StatusSink {
    store: LedgerStore,
    topic: String,
    config: LedgerConfig,
    metrics: LedgerMetrics,
    held: Vec<HeardStatus>,
    due: Option<Instant>,
}

impl StatusSink {
    /// A sink that stores what it reads from `topic`.
    pub const fn new(
        store: LedgerStore,
        topic: String,
        config: LedgerConfig,
        metrics: LedgerMetrics,
    ) -> Self {
        Self { store, topic, config, metrics, held: Vec::new(), due: None }
    }

    fn unreadable(&self, record: &Record, reason: &str) {
        self.metrics.unreadable.inc();
        let (partition, offset) = (record.partition, record.offset);
        tracing::error!(partition, offset, reason, "a gateway's status is passed over");
    }
}

impl Sink for StatusSink {
    fn assigned<'a>(&'a mut self, _claims: &'a [Claim]) -> BoxFuture<'a, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn hold(&mut self, record: &Record) -> anyhow::Result<()> {
        let interval = Duration::from_millis(self.config.flush_interval_ms);
        self.due.get_or_insert_with(|| Instant::now() + interval);
        match GatewayStatus::decode(record.payload()) {
            Ok(status) => {
                let heard = HeardStatus { at: record.append_time, status };
                let of_it = |old: &&mut HeardStatus| old.status.gateway == heard.status.gateway;
                match self.held.iter_mut().rev().find(of_it) {
                    Some(old) if says_it_all(&heard, old) => *old = heard,
                    _ => self.held.push(heard),
                }
            }
            Err(error) => self.unreadable(record, &error.to_string()),
        }
        Ok(())
    }

    fn poison(&mut self, record: &Record, _attempts: u32) -> anyhow::Result<()> {
        // Nothing of it is lost: the next status says how things stand.
        self.unreadable(record, "it made the stage panic");
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.held.len() >= STATUSES_MAX
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn flush(&mut self, mut covered: Vec<Covered>) -> BoxFuture<'static, anyhow::Result<()>> {
        covered.retain(|c| c.to > c.from);
        let statuses = std::mem::take(&mut self.held);
        self.due = None;
        if covered.is_empty() {
            return async { Ok(()) }.boxed();
        }
        let (role, topic) = (ROLE.to_owned(), self.topic.clone());
        let flush = StatusFlush { role, topic, statuses, covered };
        store_until_done(self.store.clone(), Arc::new(flush), self.metrics.clone()).boxed()
    }

    fn flushed(&mut self) {}

    fn discard(&mut self) {
        self.held.clear();
        self.due = None;
    }
}

/// Whether a status says all that an older one of the same minute says, so that a backlog of
/// them stays short.
fn says_it_all(new: &HeardStatus, old: &HeardStatus) -> bool {
    let minute = |heard: &HeardStatus| heard.at.0.div_euclid(MINUTE_MICROS);
    let (a, b) = (&old.status, &new.status);
    let is_in = |epoch: &EpochStatus| {
        let mut same = b.epochs.iter().filter(|other| other.epoch == epoch.epoch);
        same.any(|other| other.next >= epoch.next && other.retired >= epoch.retired)
    };
    minute(new) == minute(old)
        && a.epochs.iter().all(is_in)
        && a.damaged.iter().all(|range| b.damaged.contains(range))
}

async fn store_until_done(
    store: LedgerStore,
    flush: Arc<StatusFlush>,
    metrics: LedgerMetrics,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        match store.flush_statuses(&flush).await {
            Ok(()) => {
                metrics.statuses.inc_by(flush.statuses.len() as u64);
                return Ok(());
            }
            Err(PublishError::Store(error)) => {
                let delay = backoff.next_delay();
                tracing::warn!(%error, ?delay, "statuses wait to be stored");
                tokio::time::sleep(delay).await;
            }
            Err(fenced) => return Err(fenced.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_common::event::{Epoch, UnixMicros};
    use penstock_common::status::DamagedNumbers;

    use super::*;

    #[test]
    fn a_status_takes_the_place_of_an_older_one_only_if_nothing_is_lost_by_that() {
        let heard = |at_s: i64, epochs: &[(u64, u64, u64)]| {
            let epoch = |&(epoch, next, retired): &(u64, u64, u64)| EpochStatus {
                epoch: Epoch(epoch),
                next,
                retired,
                not_kept: 0,
            };
            let epochs = epochs.iter().map(epoch).collect();
            let new = GatewayStatus::new("g".into(), UnixMicros(0), Epoch(2));
            HeardStatus {
                at: UnixMicros(at_s * 1_000_000),
                status: GatewayStatus { epochs, ..new },
            }
        };
        let old = heard(61, &[(1, 9, 9), (2, 5, 3)]);
        assert!(says_it_all(&heard(119, &[(2, 6, 3), (1, 9, 9)]), &old));
        for other in [
            heard(120, &[(1, 9, 9), (2, 6, 3)]),
            heard(70, &[(2, 6, 3)]),
            heard(70, &[(1, 8, 8), (2, 6, 3)]),
        ] {
            assert!(!says_it_all(&other, &old), "{other:?}");
        }
        let mut damaged = old.clone();
        damaged.status.damaged.push(DamagedNumbers { epoch: Epoch(1), from: 0, to: 1 });
        assert!(says_it_all(&damaged, &old) && !says_it_all(&old, &damaged));
    }
}
