//! Builds the gateway, binds every port before real work, wires the stages, and drains.
//!
//! Order of the drain: stop taking requests and messages, and answer the open ones; let the
//! forwarder hand over what it can within its limit; close the spool. What the bus did not take
//! stays on disk.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::shutdown;
use penstock_common::snapshot::CorePressure;
use penstock_common::telemetry::traces::Traces;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admit::budget::Budget;
use crate::clock::GatewayClock;
use crate::config::{GatewayConfig, Identity};
use crate::forward::driver::Driver;
use crate::forward::kafka::KafkaConnect;
use crate::forward::metrics::ForwardMetrics;
use crate::forward::view::SharedView;
use crate::listen::mqtt::MqttListener;
use crate::listen::tls::{self, Tls, TlsMetrics};
use crate::listen::{self, Access, Auth, Ingest};
use crate::open_files;
use crate::pressure::gate::Gate;
use crate::pressure::stage::{Outputs, PressureMetrics, Sample, Stage, Watched};
use crate::snapshot::{self, SnapshotMetrics, Snapshots};
use crate::spool::{self, OpenSpool, SpoolHandle};
use crate::status::board::{Board, Parts};
use crate::status::link::LinkWatch;
use crate::status::manager::ServiceManager;
use crate::status::ready::Readiness;
use crate::status::{self, Status};

/// Also how often the service manager hears that the gateway is alive.
const SUPERVISE_EVERY: Duration = Duration::from_secs(1);

/// How long the collector may take for the last spans.
const LAST_SPANS_WAIT: Duration = Duration::from_secs(2);

/// Where a running gateway listens.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Addresses {
    /// The devices' side.
    pub http: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

/// Runs until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// When it can't start, or a stage that must not end has ended.
pub async fn run(config: GatewayConfig) -> anyhow::Result<()> {
    let manager = ServiceManager::from_env();
    let stop = shutdown::on_signals().context("install the signal handlers")?;
    open_files::raise(config.http.connections_max);
    start(config, stop).await?.finished(&manager).await
}

/// A gateway that takes events.
pub struct Running {
    /// Where it listens.
    pub addresses: Addresses,
    stop: CancellationToken,
    listener: tokio::task::JoinHandle<()>,
    watchers: JoinSet<()>,
    mqtt: Option<tokio::task::JoinHandle<()>>,
    forwarder: JoinHandle<()>,
    stop_forwarder: CancellationToken,
    spool: SpoolHandle,
    clock: tokio::task::JoinHandle<()>,
    traces: Traces,
}

/// Starts a gateway; cancelling `stop` drains it.
///
/// # Errors
/// When a port can't be bound, or the spool or the schemas can't be opened.
pub async fn start(config: GatewayConfig, stop: CancellationToken) -> anyhow::Result<Running> {
    let http = bind(config.http.listen, "http.listen").await?;
    let admin = bind(config.admin.listen, "admin.listen").await?;
    let addresses = Addresses { http: http.local_addr()?, admin: admin.local_addr()? };

    let registry = Registry::new();
    let Files { snapshots, tls, watchers } = files(&config, &registry, &stop)?;
    let readiness = Readiness::default();
    let spool_config = config.spool.clone();
    let OpenSpool { handle: spool, reader, dead_reader, .. } =
        tokio::task::spawn_blocking(move || spool::open(&spool_config)).await??;
    status::spool::register(&registry, spool.clone())?;
    let clock = Arc::new(GatewayClock::open(&config.spool.dir, &registry)?);

    let Identity { name, fleet, other_fleets } = &config.gateway;
    let traces = Traces::start(&config.traces, "edge-gateway", name, &registry)?;
    let access = Access::new(config.http.auth, fleet, other_fleets, snapshots.clone());
    let budget = Budget::new(config.dead_letters.clone(), Instant::now());
    let stop_forwarder = CancellationToken::new();
    let view = SharedView::default();
    let watched = Watching { spool: spool.clone(), view: view.clone() };
    let (gate, pressure) =
        relieve(&config, &registry, watched, snapshots.core_pressure(), stop_forwarder.clone())?;
    let ingest = Ingest::new(access, spool.clone(), clock.clone(), &registry)?
        .budgeted(budget.clone())
        .gated(gate)
        .traced(traces.clone());
    let mqtt = mqtt(&config, &ingest, &registry)?;

    let forwarded = ForwardMetrics::new(&registry)?;
    let link = LinkWatch::new(Duration::from_millis(config.status.interval_ms), {
        let ForwardMetrics { acknowledged, statuses, .. } = forwarded.clone();
        move || acknowledged.get() + statuses.get()
    });
    tokio::spawn(link.clone().run(stop_forwarder.clone()));
    let board = board(&config, spool.clone(), link, &snapshots, &readiness, clock.clone());
    let shown_clock: Arc<dyn Clock> = clock.clone();
    status::pressure::show(&board, pressure.view, view.clone());
    status::snapshot::tell(&board, &snapshots, &config.fleets_with_keys(), &shown_clock);
    if let Some(tls) = &tls {
        status::certificate::tell(&board, tls, &shown_clock);
    }
    let mqtt = mqtt.map(|mqtt| listen_to_broker(mqtt, &readiness, &board, stop.clone()));
    let gateway: Arc<str> = config.gateway.name.as_str().into();
    let forwarder = Driver {
        connect: KafkaConnect::new(config.kafka.clone(), &gateway),
        config: config.kafka,
        status: config.status,
        clock: clock.clone(),
        gateway,
        reader,
        dead_reader,
        spool: spool.clone(),
        hold: pressure.hold,
        metrics: forwarded,
        view,
        traces: traces.clone(),
        complete: Box::new(move |status| budget.complete(status)),
    }
    .spawn(stop_forwarder.clone())
    .context("start the forwarder's thread")?;

    let clock = tokio::spawn({
        let stop = stop_forwarder.clone();
        async move { clock.keep(stop).await }
    });
    let status = Status { readiness: readiness.clone(), registry, board };
    tokio::spawn(status::serve(admin, status, stop_forwarder.clone()));

    let latch = readiness.latch();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            drop(latch);
        }
    });
    let listener = tokio::spawn(listen::serve(http, config.http, tls, ingest, stop.clone()));
    if let Some(path) = &config.ready_file {
        announce(path, &addresses)?;
    }
    tracing::info!(http = %addresses.http, admin = %addresses.admin, "taking events");
    Ok(Running {
        addresses,
        stop,
        listener,
        watchers,
        mqtt,
        forwarder,
        stop_forwarder,
        spool,
        clock,
        traces,
    })
}

/// Starts the stage that says what is taken, held and refused.
fn relieve(
    config: &GatewayConfig,
    registry: &Registry,
    watched: Watching,
    core: watch::Receiver<CorePressure>,
    stop: CancellationToken,
) -> prometheus::Result<(Gate, Outputs)> {
    let metrics = PressureMetrics::new(registry)?;
    let gate = Gate::new(metrics.refused.clone());
    let usage = watched.spool.usage();
    let stage = Stage {
        config: config.pressure,
        soft_bytes: usage.soft_bytes,
        hard_bytes: usage.hard_bytes,
        dir: config.spool.dir.clone(),
        watched,
        core,
        gate: gate.clone(),
        metrics,
    };
    Ok((gate, stage.spawn(stop).0))
}

/// What the status page is filled from.
fn board(
    config: &GatewayConfig,
    spool: SpoolHandle,
    link: LinkWatch,
    snapshots: &Snapshots,
    readiness: &Readiness,
    clock: Arc<GatewayClock>,
) -> Board {
    Board::new(Parts {
        name: config.gateway.name.clone(),
        fleet: config.gateway.fleet.clone(),
        bootstrap: config.kafka.bootstrap.clone(),
        spool_dir: config.spool.dir.clone(),
        spool,
        link,
        schemas: schema_versions(snapshots),
        readiness: readiness.clone(),
        clock,
    })
}

/// What takes events from the facility's MQTT broker, where there is one.
fn mqtt(
    config: &GatewayConfig,
    ingest: &Ingest,
    registry: &Registry,
) -> anyhow::Result<Option<MqttListener<SpoolHandle>>> {
    let Identity { name, fleet, .. } = &config.gateway;
    let listener = |mqtt| MqttListener::new(mqtt, name, fleet, ingest, registry);
    config.mqtt.clone().map(listener).transpose()
}

/// Starts it, and has it told of.
fn listen_to_broker(
    mqtt: MqttListener<SpoolHandle>,
    readiness: &Readiness,
    board: &Board,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let state = mqtt.state();
    status::mqtt::show(board, state.clone());
    readiness.note(move || state.line());
    tokio::spawn(mqtt.run(stop))
}

/// What pressure looks at.
struct Watching {
    spool: SpoolHandle,
    view: SharedView,
}

impl Watched for Watching {
    fn sample(&self) -> Sample {
        let stat = self.spool.stat();
        Sample {
            spool_bytes: stat.usage.used_bytes,
            is_dead_full: stat.is_dead_full,
            pending_entries: stat.pending_entries,
            is_failing: stat.is_failing,
            acknowledged_total: self.view.get().acknowledged_total,
        }
    }
}

impl Running {
    /// Waits for the stop and the whole drain, and tells the service manager meanwhile.
    ///
    /// # Errors
    /// When a stage ended that must not: the process should exit and be started again.
    pub async fn finished(mut self, manager: &ServiceManager) -> anyhow::Result<()> {
        manager.ready();
        let mut watch = tokio::time::interval(SUPERVISE_EVERY);
        let failed = loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break None,
                Some(_) = self.watchers.join_next() => {
                    break Some(anyhow!("a task that watches files has ended"));
                }
                _ = watch.tick() => {
                    manager.alive();
                    if self.forwarder.is_finished() {
                        break Some(anyhow!("the forwarder's thread has ended"));
                    }
                    if self.mqtt.as_ref().is_some_and(|mqtt| mqtt.is_finished()) {
                        break Some(anyhow!("the MQTT listener has ended"));
                    }
                }
            }
        };
        manager.draining();
        self.stop.cancel();
        self.listener.await.context("the listener panicked")?;
        if let Some(mqtt) = self.mqtt {
            mqtt.await.context("the MQTT listener panicked")?;
        }
        self.stop_forwarder.cancel();
        let (forwarder, spool) = (self.forwarder, self.spool);
        let joined = tokio::task::spawn_blocking(move || forwarder.join()).await?;
        spool.close().await;
        let traces = self.traces;
        tokio::task::spawn_blocking(move || traces.close(LAST_SPANS_WAIT)).await?;
        self.clock.await.context("the clock's keeper panicked")?;
        match (failed, joined) {
            (None, Ok(())) => Ok(()),
            (Some(error), _) => Err(error),
            (None, Err(_)) => Err(anyhow!("the forwarder's thread panicked")),
        }
    }
}

fn schema_versions(snapshots: &Snapshots) -> Box<dyn Fn() -> Vec<u32> + Send + Sync> {
    let snapshots = snapshots.clone();
    Box::new(move || snapshots.current().schema_versions())
}

/// What is read from files, and replaced while the gateway runs.
struct Files {
    snapshots: Snapshots,
    tls: Option<Tls>,
    watchers: JoinSet<()>,
}

/// Reads them and begins to watch them; tells what is left open.
fn files(
    config: &GatewayConfig,
    registry: &Registry,
    stop: &CancellationToken,
) -> anyhow::Result<Files> {
    let mut watchers = JoinSet::new();
    let metrics = SnapshotMetrics::new(registry)?;
    let (snapshots, watcher) =
        snapshot::open(config.snapshot.clone(), Arc::new(SystemClock), metrics)?;
    watchers.spawn(watcher.run(stop.clone()));
    if config.http.auth == Auth::Off {
        tracing::warn!("http.auth is off: whoever reaches the port may send events");
    }
    let metrics = TlsMetrics::new(registry)?;
    let tls = if config.http.tls.cert_file.is_some() {
        let (tls, watcher) = tls::open(config.http.tls.clone(), Arc::new(SystemClock), metrics)?;
        watchers.spawn(watcher.run(stop.clone()));
        Some(tls)
    } else {
        tracing::warn!("http.tls.cert_file is not set: keys and events travel in the clear");
        None
    };
    Ok(Files { snapshots, tls, watchers })
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} ({key}); is the port taken?"))
}

/// Writes the file whole or not at all, so that a reader never sees half of it.
fn announce(path: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let text = serde_json::to_string(addresses)?;
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("write the ready file {}", path.display()))
}
