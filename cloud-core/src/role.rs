//! Chooses the roles of a process and wires them.
//!
//! Ports are bound first, then the catalog is migrated (however long it is away), then the roles
//! run. Each is supervised on its own: one that fails begins anew after a back-off and stops no
//! other.

use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use penstock_common::clock::SystemClock;
use penstock_common::retry::Backoff;
use penstock_common::topic::Topic;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::admin::{self, Readiness};
use crate::bus::kafka::{KafkaConsumer, KafkaProducer};
use crate::compact::job::Compactor;
use crate::compact::metrics::CompactMetrics;
use crate::compact::stage::Graveyard;
use crate::compact::{self};
use crate::config::CoreConfig;
use crate::deadletter::metrics::DeadLetterMetrics;
use crate::failpoint::Failpoints;
use crate::ledger;
use crate::ledger::metrics::LedgerMetrics;
use crate::raw::sink::{Intake, RawSink};
use crate::raw::sweep;
use crate::raw::write::Writer;
use crate::raw::{self, metrics::RawMetrics};
use crate::rebuild::metrics::RebuildMetrics;
use crate::rollup::merge_worker::MergeMetrics;
use crate::rollup::metrics::RollupMetrics;
use crate::source::metrics::SourceMetrics;
use crate::source::poison::PoisonMemory;
use crate::source::runner::Runner;
use crate::store::catalog::Catalog;
use crate::store::object::Objects;
use crate::store::postgres;
use crate::store::rollup::RollupStore;

mod api;
mod dead_letter;
mod loss_ledger;
mod rebuild;
mod rollup;

/// A part of the core that runs, fails and scales alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The raw writer.
    Raw,
    /// Compaction of raw files.
    Compact,
    /// The rollups, as events stream by.
    Rollup,
    /// Rollups from raw files.
    Rebuild,
    /// The dead-letter store.
    DeadLetter,
    /// The loss ledger.
    Ledger,
    /// The HTTP API.
    Api,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Raw,
        Self::Compact,
        Self::Rollup,
        Self::Rebuild,
        Self::DeadLetter,
        Self::Ledger,
        Self::Api,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Compact => "compact",
            Self::Rollup => "rollup",
            Self::Rebuild => crate::rebuild::ROLE,
            Self::DeadLetter => "deadletter",
            Self::Ledger => ledger::ROLE,
            Self::Api => "api",
        }
    }
}

/// The roles of a process, from `raw,api` or `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(pub Vec<Role>);

impl FromStr for Roles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(Role::ALL.to_vec()));
        }
        let mut roles = Vec::new();
        for name in text.split(',').map(str::trim) {
            let known = Role::ALL.into_iter().find(|role| role.name() == name);
            let role =
                known.ok_or_else(|| format!("unknown role {name:?}: want all or {}", names()))?;
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        Ok(Self(roles))
    }
}

/// The names of all roles, joined by commas.
fn names() -> String {
    Role::ALL.map(Role::name).join(",")
}

/// What the roles share.
#[derive(Clone)]
struct Shared {
    config: Arc<CoreConfig>,
    catalog: Catalog,
    objects: Objects,
    raw_metrics: RawMetrics,
    dead_letter_metrics: DeadLetterMetrics,
    ledger_metrics: LedgerMetrics,
    source_metrics: SourceMetrics,
    compact_metrics: CompactMetrics,
    rollups: RollupStore,
    rollup_metrics: RollupMetrics,
    merge_metrics: MergeMetrics,
    rebuild_metrics: RebuildMetrics,
    poison: PoisonMemory,
    restarts: IntCounterVec,
    readiness: Readiness,
}

/// Runs the roles until `stop`, then drains them.
///
/// # Errors
/// When a port can't be bound, or the configuration can't be carried out.
pub async fn run(config: CoreConfig, roles: Roles, stop: CancellationToken) -> anyhow::Result<()> {
    let registry = Registry::new();
    let readiness = Readiness::default();
    readiness.wait("catalog", "not migrated yet");
    let admin_listener = bind("admin.listen", &config.admin.listen).await?;
    let mut ready = serde_json::Map::new();
    ready.insert("admin".into(), admin_listener.local_addr()?.to_string().into());
    let api_listener = if roles.0.contains(&Role::Api) {
        let listener = bind("api.listen", &config.api.listen).await?;
        ready.insert("api".into(), listener.local_addr()?.to_string().into());
        Some(Arc::new(listener.into_std()?))
    } else {
        None
    };
    let shared = Shared {
        catalog: Catalog::new(postgres::pool(&config.catalog)?, Failpoints::default()),
        objects: Objects::open(&config.store)?,
        raw_metrics: RawMetrics::new(&registry)?,
        dead_letter_metrics: DeadLetterMetrics::new(&registry)?,
        ledger_metrics: LedgerMetrics::new(&registry)?,
        source_metrics: SourceMetrics::new(&registry)?,
        compact_metrics: CompactMetrics::new(&registry)?,
        rollups: RollupStore::open(&config.rollup, &config.catalog.dsn, Failpoints::default())?,
        rollup_metrics: RollupMetrics::new(&registry)?,
        merge_metrics: MergeMetrics::new(&registry)?,
        rebuild_metrics: RebuildMetrics::new(&registry)?,
        poison: PoisonMemory::default(),
        restarts: restarts(&registry)?,
        readiness: readiness.clone(),
        config: Arc::new(config),
    };
    // Health outlives the roles: they are drained before it goes.
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(crate::api::serve(
        admin_listener,
        admin::router(registry, readiness.clone()),
        admin_stop.clone(),
    ));
    if migrate(&shared, &stop).await {
        readiness.ready("catalog");
        let mut tasks = JoinSet::new();
        for role in &roles.0 {
            tasks.spawn(supervise(*role, shared.clone(), api_listener.clone(), stop.clone()));
        }
        if let Some(path) = &shared.config.ready_file {
            write_ready(path, &serde_json::Value::Object(ready))?;
        }
        let names: Vec<&str> = roles.0.iter().map(|role| role.name()).collect();
        tracing::info!(roles = names.join(","), "running");
        while let Some(ended) = tasks.join_next().await {
            ended.context("a supervisor ended")?;
        }
    }
    admin_stop.cancel();
    admin.await.context("the admin listener ended")??;
    tracing::info!("drained");
    Ok(())
}

async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    let address: SocketAddr = address.parse().with_context(|| format!("read {key}"))?;
    TcpListener::bind(address).await.with_context(|| format!("bind {key} {address}"))
}

fn restarts(registry: &Registry) -> anyhow::Result<IntCounterVec> {
    let opts = Opts::new("penstock_role_restarts_total", "Times a role failed and began anew");
    let restarts = IntCounterVec::new(opts, &["role"])?;
    registry.register(Box::new(restarts.clone()))?;
    Ok(restarts)
}

/// Migrates, waiting for Postgres; `false` when told to stop meanwhile.
async fn migrate(shared: &Shared, stop: &CancellationToken) -> bool {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    loop {
        let error = tokio::select! {
            () = stop.cancelled() => return false,
            migrated = postgres::migrate(shared.catalog.pool()) => match migrated {
                Ok(()) => return true,
                Err(error) => error,
            },
        };
        let delay = backoff.next_delay();
        tracing::warn!(error = format!("{error:#}"), ?delay, "can't migrate the catalog yet");
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Whole or not at all: who waits for the file must not read half of it.
fn write_ready(path: &Path, ready: &serde_json::Value) -> anyhow::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let written = std::fs::write(&unfinished, format!("{ready}\n"))
        .and_then(|()| std::fs::rename(&unfinished, path));
    written.with_context(|| format!("write {}", path.display()))
}

/// Runs a role again and again until `stop`.
async fn supervise(
    role: Role,
    shared: Shared,
    api_listener: Option<Arc<std::net::TcpListener>>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    while !stop.is_cancelled() {
        let began = Instant::now();
        let (shared_too, listener, stop_too) = (shared.clone(), api_listener.clone(), stop.clone());
        let running = tokio::spawn(async move {
            match (role, listener) {
                (Role::Raw, _) => run_raw(shared_too, stop_too).await,
                (Role::Rollup, _) => rollup::run(shared_too, stop_too).await,
                (Role::Rebuild, _) => rebuild::run(shared_too, stop_too).await,
                (Role::Compact, _) => run_compact(shared_too, stop_too).await,
                (Role::DeadLetter, _) => dead_letter::run(shared_too, stop_too).await,
                (Role::Ledger, _) => loss_ledger::run(shared_too, stop_too).await,
                (Role::Api, Some(listener)) => api::run(shared_too, &listener, stop_too).await,
                (Role::Api, None) => anyhow::bail!("no listener was bound for the API"),
            }
        });
        // A panic is a failure like any other.
        let error = match running.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        if began.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        let (name, delay) = (role.name(), backoff.next_delay());
        shared.restarts.with_label_values(&[name]).inc();
        shared.readiness.wait(name, "failed, beginning anew");
        tracing::error!(role = name, error = format!("{error:#}"), ?delay, "a role failed");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

async fn run_raw(shared: Shared, stop: CancellationToken) -> anyhow::Result<()> {
    let prefix = &shared.config.kafka.topic_prefix;
    let producer = Arc::new(KafkaProducer::open(&shared.config.kafka)?);
    let runner = |topic: Topic, intake: Intake| -> anyhow::Result<Runner<RawSink>> {
        let Shared { config, catalog, objects, raw_metrics, source_metrics, .. } = &shared;
        let topic_name = topic.name(prefix);
        // Groups on two topics rebalance apart.
        let suffix = if topic == Topic::RawEvents { "" } else { "-replay" };
        let group = format!("{prefix}{}{suffix}", config.raw.group);
        let writer = Writer {
            catalog: catalog.clone(),
            objects: objects.clone(),
            producer: producer.clone(),
            topic: topic_name.clone(),
            dead_letter_topic: Topic::DeadLetter.name(prefix),
            failpoints: Failpoints::default(),
            metrics: raw_metrics.clone(),
        };
        Ok(Runner {
            role: raw::ROLE,
            consumer: Box::new(KafkaConsumer::open(&config.kafka, &group, &topic_name)?),
            sink: RawSink::new(writer, config.raw.clone(), intake),
            positions: catalog.positions(),
            config: config.raw.runner(),
            counters: source_metrics.of(raw::ROLE, topic.base_name()),
            poison: shared.poison.clone(),
            stop: stop.clone(),
        })
    };
    let events = runner(Topic::RawEvents, Intake::Every)?;
    let replays = runner(Topic::ReplayEvents, Intake::DeadLetterOrigin)?;
    shared.readiness.ready(Role::Raw.name());
    // Dropped with this future: a sweep may end anywhere.
    let mut sweeping = JoinSet::new();
    let Shared { config, catalog, objects, raw_metrics, .. } = &shared;
    sweeping.spawn(sweep::run(
        catalog.clone(),
        objects.clone(),
        config.raw.clone(),
        raw_metrics.clone(),
    ));
    tokio::try_join!(events.run(), replays.run())?;
    Ok(())
}

async fn run_compact(shared: Shared, stop: CancellationToken) -> anyhow::Result<()> {
    let Shared { config, catalog, objects, compact_metrics: metrics, readiness, .. } = shared;
    let graveyard = Graveyard {
        producer: Arc::new(KafkaProducer::open(&config.kafka)?),
        topic: Topic::DeadLetter.name(&config.kafka.topic_prefix),
    };
    let compactor = Compactor {
        catalog,
        objects,
        graveyard: Arc::new(graveyard),
        config: config.compact.clone(),
        metrics,
        failpoints: Failpoints::default(),
    };
    readiness.ready(Role::Compact.name());
    compact::stage::run(compactor, Arc::new(SystemClock), stop).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read() {
        assert_eq!("all".parse(), Ok(Roles(Role::ALL.to_vec())));
        assert_eq!("api, raw,api".parse(), Ok(Roles(vec![Role::Api, Role::Raw])));
        assert!("raw,cook".parse::<Roles>().unwrap_err().contains("cook"));
    }
}
