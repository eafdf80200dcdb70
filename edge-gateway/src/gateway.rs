//! Builds the gateway, binds every port before real work, wires the stages, and drains.
//!
//! Order of the drain: stop taking requests and messages, and answer the open ones; let the
//! forwarder hand over what it can within its limit; close the spool. What the bus did not take
//! stays on disk.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use penstock_common::clock::SystemClock;
use penstock_common::schema::SchemaSet;
use penstock_common::shutdown;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admit::Admitter;
use crate::config::{GatewayConfig, Identity};
use crate::forward::driver::Driver;
use crate::forward::kafka::KafkaConnect;
use crate::forward::metrics::ForwardMetrics;
use crate::listen::mqtt::MqttListener;
use crate::listen::{self, Ingest};
use crate::spool::{self, OpenSpool, SpoolHandle};
use crate::status::ready::Readiness;
use crate::status::{self, Status};

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
    let stop = shutdown::on_signals().context("install the signal handlers")?;
    start(config, stop).await?.finished().await
}

/// A gateway that takes events.
pub struct Running {
    /// Where it listens.
    pub addresses: Addresses,
    stop: CancellationToken,
    listener: tokio::task::JoinHandle<()>,
    mqtt: Option<tokio::task::JoinHandle<()>>,
    forwarder: JoinHandle<()>,
    stop_forwarder: CancellationToken,
    spool: SpoolHandle,
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
    let readiness = Readiness::default();
    let spool_config = config.spool.clone();
    let OpenSpool { handle: spool, reader, report: _ } =
        tokio::task::spawn_blocking(move || spool::open(&spool_config)).await??;
    status::spool::register(&registry, spool.clone())?;

    let admitter = Admitter::new(SchemaSet::baked()?, config.gateway.fleet.as_str().into());
    let ingest = Ingest::new(admitter, spool.clone(), Arc::new(SystemClock), &registry)?;

    let mqtt = match config.mqtt {
        None => None,
        Some(mqtt) => {
            let Identity { name, fleet } = &config.gateway;
            let mqtt = MqttListener::new(mqtt, name, fleet, &ingest, &registry)?;
            let state = mqtt.state();
            readiness.note(move || state.line());
            Some(tokio::spawn(mqtt.run(stop.clone())))
        }
    };

    let stop_forwarder = CancellationToken::new();
    let gateway: Arc<str> = config.gateway.name.as_str().into();
    let forwarder = Driver {
        connect: KafkaConnect::new(config.kafka.clone(), &gateway),
        config: config.kafka,
        status: config.status,
        clock: Arc::new(SystemClock),
        gateway,
        reader,
        spool: spool.clone(),
        metrics: ForwardMetrics::new(&registry)?,
    }
    .spawn(stop_forwarder.clone())
    .context("start the forwarder's thread")?;

    let status = Status { readiness: readiness.clone(), registry };
    tokio::spawn(status::serve(admin, status, stop_forwarder.clone()));

    let latch = readiness.latch();
    let listener = tokio::spawn({
        let (stop, limits) = (stop.clone(), config.http);
        async move {
            let not_ready = stop.clone();
            tokio::spawn(async move {
                not_ready.cancelled().await;
                drop(latch);
            });
            listen::serve(http, limits, ingest, stop).await;
        }
    });
    if let Some(path) = &config.ready_file {
        announce(path, &addresses)?;
    }
    tracing::info!(http = %addresses.http, admin = %addresses.admin, "taking events");
    Ok(Running { addresses, stop, listener, mqtt, forwarder, stop_forwarder, spool })
}

impl Running {
    /// Waits for the stop and the whole drain.
    ///
    /// # Errors
    /// When a stage ended that must not: the process should exit and be started again.
    pub async fn finished(self) -> anyhow::Result<()> {
        let mut watch = tokio::time::interval(Duration::from_secs(1));
        let failed = loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break None,
                _ = watch.tick() => {
                    if self.forwarder.is_finished() {
                        break Some(anyhow!("the forwarder's thread has ended"));
                    }
                    if self.mqtt.as_ref().is_some_and(|mqtt| mqtt.is_finished()) {
                        break Some(anyhow!("the MQTT listener has ended"));
                    }
                }
            }
        };
        self.stop.cancel();
        self.listener.await.context("the listener panicked")?;
        if let Some(mqtt) = self.mqtt {
            mqtt.await.context("the MQTT listener panicked")?;
        }
        self.stop_forwarder.cancel();
        let (forwarder, spool) = (self.forwarder, self.spool);
        let joined = tokio::task::spawn_blocking(move || forwarder.join()).await?;
        spool.close().await;
        match (failed, joined) {
            (None, Ok(())) => Ok(()),
            (Some(error), _) => Err(error),
            (None, Err(_)) => Err(anyhow!("the forwarder's thread panicked")),
        }
    }
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
