//! The MQTT listener on a spool, real or held in a test's hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_gateway::listen::mqtt::{MqttConfig, MqttListener, MqttState};
use edge_gateway::listen::{Access, Auth, Durable, Ingest};
use edge_gateway::snapshot::{self, SnapshotConfig, SnapshotMetrics};
use edge_gateway::spool::entry::{DeadLetterEntry, Entry, EventEntry};
use edge_gateway::spool::{self, SpoolConfig, SpoolError, SpoolHandle, SpoolReader};
use penstock_common::clock::ManualClock;
use penstock_common::event::UnixMicros;
use prometheus::Registry;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, eventually};

/// 2026-01-15T08:31:00Z: shortly after the events' timestamps.
pub(crate) const NOW: UnixMicros = UnixMicros(1_768_465_860_000_000);

pub(crate) struct Gateway {
    pub(crate) state: MqttState,
    pub(crate) registry: Registry,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// A configuration for a broker that listens on that port.
pub(crate) fn config(port: u16) -> MqttConfig {
    MqttConfig {
        broker: format!("mqtt://127.0.0.1:{port}"),
        // As short as the protocol's client allows.
        keep_alive_s: 5,
        reconnect_first_ms: 20,
        reconnect_max_ms: 100,
        ..MqttConfig::default()
    }
}

impl Gateway {
    pub(crate) fn start<D: Durable + Clone>(config: MqttConfig, spool: D) -> Self {
        let mut problems = Vec::new();
        config.validate(&mut problems);
        assert_eq!(problems, Vec::<String>::new());
        let registry = Registry::new();
        let clock = Arc::new(ManualClock::new(NOW));
        let metrics = SnapshotMetrics::new(&registry).unwrap();
        // The schemas that are built in, and nobody's key.
        let (snapshots, _) =
            snapshot::open(SnapshotConfig::default(), clock.clone(), metrics).unwrap();
        let access = Access::new(Auth::Required, "plant-7", &[], snapshots);
        let ingest = Ingest::new(access, spool, clock, &registry).unwrap();
        let listener = MqttListener::new(config, "gw-1", "plant-7", &ingest, &registry).unwrap();
        let (state, stop) = (listener.state(), CancellationToken::new());
        let running = tokio::spawn(listener.run(stop.clone()));
        Self { state, registry, stop, running }
    }

    /// The same, and waits for the subscription.
    pub(crate) async fn connect<D: Durable + Clone>(config: MqttConfig, spool: D) -> Self {
        let gateway = Self::start(config, spool);
        gateway.is_connected().await;
        gateway
    }

    pub(crate) async fn is_connected(&self) {
        eventually("connected", || self.state.standing().is_connected).await;
    }

    /// Waits until there is no connection, for a reason with these words in it.
    pub(crate) async fn has_failed(&self, words: &str) {
        eventually(words, || {
            self.state.standing().last_failure.is_some_and(|why| why.contains(words))
        })
        .await;
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.expect("still running").unwrap();
    }

    /// Ends it as a kill would, its tasks at once.
    pub(crate) async fn abandon(self) {
        self.running.abort();
        let _ = self.running.await;
    }

    /// A metric's value, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.unwrap_or_else(|| panic!("no {name}")).get_metric();
        metrics.iter().map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }

    pub(crate) async fn metric_is(&self, name: &str, value: f64) {
        let what = format!("{name} = {value}");
        eventually(&what, || (self.metric(name) - value).abs() < 0.5).await;
    }
}

/// A real spool in a directory of its own.
pub(crate) struct RealSpool {
    pub(crate) handle: SpoolHandle,
    reader: SpoolReader,
    seen: Vec<Entry>,
    _dir: TempDir,
}

impl RealSpool {
    pub(crate) fn open() -> Self {
        Self::with_bytes_max(64 << 20)
    }

    pub(crate) fn with_bytes_max(bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = SpoolConfig {
            dir: dir.path().to_owned(),
            bytes_max,
            segment_bytes: bytes_max / 8,
            compress: false,
            ..SpoolConfig::default()
        };
        let open = spool::open(&config).unwrap();
        Self { handle: open.handle, reader: open.reader, seen: Vec::new(), _dir: dir }
    }

    /// Gives everything back that is durable, as the bus would.
    pub(crate) fn drain(&mut self) {
        let mut last = None;
        while let Some(spooled) = self.reader.next(Duration::ZERO).unwrap() {
            last = Some(spooled.position);
            self.seen.push(spooled.entry);
        }
        if let Some(position) = last {
            self.handle.retire(position);
        }
    }

    /// Everything durable so far.
    pub(crate) fn entries(&mut self) -> &[Entry] {
        self.drain();
        &self.seen
    }

    /// Waits until so many events are durable.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<EventEntry> {
        let mut events = Vec::new();
        let what = format!("{count} events");
        eventually(&what, || {
            events = events_of(self.entries());
            events.len() >= count
        })
        .await;
        events
    }

    /// Waits until so many dead letters are durable.
    pub(crate) async fn letters(&mut self, count: usize) -> Vec<DeadLetterEntry> {
        let what = format!("{count} dead letters");
        eventually(&what, || letters_of(self.entries()).len() >= count).await;
        letters_of(self.entries())
    }
}

pub(crate) fn events_of(entries: &[Entry]) -> Vec<EventEntry> {
    let event = |entry: &Entry| match entry {
        Entry::Event(event) => Some(event.clone()),
        Entry::DeadLetter(_) => None,
    };
    entries.iter().filter_map(event).collect()
}

pub(crate) fn letters_of(entries: &[Entry]) -> Vec<DeadLetterEntry> {
    let letter = |entry: &Entry| match entry {
        Entry::Event(_) => None,
        Entry::DeadLetter(letter) => Some(letter.clone()),
    };
    entries.iter().filter_map(letter).collect()
}

/// Stands for a spool whose disk a test holds in its hand: a submission waits for its permit, and
/// fails if a failure was laid ready for it.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) permits: Arc<Semaphore>,
    /// One permit for each submission that has arrived.
    arrived: Arc<Semaphore>,
    pub(crate) entries: Arc<Mutex<Vec<Entry>>>,
    pub(crate) failures: Arc<Mutex<Vec<SpoolError>>>,
}

impl Gate {
    pub(crate) fn shut() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        let (entries, failures) = (Arc::default(), Arc::default());
        Self { permits: none(), arrived: none(), entries, failures }
    }

    /// One that lets everything through.
    pub(crate) fn open() -> Self {
        let gate = Self::shut();
        gate.permits.add_permits(1 << 20);
        gate
    }

    /// Waits for one more submission.
    pub(crate) async fn has_arrived(&self) {
        let arrived = self.arrived.acquire();
        tokio::time::timeout(PATIENCE, arrived).await.expect("no submission").unwrap().forget();
    }

    pub(crate) fn events(&self) -> Vec<EventEntry> {
        events_of(&self.entries.lock().unwrap())
    }
}

impl Durable for Gate {
    async fn submit(&self, entries: Vec<Entry>) -> Result<(), SpoolError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.arrived.add_permits(1);
        self.permits.acquire().await.unwrap().forget();
        if let Some(error) = self.failures.lock().unwrap().pop() {
            return Err(error);
        }
        self.entries.lock().unwrap().extend(entries);
        Ok(())
    }
}
