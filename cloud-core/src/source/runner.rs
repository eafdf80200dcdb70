//! The loop of every role that reads the bus.
//!
//! ```text
//! assigned ─▶ claim (generations, positions) ─▶ start ─▶ hold … hold ─▶ flush ─▶ flushed
//!                                                 ▲                        │
//!                                                 └────────────────────────┘
//! ```
//! A flush runs while control events of the consumer are listened to, records are not: the
//! consumer pauses by itself meanwhile, however long a store is away. When partitions are asked
//! back the flush under way gets a short grace; what it can't store is dropped, to be read again
//! by the next owner, whom the generations protect from us in any case.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::SourceCounters;
use super::poison::PoisonMemory;
use super::{Resumption, claim};
use crate::bus::{Consumer, ConsumerEvent, Record, RecordBatch};
use crate::store::positions::{Claim, Positions};
use crate::store::publish::Covered;

/// How often the lag is measured and [`Sink::tick`] is called.
const TICK: Duration = Duration::from_secs(1);

/// What a role makes of records. Its state is what was held and not yet flushed.
pub trait Sink: Send {
    /// Partitions are ours; records of them follow, from `read_from` on. Called with all
    /// partitions of an assignment at once, after [`Self::discard`].
    ///
    /// # Errors
    /// When what the role needs to begin can't be read; it begins anew.
    fn assigned<'a>(&'a mut self, claims: &'a [Claim]) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Takes a record into memory. Records come in offset order within each partition.
    ///
    /// # Errors
    /// When the role can't go on and must begin anew. A record that can't be processed is no
    /// error: the sink keeps a dead letter for its next flush.
    fn hold(&mut self, record: &Record) -> anyhow::Result<()>;

    /// Takes a record that made [`Self::hold`] panic `attempts` times: a dead letter.
    ///
    /// # Errors
    /// As [`Self::hold`].
    fn poison(&mut self, record: &Record, attempts: u32) -> anyhow::Result<()>;

    /// Whether what is held must be flushed before more is taken.
    fn is_full(&self) -> bool;

    /// When the next flush is due, if anything waits for one.
    fn due(&self) -> Option<Instant>;

    /// Stores what is held and moves the positions over `covered`, in one transaction; tried until
    /// it succeeds. Dropping the future gives up. `covered` has every partition that is ours, with
    /// `from` = `to` where nothing new was read.
    fn flush(&mut self, covered: Vec<Covered>) -> BoxFuture<'static, anyhow::Result<()>>;

    /// The flush has succeeded.
    fn flushed(&mut self);

    /// Everything that is held and not stored is somebody else's now: forget it.
    fn discard(&mut self);

    /// Called about every second with the ends of the partitions as last heard of, and how far
    /// each has been read.
    fn tick(&mut self, ends: &BTreeMap<i32, i64>, read: &BTreeMap<i32, i64>) {
        let _ = (ends, read);
    }
}

/// Patience of a role.
#[derive(Clone, Copy, Debug)]
pub struct RunnerConfig {
    /// How long the last flush may take when the process is told to stop.
    pub drain: Duration,
    /// How long a flush may go on after its partitions were asked back.
    pub revoke_grace: Duration,
}

/// One role on one topic.
pub struct Runner<S> {
    /// The role's name in the positions.
    pub role: &'static str,
    /// Its member of the group.
    pub consumer: Box<dyn Consumer>,
    /// What it makes of records.
    pub sink: S,
    /// Where its positions are: in the database of its effects.
    pub positions: Positions,
    /// Patience.
    pub config: RunnerConfig,
    /// Counted here.
    pub counters: SourceCounters,
    /// Outlives this runner.
    pub poison: PoisonMemory,
    /// Ends it.
    pub stop: CancellationToken,
}

/// The partitions that are ours.
struct Owned {
    assignment: u64,
    partitions: BTreeMap<i32, Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    generation: i64,
    /// What the database has.
    stored: i64,
    /// What has been read: behind `stored` while records are read again.
    read: i64,
}

struct Loop<S> {
    runner: Runner<S>,
    owned: Option<Owned>,
    position_lost: bool,
}

impl<S: Sink> Runner<S> {
    /// Runs until told to stop, then stores what is held, within the time configured for that.
    ///
    /// # Errors
    /// When it has to begin anew, with a new consumer; nothing is lost by that.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut this = Loop { runner: self, owned: None, position_lost: false };
        let mut result = this.consume().await;
        if result.is_ok() {
            result = this.flush().await;
        }
        this.forget_lag();
        this.runner.consumer.close().await;
        result
    }
}

impl<S: Sink> Loop<S> {
    async fn consume(&mut self) -> anyhow::Result<()> {
        let stop = self.runner.stop.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.position_lost {
                // First what we hold: the bus may have deleted it already.
                self.flush().await?;
                bail!("the bus has deleted records that were not read; deciding positions anew");
            }
            let due = self.runner.sink.due().filter(|_| self.owned.is_some());
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await },
                    if due.is_some() => {
                    self.flush().await?;
                    continue;
                }
                _ = tick.tick() => {
                    self.tick();
                    continue;
                }
                event = self.runner.consumer.next() => event,
            };
            match event {
                ConsumerEvent::Assigned { assignment, partitions } => {
                    if !self.take_over(assignment, &partitions).await? {
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
    async fn take_over(&mut self, assignment: u64, partitions: &[i32]) -> anyhow::Result<bool> {
        let Runner { role, consumer, positions, stop, .. } = &self.runner;
        // Control events that come meanwhile stay queued: a start that is too late has no effect,
        // and claims that are too many only fence.
        let claims = tokio::select! {
            claims = claim(role, &**consumer, positions, partitions) => claims,
            () = stop.cancelled() => return Ok(false),
        };
        for claim in &claims {
            self.report(claim);
        }
        let read_from = claims.iter().map(|c| (c.basis.partition, c.read_from)).collect();
        let progress = |claim: &Claim| Progress {
            generation: claim.generation,
            stored: claim.next_offset,
            read: claim.read_from,
        };
        let partitions = claims.iter().map(|c| (c.basis.partition, progress(c))).collect();
        tracing::info!(role, partitions = claims.len(), assignment, "reading");
        self.owned = Some(Owned { assignment, partitions });
        self.runner.sink.discard();
        self.runner.sink.assigned(&claims).await.context("begin with the partitions")?;
        self.runner.consumer.start(assignment, &read_from);
        Ok(true)
    }

    fn report(&self, claim: &Claim) {
        let (role, partition, next) = (self.runner.role, claim.basis.partition, claim.next_offset);
        let (topic, counters) = (self.runner.consumer.topic(), &self.runner.counters);
        match Resumption::of(&claim.basis) {
            Resumption::First | Resumption::Stored => {}
            Resumption::Lost(records) => {
                counters.lost.inc_by(records.unsigned_abs());
                tracing::error!(
                    role,
                    topic,
                    partition,
                    records,
                    next,
                    "LOSS: the bus deleted records before they were read"
                );
            }
            Resumption::Ahead(records) => {
                counters.ahead.inc();
                tracing::error!(
                    role,
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
        self.runner.counters.revocations.inc();
        tracing::info!(
            role = self.runner.role,
            "partitions taken away; what was not stored is read again"
        );
        self.forget_lag();
        self.owned = None;
        self.runner.sink.discard();
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
            if record.offset < progress.read {
                let (got, want) = (record.offset, progress.read);
                bail!("partition {} went back to offset {got} from {want}", record.partition);
            }
            progress.read = record.offset + 1;
            self.hold(record)?;
            if self.runner.sink.is_full() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, record: &Record) -> anyhow::Result<()> {
        let Runner { role, consumer, sink, counters, poison, .. } = &mut self.runner;
        let (topic, partition, offset) = (consumer.topic(), record.partition, record.offset);
        if let Some(attempts) = poison.given_up(topic, partition, offset) {
            tracing::error!(role, topic, partition, offset, attempts, "given up on a record");
            return sink.poison(record, attempts);
        }
        // A panic ends this life of the sink: what it left behind is never looked at again.
        match catch_unwind(AssertUnwindSafe(|| sink.hold(record))) {
            Ok(held) => held,
            Err(_) => {
                counters.panics.inc();
                let attempts = poison.note(topic, partition, offset);
                bail!("{topic}/{partition}/{offset} made the stage panic, attempt {attempts}")
            }
        }
    }

    /// Stores what is held.
    async fn flush(&mut self) -> anyhow::Result<()> {
        let Some(owned) = &self.owned else { return Ok(()) };
        let covered = covered(&owned.partitions);
        let RunnerConfig { drain, revoke_grace } = self.runner.config;
        let mut writing = pin!(self.runner.sink.flush(covered));
        let stop = self.runner.stop.clone();
        let mut out_of_time = pin!(async move {
            stop.cancelled().await;
            tokio::time::sleep(drain).await;
        });
        let ack = loop {
            let event = tokio::select! {
                result = &mut writing => {
                    result.context("flush")?;
                    self.flushed();
                    return Ok(());
                }
                () = &mut out_of_time => {
                    tracing::warn!("the flush did not get on in time; it will be read again");
                    self.owned = None;
                    return Ok(());
                }
                event = self.runner.consumer.next_control() => event,
            };
            match event {
                ConsumerEvent::Revoked { lost: true, ack, .. } => break ack,
                ConsumerEvent::Revoked { lost: false, ack, .. } => {
                    match tokio::time::timeout(revoke_grace, &mut writing).await {
                        Ok(Ok(())) => self.flushed(),
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "the flush before giving up partitions failed");
                        }
                        Err(_) => tracing::info!("no time to finish the flush"),
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
        Ok(())
    }

    fn flushed(&mut self) {
        self.runner.sink.flushed();
        let Some(owned) = &mut self.owned else { return };
        for progress in owned.partitions.values_mut() {
            progress.stored = progress.stored.max(progress.read);
        }
        let positions = owned.partitions.iter().map(|(p, progress)| (*p, progress.stored));
        self.runner.consumer.commit(&positions.collect());
        self.measure_lag();
    }

    fn tick(&mut self) {
        self.measure_lag();
        let Some(owned) = &self.owned else { return };
        let read = owned.partitions.iter().map(|(p, progress)| (*p, progress.read)).collect();
        self.runner.sink.tick(&self.runner.consumer.known_ends(), &read);
    }

    fn measure_lag(&self) {
        let Some(owned) = &self.owned else { return };
        for (partition, end) in self.runner.consumer.known_ends() {
            if let Some(progress) = owned.partitions.get(&partition) {
                self.runner.counters.lag(partition, (end - progress.stored).max(0));
            }
        }
    }

    fn forget_lag(&self) {
        let owned = self.owned.iter().flat_map(|owned| owned.partitions.keys());
        owned.for_each(|partition| self.runner.counters.forget_lag(*partition));
    }
}

/// What was read beyond what is stored, by partition.
fn covered(partitions: &BTreeMap<i32, Progress>) -> Vec<Covered> {
    let covered = |(partition, progress): (&i32, &Progress)| Covered {
        partition: *partition,
        from: progress.stored,
        to: progress.read.max(progress.stored),
        generation: progress.generation,
    };
    partitions.iter().map(covered).collect()
}
