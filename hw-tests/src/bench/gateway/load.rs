//! Loads, one after the other, on one gateway.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use penstock_common::topic::Topic;
use rdkafka::message::Message;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::report::LoadReport;
use crate::bench::syncs::Syncs;
use crate::fleet::client::Client;
use crate::fleet::{self, FleetConfig, Tally};
use crate::oracle::{drain, topics};
use crate::stack::process::Usage;
use crate::stack::{CoreConfig, Stack, StackConfig};

/// A device sends every 10 s (spec L1), where that needs no more devices than this.
const DEVICE_PERIOD_S: f64 = 10.0;
const DEVICES_MAX: f64 = 2_000.0;
/// What an idle gateway's memory is taken after.
const IDLE: Duration = Duration::from_secs(3);

const PLAIN_BYTES: &str = "penstock_spool_committed_plain_bytes_total";
const RECORD_BYTES: &str = "penstock_spool_committed_record_bytes_total";
const COMMITS: &str = "penstock_spool_commits_total";

/// One load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) name: &'static str,
    /// Events a second.
    pub(super) rate: f64,
    /// Events a request.
    pub(super) batch: usize,
    pub(super) seconds: u64,
    pub(super) seed: u64,
    /// More than can be taken: devices wait for their answers.
    pub(super) is_saturating: bool,
}

/// What the gateway has counted.
#[derive(Clone, Copy, Debug)]
struct Counted {
    usage: Usage,
    plain_bytes: f64,
    record_bytes: f64,
    commits: f64,
}

pub(super) struct Loads {
    stack: Stack,
    admin: Client,
}

impl Loads {
    /// Runs them and prints what each cost.
    pub(super) async fn run(
        loads: &[Load],
        tls: bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut config = StackConfig::from_env("bench_gateway")?;
        config.cores = vec![CoreConfig::new("core", "api")];
        config.tls = tls;
        let mut stack = Stack::prepare(config).await?;
        stack.gateway.start().await?;
        tokio::time::sleep(IDLE).await;
        println!("memory of an idle gateway: {} MiB", stack.gateway.memory_bytes_max() >> 20);
        let admin = Client::new(stack.gateway_admin, 1, Duration::from_secs(10));
        let mut all = Self { stack, admin };
        for (number, load) in loads.iter().enumerate() {
            if stop.is_cancelled() {
                break;
            }
            // Ids must not come again.
            let seed = load.seed.wrapping_add(number as u64);
            match all.load(&Load { seed, ..*load }, stop).await {
                Ok(report) => println!("{report}"),
                Err(error) => return Err(all.stack.explain(error)),
            }
        }
        all.stack.stop().await
    }

    async fn load(&mut self, load: &Load, stop: &CancellationToken) -> anyhow::Result<LoadReport> {
        let wanted = (load.rate * DEVICE_PERIOD_S / load.batch as f64).ceil();
        let devices = wanted.clamp(1.0, DEVICES_MAX) as u32;
        let topic = Topic::RawEvents.name(&self.stack.topic_prefix);
        let kafka = self.stack.places().kafka;
        let on_topic_before = self.ids(&kafka, &topic).await?;
        let syncs = Syncs::start(&self.stack.dir).context("measure bare syncs")?;
        let before = self.counted().await?;
        let (tally, end) = (Arc::new(Tally::default()), stop.child_token());
        let (timer, lasts) = (end.clone(), Duration::from_secs(load.seconds));
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            timer.cancel();
        });
        let began = Instant::now();
        let fleet = FleetConfig::plain(load.seed, devices, load.rate, load.batch);
        fleet::run(fleet, self.stack.gateway_http, Arc::clone(&tally), end).await;
        let took = began.elapsed();
        let bare_sync = syncs.end().context("measure bare syncs")?;
        drain::spools(&self.stack.places()).await?;
        let drained = began.elapsed();
        let now = self.counted().await?;
        self.stack.check_alive()?;
        tally.check()?;
        let on_topic = self.ids(&kafka, &topic).await? - on_topic_before;
        let accepted = tally.accepted.get();
        ensure!(on_topic == accepted, "{accepted} events accepted, {on_topic} on {topic}");
        Ok(LoadReport {
            load: *load,
            took,
            drained,
            tally,
            bare_sync,
            usage: now.usage.since(before.usage),
            plain_bytes: now.plain_bytes - before.plain_bytes,
            record_bytes: now.record_bytes - before.record_bytes,
            commits: now.commits - before.commits,
            memory_bytes_max: self.stack.gateway.memory_bytes_max(),
        })
    }

    async fn counted(&self) -> anyhow::Result<Counted> {
        Ok(Counted {
            usage: self.stack.gateway.usage(),
            plain_bytes: drain::metric(&self.admin, PLAIN_BYTES).await?,
            record_bytes: drain::metric(&self.admin, RECORD_BYTES).await?,
            commits: drain::metric(&self.admin, COMMITS).await?,
        })
    }

    /// Different events on the topic.
    async fn ids(&self, kafka: &str, topic: &str) -> anyhow::Result<u64> {
        let (kafka, topic) = (kafka.to_owned(), topic.to_owned());
        tokio::task::spawn_blocking(move || distinct(&kafka, &topic)).await?
    }
}

/// How many different events a topic has. Blocking.
pub(super) fn distinct(kafka: &str, topic: &str) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Id {
        event_id: uuid::Uuid,
    }
    let (mut ids, mut first_error) = (HashSet::new(), None);
    topics::read_topic(kafka, topic, |message| {
        match serde_json::from_slice::<Id>(message.payload().unwrap_or_default()) {
            Ok(id) => drop(ids.insert(id.event_id)),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    })?;
    match first_error {
        Some(error) => Err(error).with_context(|| format!("an event on {topic}")),
        None => Ok(ids.len() as u64),
    }
}
