//! The driver over a real spool on a simulated disk, with a bus that acknowledges everything or
//! refuses when told to. Kafka itself: `hw-tests`.

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
use penstock_common::topic::Topic;
use tokio_util::sync::CancellationToken;

use super::both::Both;
use super::driver::Driver;
use super::metrics::ForwardMetrics;
use super::report::StatusConfig;
use super::*;
use crate::spool::entry::{Entry, EventEntry};
use crate::spool::{OpenSpool, SpoolConfig, SpoolHandle, open_on};

mod gave_way;
mod statuses;

/// A bus in memory.
#[derive(Clone, Default)]
struct Bus {
    delivered: Arc<Mutex<Vec<String>>>,
    /// Reason and payload.
    letters: Arc<Mutex<Vec<(String, String)>>>,
    /// The next record is refused.
    refuse: Arc<AtomicBool>,
    /// Every record is.
    refuse_all: Arc<AtomicBool>,
    statuses: Arc<Mutex<Vec<GatewayStatus>>>,
    /// Statuses are taken and never answered.
    lose_statuses: Arc<AtomicBool>,
}

struct BusProducer {
    bus: Bus,
    waiting: Vec<Delivery>,
}

impl Connect for Bus {
    type Producer = BusProducer;

    fn connect(&self) -> anyhow::Result<BusProducer> {
        Ok(BusProducer { bus: self.clone(), waiting: Vec::new() })
    }
}

impl Producer for BusProducer {
    fn send(&mut self, token: Token, record: OutboundRecord) -> Result<(), SendError> {
        if record.topic == Topic::GatewayStatus {
            assert_eq!((token, record.key.as_deref()), (STATUS_TOKEN, Some("g")));
            if !self.bus.lose_statuses.load(Ordering::SeqCst) {
                let status = GatewayStatus::decode(&record.payload).unwrap();
                self.bus.statuses.lock().unwrap().push(status);
                self.waiting.push(Delivery { token, result: Ok(()) });
            }
            return Ok(());
        }
        let refuses = self.bus.refuse.swap(false, Ordering::SeqCst)
            || self.bus.refuse_all.load(Ordering::SeqCst);
        let result = if refuses {
            Err("refused by the test".to_owned())
        } else {
            let payload = String::from_utf8(record.payload.to_vec()).unwrap();
            if record.topic == Topic::DeadLetter {
                let reason = record.headers.iter().find(|(name, _)| *name == "reason").unwrap();
                self.bus.letters.lock().unwrap().push((reason.1.to_string(), payload));
            } else {
                self.bus.delivered.lock().unwrap().push(payload);
            }
            Ok(())
        };
        self.waiting.push(Delivery { token, result });
        Ok(())
    }

    fn poll(&mut self, wait: Duration, into: &mut Vec<Delivery>) {
        if self.waiting.is_empty() {
            std::thread::sleep(wait.min(Duration::from_millis(1)));
        }
        into.append(&mut self.waiting);
    }

    fn take_complaint(&mut self) -> Option<String> {
        None
    }
}

struct Running {
    bus: Bus,
    spool: SpoolHandle,
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
    let driver = Driver {
        connect: bus.clone(),
        config: KafkaConfig::default(),
        status: StatusConfig { interval_ms: 10 },
        clock: Arc::new(SystemClock),
        gateway: "g".into(),
        reader: Both::new(reader, dead_reader),
        spool: spool.clone(),
        metrics: ForwardMetrics::new(&prometheus::Registry::new()).unwrap(),
        complete: Box::new(|_| {}),
    };
    let thread = driver.spawn(stop.clone()).unwrap();
    Running { bus, spool, stop, thread }
}

impl Running {
    async fn submit(&self, numbers: std::ops::Range<usize>) {
        let entry = |n: usize| {
            Entry::Event(EventEntry {
                device_id: "d".into(),
                schema_version: 1,
                fleet: "f".into(),
                received_at: UnixMicros(0),
                flags: Flags::NONE,
                traceparent: None,
                payload: Bytes::from(format!("{n:0200}")),
            })
        };
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

fn range(numbers: std::ops::Range<usize>) -> Vec<usize> {
    numbers.collect()
}

/// I8: one refusal goes back to the first unacknowledged entry; nothing is skipped.
#[tokio::test]
async fn a_refused_record_is_sent_again_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&SimDisk::new(1), dir.path());
    running.bus.refuse.store(true, Ordering::SeqCst);
    running.submit(0..20).await;
    running.until("all retired", || running.spool.stat().pending_entries == 0).await;
    let mut firsts = running.delivered();
    let mut seen = std::collections::HashSet::new();
    firsts.retain(|n| seen.insert(*n));
    firsts.sort_unstable();
    assert_eq!(firsts, range(0..20));
    // After the refusal the whole run is there once more, in order.
    let delivered = running.delivered();
    assert!(delivered.ends_with(&range(0..20)), "{delivered:?}");
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
