//! The raw writer's loop.
//!
//! A flush runs while control events of the consumer are listened to, records are not: the
//! consumer pauses by itself meanwhile. When partitions are asked back the flush under way gets a
//! short grace, what it can't publish is dropped, to be read again by the next owner, whom the
//! catalog's generations protect from us in any case.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::dead::{Dead, dead_letter};
use super::write::{Flush, Writer};
use super::{ROLE, RawConfig};
use crate::bus::{Consumer, ConsumerEvent, Record, RecordBatch};
use crate::source::{self, Resumption};
use crate::store::catalog::Claim;
use crate::store::publish::Covered;

/// How often the lag is measured.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// One raw writer.
pub struct Stage {
    consumer: Box<dyn Consumer>,
    writer: Writer,
    config: RawConfig,
    owned: Option<Owned>,
    held: Held,
    position_lost: bool,
    stop: CancellationToken,
}

/// The partitions that are ours.
struct Owned {
    assignment: u64,
    partitions: BTreeMap<i32, Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    generation: i64,
    /// What the catalog has.
    stored: i64,
    /// What has been read.
    next: i64,
}

/// What has been read and is not stored.
#[derive(Default)]
struct Held {
    batch: Batch,
    dead: Vec<Dead>,
    dead_bytes: usize,
    /// When the first of it must be flushed.
    due: Option<Instant>,
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    Done,
    /// The partitions are gone.
    Revoked,
    /// We have to end, and it did not get on.
    GivenUp,
}

impl Stage {
    /// A writer that runs until `stop`.
    pub fn new(
        consumer: Box<dyn Consumer>,
        writer: Writer,
        config: RawConfig,
        stop: CancellationToken,
    ) -> Self {
        let (owned, held, position_lost) = (None, Held::default(), false);
        Self { consumer, writer, config, owned, held, position_lost, stop }
    }

    /// Runs until told to stop, then stores what it holds, within the time configured for that.
    ///
    /// # Errors
    /// When it has to begin anew, with a new consumer; nothing is lost by that.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut result = self.consume().await;
        if result.is_ok() {
            result = self.flush().await.map(|_| ());
        }
        self.consumer.close().await;
        result
    }

    async fn consume(&mut self) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let mut lag = tokio::time::interval(LAG_INTERVAL);
        loop {
            if self.position_lost {
                // First what we hold: the bus may have deleted it already.
                self.flush().await?;
                bail!("the bus has deleted records that were not read; deciding positions anew");
            }
            let due = self.held.due;
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await },
                    if due.is_some() => {
                    self.flush().await?;
                    continue;
                }
                _ = lag.tick() => {
                    self.measure_lag();
                    continue;
                }
                event = self.consumer.next() => event,
            };
            match event {
                ConsumerEvent::Assigned { assignment, partitions } => {
                    if !self.take_over(assignment, &partitions).await {
                        return Ok(());
                    }
                }
                ConsumerEvent::Revoked { ack, .. } => self.give_up(ack),
                ConsumerEvent::Records(records) => self.records(records).await?,
                ConsumerEvent::PositionLost => self.position_lost = true,
                ConsumerEvent::Failed(error) => return Err(error).context("the consumer failed"),
            }
        }
    }

    /// Claims partitions and starts them; `false` when told to stop meanwhile.
    async fn take_over(&mut self, assignment: u64, partitions: &[i32]) -> bool {
        // Control events that come meanwhile stay queued: a start that is too late has no effect,
        // and claims that are too many only fence.
        let claims = tokio::select! {
            claims = source::claim(ROLE, &*self.consumer, &self.writer.catalog, partitions) => claims,
            () = self.stop.cancelled() => return false,
        };
        for claim in &claims {
            self.report(claim);
        }
        let positions = claims.iter().map(|c| (c.basis.partition, c.next_offset)).collect();
        let partitions = claims
            .iter()
            .map(|claim| {
                let (stored, generation) = (claim.next_offset, claim.generation);
                (claim.basis.partition, Progress { generation, stored, next: stored })
            })
            .collect();
        tracing::info!(partitions = claims.len(), assignment, "reading");
        self.owned = Some(Owned { assignment, partitions });
        self.consumer.start(assignment, &positions);
        true
    }

    fn report(&self, claim: &Claim) {
        let (partition, next) = (claim.basis.partition, claim.next_offset);
        let (topic, metrics) = (self.consumer.topic(), &self.writer.metrics);
        match Resumption::of(&claim.basis) {
            Resumption::First | Resumption::Stored => {}
            Resumption::Lost(records) => {
                metrics.lost.inc_by(records.unsigned_abs());
                tracing::error!(
                    topic,
                    partition,
                    records,
                    next,
                    "LOSS: the bus deleted records before they were read"
                );
            }
            Resumption::Ahead(records) => {
                metrics.ahead.inc();
                tracing::error!(
                    topic,
                    partition,
                    records,
                    next,
                    "the log ends before the stored position: reading it from its start"
                );
            }
        }
    }

    fn give_up(&mut self, ack: oneshot::Sender<()>) {
        self.writer.metrics.revocations.inc();
        let discarded = self.held.batch.rows().len();
        tracing::info!(discarded, "partitions taken away; what was not stored is read again");
        self.owned = None;
        self.held = Held::default();
        self.writer.metrics.batch_bytes.set(0);
        // Without a receiver the rebalance has gone on without us.
        let _ = ack.send(());
    }

    async fn records(&mut self, records: RecordBatch) -> anyhow::Result<()> {
        for record in &records.records {
            let Some(owned) = &mut self.owned else { return Ok(()) };
            if owned.assignment != records.assignment {
                return Ok(());
            }
            let Some(progress) = owned.partitions.get_mut(&record.partition) else {
                bail!("got a record of partition {}, which is not ours", record.partition);
            };
            if record.offset < progress.next {
                let (got, want) = (record.offset, progress.next);
                bail!("partition {} went back to offset {got} from {want}", record.partition);
            }
            progress.next = record.offset + 1;
            self.hold(record);
            if self.is_full() {
                self.flush().await?;
            }
        }
        let bytes = self.held.batch.size_bytes() + self.held.dead_bytes;
        self.writer.metrics.batch_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(())
    }

    fn hold(&mut self, record: &Record) {
        let interval = Duration::from_millis(self.config.flush_interval_ms);
        self.held.due.get_or_insert_with(|| Instant::now() + interval);
        if let Err(poison) = self.held.batch.push(record) {
            let dead = dead_letter(self.consumer.topic(), record, &poison);
            let (partition, offset) = (record.partition, record.offset);
            tracing::warn!(partition, offset, error = %poison, "a record can't be stored: to dead letters");
            self.held.dead_bytes += dead.size_bytes();
            self.held.dead.push(dead);
        }
    }

    fn is_full(&self) -> bool {
        let events = self.held.batch.rows().len() + self.held.dead.len();
        let bytes = self.held.batch.size_bytes() + self.held.dead_bytes;
        events >= self.config.flush_events || bytes >= self.config.flush_bytes
    }

    /// Stores what is held.
    async fn flush(&mut self) -> anyhow::Result<Flushed> {
        let held = std::mem::take(&mut self.held);
        let Some(owned) = &self.owned else { return Ok(Flushed::Done) };
        let covered = covered(&owned.partitions);
        if covered.is_empty() {
            return Ok(Flushed::Done);
        }
        let flush = Flush { batch: held.batch, dead: held.dead, covered };
        let writer = self.writer.clone();
        let mut writing = pin!(writer.write(flush));
        let (stop, drain_ms) = (self.stop.clone(), self.config.drain_ms);
        let mut out_of_time = pin!(async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(drain_ms)).await;
        });
        let ack = loop {
            let event = tokio::select! {
                result = &mut writing => {
                    result.context("flush")?;
                    self.stored();
                    return Ok(Flushed::Done);
                }
                () = &mut out_of_time => {
                    tracing::warn!("the flush did not get on in time; it will be read again");
                    self.owned = None;
                    return Ok(Flushed::GivenUp);
                }
                event = self.consumer.next_control() => event,
            };
            match event {
                ConsumerEvent::Revoked { lost: true, ack, .. } => break ack,
                ConsumerEvent::Revoked { lost: false, ack, .. } => {
                    let grace = Duration::from_millis(self.config.revoke_grace_ms);
                    if let Ok(Err(error)) = tokio::time::timeout(grace, &mut writing).await {
                        tracing::warn!(%error, "the flush before giving up partitions failed");
                    }
                    break ack;
                }
                ConsumerEvent::PositionLost => self.position_lost = true,
                ConsumerEvent::Failed(error) => return Err(error).context("the consumer failed"),
                ConsumerEvent::Assigned { .. } | ConsumerEvent::Records(_) => {
                    bail!("the consumer assigned partitions without taking back the others");
                }
            }
        };
        self.give_up(ack);
        Ok(Flushed::Revoked)
    }

    fn stored(&mut self) {
        let Some(owned) = &mut self.owned else { return };
        for progress in owned.partitions.values_mut() {
            progress.stored = progress.next;
        }
        let positions = owned.partitions.iter().map(|(p, progress)| (*p, progress.stored));
        self.consumer.commit(&positions.collect());
        self.writer.metrics.batch_bytes.set(0);
        self.measure_lag();
    }

    fn measure_lag(&self) {
        let lag = &self.writer.metrics.lag;
        lag.reset();
        let Some(owned) = &self.owned else { return };
        for (partition, end) in self.consumer.known_ends() {
            if let Some(progress) = owned.partitions.get(&partition) {
                let behind = (end - progress.stored).max(0);
                lag.with_label_values(&[&partition.to_string()]).set(behind);
            }
        }
    }
}

/// What was read beyond what is stored, by partition.
fn covered(partitions: &BTreeMap<i32, Progress>) -> Vec<Covered> {
    let read = partitions.iter().filter(|(_, progress)| progress.next > progress.stored);
    let covered = |(partition, progress): (&i32, &Progress)| Covered {
        partition: *partition,
        from: progress.stored,
        to: progress.next,
        generation: progress.generation,
    };
    read.map(covered).collect()
}
