//! `keys …`, `fleets …` and `snapshot …`: who may send to gateways, and how they come to know.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::{UnixMicros, is_name};
use penstock_common::shutdown;
use penstock_common::snapshot::{self as file, CorePressure, Limits, Rate};
use penstock_common::topic::Topic;
use uuid::Uuid;

use super::ConfigArgs;
use super::access::{DAY_MICROS, who};
use crate::access::secret::{Kind, Secret};
use crate::bus::kafka::KafkaAdmin;
use crate::config::CoreConfig;
use crate::failpoint::Failpoints;
use crate::snapshot::{backlog, gather, pressure};
use crate::store::catalog::Catalog;
use crate::store::fleets::{FleetStore, KeyEntry};
use crate::store::positions::Positions;
use crate::store::postgres;

/// About the keys of fleets.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Makes a key and prints it, this once: only its hash is kept. Gateways know it with the
    /// next snapshot.
    Create {
        /// The fleet, which is made where there is none.
        #[arg(long)]
        fleet: String,
        /// It ends then, RFC 3339; without it, never.
        #[arg(long, conflicts_with = "days")]
        expires: Option<String>,
        /// It ends after so many days.
        #[arg(long)]
        days: Option<u32>,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Lists keys.
    List {
        /// Of one fleet only.
        #[arg(long)]
        fleet: Option<String>,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Ends a key, at each gateway with its next snapshot.
    Revoke {
        /// As in the list.
        id: Uuid,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// About fleets.
#[derive(Debug, Subcommand)]
pub enum Fleets {
    /// Lists fleets with their limits.
    List {
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Sets how much a fleet may send to one gateway; what is not given is not limited.
    Limit {
        /// The fleet, which is made where there is none.
        #[arg(long)]
        fleet: String,
        /// Requests a second.
        #[arg(long, requires = "requests_burst")]
        requests_per_second: Option<f64>,
        /// Requests at once.
        #[arg(long, requires = "requests_per_second")]
        requests_burst: Option<u32>,
        /// Events a second.
        #[arg(long, requires = "events_burst")]
        events_per_second: Option<f64>,
        /// Events at once.
        #[arg(long, requires = "events_per_second")]
        events_burst: Option<u32>,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// About the snapshot of gateways.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Writes a snapshot file, whole or not at all (docs/contracts/snapshot.md).
    Write(Write),
}

/// What to write, and where.
#[derive(Debug, Args)]
pub struct Write {
    /// The file.
    #[arg(long)]
    pub out: PathBuf,
    /// Only this fleet; may be given again. Without it, all.
    #[arg(long = "fleet")]
    pub fleets: Vec<String>,
    /// Again every so many seconds, until it is stopped.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub every: Option<u64>,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl Keys {
    /// Its configuration.
    pub const fn config(&self) -> &ConfigArgs {
        match self {
            Self::Create { config, .. }
            | Self::List { config, .. }
            | Self::Revoke { config, .. } => config,
        }
    }
}

impl Fleets {
    /// Its configuration.
    pub const fn config(&self) -> &ConfigArgs {
        match self {
            Self::List { config } | Self::Limit { config, .. } => config,
        }
    }
}

async fn catalog(config: &CoreConfig) -> anyhow::Result<Catalog> {
    let pool = postgres::pool(&config.catalog)?;
    postgres::migrate(&pool).await?;
    Ok(Catalog::new(pool, Failpoints::default()))
}

fn check_name(fleet: &str) -> anyhow::Result<()> {
    ensure!(is_name(fleet), "--fleet {fleet:?}: want 1 to 64 characters of A-Z a-z 0-9 . _ -");
    Ok(())
}

/// `keys …`.
///
/// # Errors
/// When the catalog is away, or there is no such key.
pub async fn keys(config: &CoreConfig, command: Keys) -> anyhow::Result<()> {
    let store = FleetStore::new(catalog(config).await?.pool().clone());
    let now = SystemClock.now().0;
    match command {
        Keys::Create { fleet, expires, days, .. } => {
            check_name(&fleet)?;
            let expires_at = end(expires.as_deref(), days, now)?;
            let secret = Secret::random(Kind::FleetKey);
            let key = KeyEntry {
                key_id: Uuid::new_v4(),
                fleet,
                hash: secret.hash(),
                created_at: now,
                expires_at,
                revoked_at: None,
            };
            store.create_key(&key, &who()).await?;
            // Alone on standard output, for scripts.
            println!("{}", secret.reveal());
            eprintln!("key {} of the fleet {}; it is shown only now", key.key_id, key.fleet);
        }
        Keys::List { fleet, .. } => {
            for key in store.keys(fleet.as_deref()).await? {
                let end = match (key.revoked_at, key.expires_at) {
                    (Some(at), _) => format!("revoked {}", UnixMicros(at).to_rfc3339()),
                    (None, Some(at)) if at <= now => "expired".to_owned(),
                    (None, Some(at)) => format!("until {}", UnixMicros(at).to_rfc3339()),
                    (None, None) => "for ever".to_owned(),
                };
                println!("{}  {end:40}  {}", key.key_id, key.fleet);
            }
        }
        Keys::Revoke { id, .. } => match store.revoke_key(id, &who()).await? {
            Some(fleet) => println!(
                "revoked {id} of the fleet {fleet}; gateways know with their next snapshot"
            ),
            None => bail!("there is no valid key {id}; see `cloud-core keys list`"),
        },
    }
    Ok(())
}

fn end(expires: Option<&str>, days: Option<u32>, now: i64) -> anyhow::Result<Option<i64>> {
    let Some(text) = expires else {
        return Ok(days.map(|days| now + i64::from(days) * DAY_MICROS));
    };
    let end = UnixMicros::parse_rfc3339(text)
        .with_context(|| format!("read --expires {text:?}: want e.g. 2027-01-31T08:00:00Z"))?;
    ensure!(end.0 > now, "--expires {text} is past");
    Ok(Some(end.0))
}

/// `fleets …`.
///
/// # Errors
/// When a limit can't be, or the catalog is away.
pub async fn fleets(config: &CoreConfig, command: Fleets) -> anyhow::Result<()> {
    let store = FleetStore::new(catalog(config).await?.pool().clone());
    match command {
        Fleets::List { .. } => {
            let shown = |rate: Option<Rate>| match rate {
                Some(Rate { per_second, burst }) => format!("{per_second}/s, {burst} at once"),
                None => "no limit".to_owned(),
            };
            for (name, Limits { requests, events }) in store.fleets().await? {
                println!("{name}  requests: {}; events: {}", shown(requests), shown(events));
            }
        }
        Fleets::Limit {
            fleet,
            requests_per_second,
            requests_burst,
            events_per_second,
            events_burst,
            ..
        } => {
            check_name(&fleet)?;
            let limits = Limits {
                requests: rate("requests", requests_per_second, requests_burst)?,
                events: rate("events", events_per_second, events_burst)?,
            };
            store.set_limits(&fleet, &limits, &who()).await?;
            println!("set; gateways know with their next snapshot");
        }
    }
    Ok(())
}

fn rate(what: &str, per_second: Option<f64>, burst: Option<u32>) -> anyhow::Result<Option<Rate>> {
    let (Some(per_second), Some(burst)) = (per_second, burst) else { return Ok(None) };
    let rate = Rate { per_second, burst };
    ensure!(
        rate.is_possible(),
        "--{what}-per-second {per_second}, --{what}-burst {burst}: want 0.001 to 1e9, and 1 or more"
    );
    Ok(Some(rate))
}

/// `snapshot write`.
///
/// # Errors
/// When the catalog is away or the file can't be written; with `--every` it is told, and tried
/// again.
pub async fn write(config: &CoreConfig, asked: Write) -> anyhow::Result<()> {
    let writer = Writer::open(config, &asked).await?;
    let Some(every) = asked.every else { return writer.write().await };
    let stop = shutdown::on_signals()?;
    let mut interval = tokio::time::interval(Duration::from_secs(every));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = interval.tick() => {}
        }
        if let Err(error) = writer.write().await {
            tracing::error!(error = format!("{error:#}"), "the snapshot stays as it is");
        }
    }
}

/// Writes the file, again and again.
struct Writer<'a> {
    config: &'a CoreConfig,
    asked: &'a Write,
    store: FleetStore,
    positions: Positions,
    bus: KafkaAdmin,
}

impl<'a> Writer<'a> {
    async fn open(config: &'a CoreConfig, asked: &'a Write) -> anyhow::Result<Self> {
        let catalog = catalog(config).await?;
        Ok(Self {
            config,
            asked,
            store: FleetStore::new(catalog.pool().clone()),
            positions: catalog.positions(),
            bus: KafkaAdmin::open(&config.kafka)?,
        })
    }

    async fn write(&self) -> anyhow::Result<()> {
        let now = SystemClock.now();
        let out = &self.asked.out;
        let before = before(out);
        let core_pressure = match self.judge(before.hold, now).await {
            Ok(pressure) => pressure,
            Err(error) => {
                // With its old time, so that gateways see how old it is.
                tracing::warn!(error = format!("{error:#}"), "the judgement of before goes on");
                before
            }
        };
        let snapshot = gather(&self.store, &self.asked.fleets, core_pressure, now).await?;
        file::write(out, &snapshot.encode()?)?;
        let keys: usize = snapshot.fleets.iter().map(|fleet| fleet.keys.len()).sum();
        eprintln!(
            "{}: {} fleets with {keys} keys, {} schemas, {}",
            out.display(),
            snapshot.fleets.len(),
            snapshot.schemas.len(),
            match &snapshot.core_pressure {
                CorePressure { hold: true, reason, .. } =>
                    format!("events are held back: {reason}"),
                _ => "events flow".to_owned(),
            }
        );
        Ok(())
    }

    async fn judge(&self, was_held: bool, now: UnixMicros) -> anyhow::Result<CorePressure> {
        let Self { config, positions, bus, .. } = self;
        let topic = Topic::RawEvents.name(&config.kafka.topic_prefix);
        let backlog = backlog::read(positions, bus, &topic, &config.pressure, now).await?;
        let as_of = Timestamp::from_microsecond(now.0)?;
        Ok(pressure::judge(&config.pressure, was_held, &backlog, as_of))
    }
}

/// What the file said before: hysteresis goes over all writers of one file.
fn before(out: &Path) -> CorePressure {
    match file::read(out) {
        Ok((decoded, _)) => decoded.snapshot.core_pressure,
        Err(error) => {
            if !error.is_missing() {
                tracing::warn!(%error, "what was there before can't be used, and is replaced");
            }
            CorePressure::default()
        }
    }
}
