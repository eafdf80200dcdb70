//! The thread that polls librdkafka.
//!
//! States: without partitions → (rebalance: assign) waiting for `Start` → running → (rebalance:
//! revoke) waiting for the owner's acknowledgement → without partitions. librdkafka allows the
//! assign and unassign calls to come after the rebalance callback as long as polling goes on, so
//! nothing here ever blocks a rebalance or is blocked by one.
//!
//! While the owner takes no records, the thread first waits a little, then pauses the partitions
//! and keeps polling: group membership does not depend on how long an outage behind us lasts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_common::event::UnixMicros;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::bus::{ConsumerEvent, Record, RecordBatch};

/// A chunk is handed over when it has this many records or bytes, or nothing more is there.
const CHUNK_RECORDS_MAX: usize = 2_048;
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// How long the owner may take no records before the partitions are paused.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the owner may take to acknowledge a revocation.
const ACK_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// The same client error is logged again after this time.
const LOG_AGAIN: Duration = Duration::from_secs(30);

/// What the owner asks of the thread.
pub(super) enum Command {
    /// Begin an assignment.
    Start { assignment: u64, positions: BTreeMap<i32, i64> },
    /// Commit for show.
    Commit(BTreeMap<i32, i64>),
    /// Leave the group, end.
    Close(oneshot::Sender<()>),
}

enum Rebalance {
    Assign(Vec<i32>),
    Revoke { lost: bool },
}

/// Collects what librdkafka says while it is polled.
#[derive(Default)]
pub(super) struct Context {
    closing: AtomicBool,
    rebalances: Mutex<VecDeque<Rebalance>>,
    ends: Mutex<HashMap<String, BTreeMap<i32, i64>>>,
}

impl Context {
    pub(super) fn known_ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(topic).cloned().unwrap_or_default()
    }

    fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let known = |topic: rdkafka::statistics::Topic| {
            let partitions = topic.partitions.into_values().filter(|p| p.hi_offset >= 0);
            partitions.map(|p| (p.partition, p.hi_offset)).collect()
        };
        let ends = statistics.topics.into_iter().map(|(name, topic)| (name, known(topic)));
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends.collect();
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let rebalance = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let mut partitions: Vec<i32> = list.elements().iter().map(|p| p.partition()).collect();
            partitions.sort_unstable();
            Rebalance::Assign(partitions)
        } else {
            Rebalance::Revoke { lost: consumer.assignment_lost() }
        };
        if self.closing.load(Ordering::SeqCst) {
            unassign(consumer);
        } else {
            let mut queue = self.rebalances.lock().unwrap_or_else(PoisonError::into_inner);
            queue.push_back(rebalance);
        }
    }
}

fn unassign(consumer: &BaseConsumer<Context>) {
    if let Err(error) = consumer.unassign() {
        tracing::warn!(%error, "give up the partitions");
    }
}

enum State {
    Without,
    AwaitingStart,
    Running { partitions: Vec<i32> },
    AwaitingAck { ack: oneshot::Receiver<()>, until: Instant },
}

/// The thread's own side.
pub(super) struct Worker {
    topic: String,
    consumer: Arc<BaseConsumer<Context>>,
    control: mpsc::UnboundedSender<ConsumerEvent>,
    records: mpsc::Sender<RecordBatch>,
    commands: Receiver<Command>,
    state: State,
    assignment: u64,
    chunk: Vec<Record>,
    chunk_bytes: usize,
    blocked_since: Option<Instant>,
    paused: bool,
    logged: HashMap<i32, Instant>,
}

impl Worker {
    pub(super) fn new(
        topic: &str,
        consumer: Arc<BaseConsumer<Context>>,
        control: mpsc::UnboundedSender<ConsumerEvent>,
        records: mpsc::Sender<RecordBatch>,
        commands: Receiver<Command>,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            consumer,
            control,
            records,
            commands,
            state: State::Without,
            assignment: 0,
            chunk: Vec::new(),
            chunk_bytes: 0,
            blocked_since: None,
            paused: false,
            logged: HashMap::new(),
        }
    }

    pub(super) fn run(mut self) {
        let closed = loop {
            match self.obey() {
                Ok(()) => {}
                Err(closed) => break closed,
            }
            self.finish_revocation();
            self.poll();
            while let Some(rebalance) = self.consumer.context().next_rebalance() {
                self.rebalance(rebalance);
            }
            self.hand_over();
        };
        self.consumer.context().closing.store(true, Ordering::SeqCst);
        if matches!(self.state, State::AwaitingAck { .. } | State::AwaitingStart) {
            unassign(&self.consumer);
        }
        // Dropping the client leaves the group and waits for that.
        drop(self.consumer);
        if let Some(closed) = closed {
            let _ = closed.send(());
        }
    }

    /// Runs the waiting commands; `Err` says that this is the end.
    fn obey(&mut self) -> Result<(), Option<oneshot::Sender<()>>> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Start { assignment, positions }) => self.start(assignment, &positions),
                Ok(Command::Commit(positions)) => self.commit(&positions),
                Ok(Command::Close(done)) => return Err(Some(done)),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(None),
            }
        }
    }

    fn start(&mut self, assignment: u64, positions: &BTreeMap<i32, i64>) {
        if assignment != self.assignment || !matches!(self.state, State::AwaitingStart) {
            return;
        }
        match self.list(positions).and_then(|list| self.consumer.assign(&list)) {
            Ok(()) => {
                self.state = State::Running { partitions: positions.keys().copied().collect() };
            }
            Err(error) => self.tell(ConsumerEvent::Failed(error.into())),
        }
    }

    fn commit(&self, positions: &BTreeMap<i32, i64>) {
        let done =
            self.list(positions).and_then(|list| self.consumer.commit(&list, CommitMode::Async));
        if let Err(error) = done {
            tracing::debug!(%error, "commit positions for show");
        }
    }

    fn list(&self, positions: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, offset) in positions {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }

    /// Fills the chunk from what the client has fetched.
    fn poll(&mut self) {
        let mut timeout = POLL;
        loop {
            let polled = match self.consumer.poll(timeout) {
                None => return,
                Some(Ok(message)) => Ok(record(&message)),
                Some(Err(error)) => Err(error),
            };
            match polled {
                Ok(record) => {
                    if matches!(self.state, State::Running { .. }) {
                        self.chunk_bytes += record.size_bytes();
                        self.chunk.push(record);
                    }
                }
                Err(error) => self.trouble(error),
            }
            let rebalances = &self.consumer.context().rebalances;
            let rebalancing = !rebalances.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            if rebalancing || self.chunk_is_full() || self.blocked_since.is_some() {
                return;
            }
            timeout = Duration::ZERO;
        }
    }

    fn chunk_is_full(&self) -> bool {
        self.chunk.len() >= CHUNK_RECORDS_MAX || self.chunk_bytes >= CHUNK_BYTES_MAX
    }

    fn trouble(&mut self, error: KafkaError) {
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => {
                self.tell(ConsumerEvent::PositionLost);
            }
            KafkaError::MessageConsumptionFatal(_) => {
                self.tell(ConsumerEvent::Failed(error.into()));
            }
            other => {
                let code = other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown) as i32;
                let now = Instant::now();
                let last = self.logged.get(&code);
                if last.is_none_or(|last| now.duration_since(*last) >= LOG_AGAIN) {
                    self.logged.insert(code, now);
                    tracing::warn!(error = %other, topic = self.topic, "the consumer has trouble");
                }
            }
        }
    }

    fn rebalance(&mut self, rebalance: Rebalance) {
        self.chunk.clear();
        self.chunk_bytes = 0;
        self.blocked_since = None;
        self.paused = false;
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.assignment += 1;
                self.state = State::AwaitingStart;
                self.tell(ConsumerEvent::Assigned { assignment: self.assignment, partitions });
            }
            Rebalance::Revoke { lost } => {
                let (ack, acked) = oneshot::channel();
                self.tell(ConsumerEvent::Revoked { assignment: self.assignment, lost, ack });
                let until = Instant::now() + if lost { Duration::ZERO } else { ACK_PATIENCE };
                self.state = State::AwaitingAck { ack: acked, until };
            }
        }
    }

    fn finish_revocation(&mut self) {
        if let State::AwaitingAck { ack, until } = &mut self.state {
            // Dropped without a word counts as acknowledged.
            let waiting = matches!(ack.try_recv(), Err(oneshot::error::TryRecvError::Empty));
            if !waiting || Instant::now() >= *until {
                unassign(&self.consumer);
                self.state = State::Without;
            }
        }
    }

    fn tell(&self, event: ConsumerEvent) {
        // An owner that is gone has closed the commands, which ends the thread.
        let _ = self.control.send(event);
    }

    fn hand_over(&mut self) {
        if self.chunk.is_empty() {
            self.resume();
            return;
        }
        let records = std::mem::take(&mut self.chunk);
        match self.records.try_send(RecordBatch { assignment: self.assignment, records }) {
            Ok(()) => {
                self.chunk_bytes = 0;
                self.resume();
            }
            Err(TrySendError::Full(batch)) => {
                self.chunk = batch.records;
                let since = *self.blocked_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    self.pause();
                } else {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            Err(TrySendError::Closed(_)) => {}
        }
    }

    fn pause(&mut self) {
        if !self.paused {
            self.paused = true;
            self.with_partitions(BaseConsumer::pause);
        }
    }

    fn resume(&mut self) {
        self.blocked_since = None;
        if self.paused {
            self.paused = false;
            self.with_partitions(BaseConsumer::resume);
        }
    }

    fn with_partitions(
        &self,
        act: impl Fn(&BaseConsumer<Context>, &TopicPartitionList) -> Result<(), KafkaError>,
    ) {
        let State::Running { partitions } = &self.state else { return };
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        if let Err(error) = act(&self.consumer, &list) {
            tracing::warn!(%error, "pause or resume partitions");
        }
    }
}

/// A copy of a message.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let append_time = UnixMicros(message.timestamp().to_millis().unwrap_or(0) * 1_000);
    let headers = message.headers();
    let headers = headers.iter().flat_map(|headers| headers.iter());
    Record::new(
        (message.partition(), message.offset()),
        append_time,
        message.key(),
        message.payload().unwrap_or_default(),
        headers.map(|header| (header.key, header.value.unwrap_or_default())),
    )
}
