//! The listener on a real socket, before the real spool or something that misbehaves.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_gateway::listen::tls::{self, Tls, TlsMetrics};
use edge_gateway::listen::{self, Access, Auth, Durable, Ingest, ListenConfig};
use edge_gateway::snapshot::{self, SnapshotConfig, SnapshotMetrics, Snapshots};
use edge_gateway::spool::entry::Entry;
use edge_gateway::spool::{self, SpoolConfig, SpoolError, SpoolHandle, SpoolReader};
use penstock_common::clock::ManualClock;
use penstock_common::event::UnixMicros;
use prometheus::Registry;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, PATIENCE};

/// 2026-01-15T08:31:00Z: shortly after the samples.
pub(crate) const NOW: UnixMicros = UnixMicros(1_768_465_860_000_000);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Registry,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) snapshots: Snapshots,
    pub(crate) tls: Option<Tls>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
}

impl Server {
    /// Without keys: everybody is of the fleet `plant-7`.
    pub(crate) async fn start<D: Durable>(config: ListenConfig, spool: D) -> Self {
        let config = ListenConfig { auth: Auth::Off, ..config };
        Self::with(config, SnapshotConfig::default(), spool).await
    }

    /// With a snapshot that is looked at every few milliseconds. Serves the fleets `plant-7` and
    /// `plant-8`.
    pub(crate) async fn with<D: Durable>(
        config: ListenConfig,
        snapshot: SnapshotConfig,
        spool: D,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Registry::new();
        let clock = Arc::new(ManualClock::new(NOW));
        let stop = CancellationToken::new();
        let snapshot = SnapshotConfig { poll_interval_ms: 10, ..snapshot };
        let metrics = SnapshotMetrics::new(&registry).unwrap();
        let (snapshots, watcher) = snapshot::open(snapshot, clock.clone(), metrics).unwrap();
        tokio::spawn(watcher.run(stop.clone()));
        let others = ["plant-8".to_owned()];
        let access = Access::new(config.auth, "plant-7", &others, snapshots.clone());
        let ingest = Ingest::new(access, spool, clock.clone(), &registry).unwrap();
        let tls = config.tls.cert_file.is_some().then(|| {
            let metrics = TlsMetrics::new(&registry).unwrap();
            let (tls, watcher) = tls::open(config.tls.clone(), clock.clone(), metrics).unwrap();
            tokio::spawn(watcher.run(stop.clone()));
            tls
        });
        let serving =
            tokio::spawn(listen::serve(listener, config, tls.clone(), ingest, stop.clone()));
        Self { address, registry, clock, snapshots, tls, stop, serving }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Stops and waits for the end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.expect("still serving").unwrap();
    }

    /// A metric's value, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        metrics.iter().map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }
}

/// A real spool in a directory of its own.
pub(crate) struct RealSpool {
    pub(crate) handle: SpoolHandle,
    reader: SpoolReader,
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
            // Full is full.
            dead_bytes_max: Some(0),
            ..SpoolConfig::default()
        };
        let open = spool::open(&config).unwrap();
        Self { handle: open.handle, reader: open.reader, _dir: dir }
    }

    /// Everything durable since the last call.
    pub(crate) fn entries(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        while let Some(spooled) = self.reader.next(Duration::ZERO).unwrap() {
            entries.push(spooled.entry);
        }
        entries
    }
}

/// Stands for a spool whose disk a test holds in its hand: `submit` waits for a permit.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) permits: Arc<Semaphore>,
    /// One permit for each submission that has arrived.
    pub(crate) arrived: Arc<Semaphore>,
    pub(crate) entries: Arc<Mutex<Vec<Entry>>>,
    pub(crate) error: Option<SpoolError>,
}

impl Gate {
    pub(crate) fn shut() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        Self { permits: none(), arrived: none(), entries: Arc::default(), error: None }
    }

    pub(crate) fn failing(error: SpoolError) -> Self {
        let gate = Self { error: Some(error), ..Self::shut() };
        gate.permits.add_permits(1_000);
        gate
    }

    /// Waits for that many submissions.
    pub(crate) async fn has_arrived(&self, count: u32) {
        let arrived = self.arrived.acquire_many(count);
        tokio::time::timeout(PATIENCE, arrived).await.expect("no submission").unwrap().forget();
    }
}

impl Durable for Gate {
    async fn submit(&self, entries: Vec<Entry>) -> Result<(), SpoolError> {
        self.arrived.add_permits(1);
        self.permits.acquire().await.unwrap().forget();
        match &self.error {
            Some(error) => Err(error.clone()),
            None => {
                self.entries.lock().unwrap().extend(entries);
                Ok(())
            }
        }
    }
}
