//! The driver over a real spool on a simulated disk, with a bus in memory that loses leaders,
//! refuses and fails when told to. Kafka itself: `hw-tests`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_common::clock::SystemClock;
use penstock_common::event::{Flags, UnixMicros};
use penstock_common::log::disk::Disk;
use penstock_common::log::segment;
use penstock_common::log::sim::{Faults, SimDisk};
use penstock_common::status::GatewayStatus;
use penstock_common::telemetry::traces::Traces;
use penstock_common::topic::Topic;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::metrics::ForwardMetrics;
use super::report::StatusConfig;
use super::view::SharedView;
use super::*;
use crate::spool::entry::{DeadLetterEntry, Entry, EventEntry};
use crate::spool::{OpenSpool, SpoolConfig, SpoolHandle, open_on};

mod gave_way;
mod random;
mod refusals;
mod statuses;

const PARTITIONS: u32 = 6;

/// A bus in memory.
#[derive(Clone, Default)]
struct Bus {
    /// The events that were appended, of all partitions.
    delivered: Arc<Mutex<Vec<String>>>,
    /// The next batch is refused.
    refuse: Arc<AtomicBool>,
    statuses: Arc<Mutex<Vec<GatewayStatus>>>,
    /// Statuses are taken and never answered.
    lose_statuses: Arc<AtomicBool>,
    state: Arc<Mutex<BusState>>,
}

#[derive(Default)]
struct BusState {
    /// What was appended, by topic and partition.
    logs: BTreeMap<(&'static str, u32), Vec<OutboundRecord>>,
    /// Partitions without a leader: they take nothing and answer nothing.
    leaderless: BTreeSet<(&'static str, u32)>,
    /// Topics that may not be written to.
    forbidden: BTreeSet<&'static str>,
    /// Topics that are not there.
    absent: BTreeSet<&'static str>,
    /// The largest batch of each topic.
    bytes_max: BTreeMap<&'static str, usize>,
    /// Every producer fails for good, once.
    fatal: bool,
    connections: u32,
}

struct BusProducer {
    bus: Bus,
    role: Role,
    queues: BTreeMap<(&'static str, u32), VecDeque<(Token, OutboundRecord)>>,
    waiting: Vec<Delivery>,
    broken: Option<String>,
}

impl Connect for Bus {
    type Producer = BusProducer;

    fn connect(&self, role: Role) -> anyhow::Result<BusProducer> {
        self.state.lock().unwrap().connections += 1;
        let (queues, waiting) = (BTreeMap::new(), Vec::new());
        Ok(BusProducer { bus: self.clone(), role, queues, waiting, broken: None })
    }
}

impl Bus {
    fn log(&self, topic: Topic) -> Vec<OutboundRecord> {
        let state = self.state.lock().unwrap();
        let logs = state.logs.iter().filter(|((name, _), _)| *name == topic.base_name());
        logs.flat_map(|(_, log)| log.clone()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut BusState)) {
        change(&mut self.state.lock().unwrap());
    }

    /// Appends a batch whole or not at all.
    fn append(
        &self,
        (topic, partition): (&'static str, u32),
        batch: &[OutboundRecord],
    ) -> Result<(), Refusal> {
        let refuse = |class, reason: &str| Err(Refusal { class, reason: reason.into() });
        let mut state = self.state.lock().unwrap();
        if state.forbidden.contains(topic) {
            return refuse(Class::Topic, "not allowed");
        }
        let bytes: usize = batch.iter().map(|record| record.payload.len()).sum();
        if state.bytes_max.get(topic).is_some_and(|max| bytes > *max) {
            return refuse(Class::TooLarge, "too large");
        }
        if self.refuse.swap(false, Ordering::SeqCst) {
            return refuse(Class::Unclear, "refused by the test");
        }
        let log = state.logs.entry((topic, partition)).or_default();
        log.extend_from_slice(batch);
        if topic == Topic::RawEvents.base_name() {
            let texts = batch.iter().map(|record| String::from_utf8_lossy(&record.payload).into());
            self.delivered.lock().unwrap().extend(texts);
        }
        Ok(())
    }
}

impl BusProducer {
    /// Brings to the bus what can be brought now.
    fn carry(&mut self) {
        let batch_bytes_max = match self.role {
            Role::Stream { batch_bytes_max } => batch_bytes_max,
            Role::Single => 0,
        };
        for (place, queue) in &mut self.queues {
            let is_leaderless = self.bus.state.lock().unwrap().leaderless.contains(place);
            while !is_leaderless && self.broken.is_none() && !queue.is_empty() {
                let (mut tokens, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
                while let Some((token, record)) = queue.front()
                    && (batch.is_empty() || bytes + record.payload.len() <= batch_bytes_max)
                {
                    bytes += record.payload.len();
                    tokens.push(*token);
                    batch.push(record.clone());
                    queue.pop_front();
                }
                let result = self.bus.append(*place, &batch);
                if result.is_err() && self.role != Role::Single {
                    self.broken = Some("a gap".into());
                }
                let answer = |token| Delivery { token, result: result.clone() };
                self.waiting.extend(tokens.into_iter().map(answer));
            }
        }
    }
}

impl Producer for BusProducer {
    fn send(
        &mut self,
        token: Token,
        record: OutboundRecord,
        partition: Option<u32>,
    ) -> Result<(), SendError> {
        if let Some(reason) = &self.broken {
            return Err(SendError::Broken(reason.clone()));
        }
        if record.topic == Topic::GatewayStatus {
            assert_eq!((token, record.key.as_deref()), (STATUS_TOKEN, Some("g")));
            if !self.bus.lose_statuses.load(Ordering::SeqCst) {
                let status = GatewayStatus::decode(&record.payload).unwrap();
                self.bus.statuses.lock().unwrap().push(status);
                self.waiting.push(Delivery { token, result: Ok(()) });
            }
            return Ok(());
        }
        let of_key = |key: &String| {
            super::partition::of_hash(super::partition::hash(key.as_bytes()), PARTITIONS)
        };
        let partition = record.key.as_ref().map(of_key).or(partition).unwrap();
        let place = (record.topic.base_name(), partition);
        self.queues.entry(place).or_default().push_back((token, record));
        Ok(())
    }

    fn poll(&mut self, wait: Duration, into: &mut Vec<Delivery>) {
        if std::mem::take(&mut self.bus.state.lock().unwrap().fatal) {
            self.broken = Some("fatal".into());
        }
        self.carry();
        if self.waiting.is_empty() {
            std::thread::sleep(wait.min(Duration::from_millis(1)));
        }
        into.append(&mut self.waiting);
    }

    fn partitions(&mut self, topic: Topic, _: Duration) -> Result<u32, Refusal> {
        let state = self.bus.state.lock().unwrap();
        if state.absent.contains(topic.base_name()) {
            return Err(Refusal { class: Class::Topic, reason: "no such topic".into() });
        }
        Ok(PARTITIONS)
    }

    fn broken(&mut self) -> Option<String> {
        self.broken.clone()
    }

    fn take_complaint(&mut self) -> Option<String> {
        None
    }
}

struct Running {
    bus: Bus,
    spool: SpoolHandle,
    hold: watch::Sender<bool>,
    view: SharedView,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

fn start(disk: &SimDisk, dir: &Path) -> Running {
    start_on(disk, dir, Bus::default())
}

fn start_on(disk: &SimDisk, dir: &Path, bus: Bus) -> Running {
    start_with(disk, dir, bus, SpoolConfig::default().bytes_max)
}

fn start_with(disk: &SimDisk, dir: &Path, bus: Bus, bytes_max: u64) -> Running {
    let config = SpoolConfig {
        dir: dir.to_owned(),
        bytes_max,
        segment_bytes: 16 << 10,
        compress: false,
        ..SpoolConfig::default()
    };
    let OpenSpool { handle: spool, reader, dead_reader, .. } =
        open_on(Arc::new(disk.clone()), &config).unwrap();
    let stop = CancellationToken::new();
    let (hold, held) = watch::channel(false);
    let view = SharedView::default();
    let driver = Driver {
        connect: bus.clone(),
        config: KafkaConfig::default(),
        status: StatusConfig { interval_ms: 10 },
        clock: Arc::new(SystemClock),
        gateway: "g".into(),
        reader,
        dead_reader,
        spool: spool.clone(),
        hold: held,
        metrics: ForwardMetrics::new(&prometheus::Registry::new()).unwrap(),
        complete: Box::new(|_| {}),
        view: view.clone(),
        traces: Traces::default(),
    };
    let thread = driver.spawn(stop.clone()).unwrap();
    Running { bus, spool, hold, view, stop, thread }
}

impl Running {
    async fn submit(&self, numbers: std::ops::Range<usize>) {
        let entry = |n: usize| event("d", format!("{n:0200}").into_bytes());
        self.spool.submit(numbers.map(entry).collect()).await.unwrap();
    }

    fn delivered(&self) -> Vec<usize> {
        self.bus.delivered.lock().unwrap().iter().map(|text| text.parse().unwrap()).collect()
    }

    async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}; delivered: {:?}", self.delivered());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
        self.spool.close().await;
    }
}

fn event(device_id: &str, payload: Vec<u8>) -> Entry {
    Entry::Event(EventEntry {
        device_id: device_id.into(),
        schema_version: 1,
        fleet: "f".into(),
        received_at: UnixMicros(0),
        flags: Flags::NONE,
        traceparent: None,
        payload: Bytes::from(payload),
    })
}

fn letter(device_id: Option<&str>, payload: Vec<u8>) -> Entry {
    Entry::DeadLetter(DeadLetterEntry {
        device_id: device_id.map(Into::into),
        stage: "gateway.admit".into(),
        reason: "malformed_json".into(),
        detail: r#"{"index":0}"#.into(),
        schema_version: None,
        fleet: "f".into(),
        first_seen: UnixMicros(0),
        traceparent: None,
        payload: Bytes::from(payload),
    })
}

fn range(numbers: std::ops::Range<usize>) -> Vec<usize> {
    numbers.collect()
}

/// I8: what is refused is sent again before anything that follows it; nothing is skipped.
#[tokio::test]
async fn a_refused_batch_is_sent_again_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&SimDisk::new(1), dir.path());
    running.bus.refuse.store(true, Ordering::SeqCst);
    running.submit(0..20).await;
    running.submit(20..40).await;
    running.until("all retired", || running.spool.stat().pending_entries == 0).await;
    assert_eq!(running.delivered(), range(0..40));
    running.end().await;
}

/// I7: what can't be read holds nothing up for ever, is counted, and its file is kept.
#[tokio::test]
async fn an_unreadable_place_is_passed_over_and_what_follows_is_forwarded() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(1);
    let running = start(&disk, dir.path());
    running.submit(0..10).await;
    running.until("the first are forwarded", || running.spool.stat().pending_entries == 0).await;
    disk.set_faults(Faults { read: 1.0, ..Faults::default() });
    running.submit(10..20).await;
    running.until("given up", || running.spool.stat().damaged_entries > 0).await;
    disk.set_faults(Faults::default());
    // Beyond a segment, so that the damaged one is left behind.
    for n in 0..10 {
        running.submit(20 + 10 * n..30 + 10 * n).await;
    }
    running.until("the rest is forwarded", || running.delivered().ends_with(&[119])).await;
    let (stat, delivered) = (running.spool.stat(), running.delivered());
    assert_eq!((stat.damaged_entries, delivered.len()), (10, 110));
    assert_eq!(delivered, [range(0..10), range(20..120)].concat());
    let aside = segment::damaged_name(stat.damaged[0].segment);
    running.until("the damaged file is kept", || disk.list().unwrap().contains(&aside)).await;
    running.end().await;
}

/// A disk that recovers in time costs nothing.
#[tokio::test]
async fn a_passing_read_error_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(1);
    let running = start(&disk, dir.path());
    disk.set_faults(Faults { read: 1.0, ..Faults::default() });
    running.submit(0..10).await;
    disk.set_faults(Faults::default());
    running.until("all forwarded", || running.spool.stat().pending_entries == 0).await;
    assert_eq!((running.delivered(), running.spool.stat().damaged_entries), (range(0..10), 0));
    running.end().await;
}
