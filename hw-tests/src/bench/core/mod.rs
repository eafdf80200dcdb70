//! `bench core`: what the core costs on this machine, from a topic that is filled beforehand.
//!
//! ```text
//! fill ─▶ raw writer ─▶ compaction ─▶ rollups ─▶ rebuild of an hour ─▶ all roles in one process
//! ```
//! Each part runs alone, in a process of its own; CPU is that process's, so that broker and
//! database, which share the machine, do not count as its own. Wall time is everybody's.

mod parts;
mod report;

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use penstock_common::topic::Topic;

use self::parts::Parts;
use self::report::{Filled, Report};
use crate::fleet::backlog::Backlog;
use crate::stack::{CoreConfig, Stack, StackConfig, kafka, local_dir};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// A device sends every 10 s (spec L1).
const INTERVAL: i64 = 10 * SECOND;
/// The fleet whose hour is rebuilt.
const HOUR_FLEET: &str = "hour";
/// It has so many devices (spec L4), and so many minutes beyond the hour, which close it.
const HOUR_DEVICES: u32 = 1_000;
const HOUR_MINUTES: u32 = 75;

/// `hw-tests bench core`.
#[derive(Args, Debug)]
pub struct CoreArgs {
    /// Devices of the large fleet; each sends five metrics every 10 s.
    #[arg(long, default_value_t = 50_000)]
    pub devices: u32,
    /// So many minutes of it are on the topic.
    #[arg(long, default_value_t = 15)]
    pub minutes: u32,
    /// Everything but the clock follows from it; random when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs the benchmark and prints what it measured; succeeds only if the counts are exact.
///
/// # Errors
/// When something can't be started or read, or an event is missing or counted twice.
pub async fn run(args: CoreArgs) -> anyhow::Result<()> {
    ensure!(args.devices > 0 && args.minutes > 0, "--devices and --minutes are above 0");
    super::warn_of_debug_build();
    let mut config = StackConfig::from_env("bench_core")?;
    config.cores = vec![
        CoreConfig::new("raw", "raw"),
        CoreConfig::new("compact", "compact"),
        CoreConfig::new("rollup", "rollup"),
        CoreConfig::new("rebuild", "rebuild"),
        CoreConfig::new("api", "api"),
    ];
    config.raw_flush_interval = Duration::from_secs(5);
    // Open hours are compacted while somebody waits for it.
    let set = ["compact.interval_ms=500", "compact.files_max=6"];
    config.core_set = set.map(String::from).into();
    let mut stack = Stack::prepare(config.clone()).await?;
    match measure(&args, config, &mut stack).await {
        Ok(report) => {
            println!("{report}");
            report.check()?;
            stack.stop().await
        }
        Err(error) => Err(stack.explain(error)),
    }
}

async fn measure(
    args: &CoreArgs,
    config: StackConfig,
    stack: &mut Stack,
) -> anyhow::Result<Report> {
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("filling the topic: {} devices, {} minutes, seed {seed}", args.devices, args.minutes);
    let (filled, hour) = fill(args, seed, stack).await?;
    let events = filled.events;
    let mut parts = Parts::connect(stack, events).await?;
    println!("the raw writer, on {events} events");
    let raw = parts.raw(stack).await?;
    println!("compaction");
    let compaction = parts.compaction(stack).await?;
    println!("the rollups");
    let rollup = parts.rollup(stack).await?;
    println!("rebuilding an hour of {HOUR_DEVICES} devices");
    let rebuild = parts.rebuild(stack, HOUR_FLEET, (hour, hour + HOUR)).await?;
    println!("all roles in one process, into empty databases");
    let all = all_roles(config, stack, events).await?;
    Ok(Report { filled, raw, compaction, rollup, rebuild, all })
}

/// Fills the topic with the large fleet and the one whose hour is rebuilt; the begin of that hour.
async fn fill(args: &CoreArgs, seed: u64, stack: &Stack) -> anyhow::Result<(Filled, i64)> {
    let now = SystemClock.now().0;
    let hour = (now - 3 * HOUR).div_euclid(HOUR) * HOUR;
    let large = Backlog {
        seed,
        fleet: "large".into(),
        gateway: "gw-large".into(),
        first_device: 0,
        devices: args.devices,
        schema_version: 2,
        from: UnixMicros(now - i64::from(args.minutes) * MINUTE),
        events_each: args.minutes * 6,
        interval_micros: INTERVAL,
    };
    let small = Backlog {
        fleet: HOUR_FLEET.into(),
        gateway: "gw-hour".into(),
        devices: HOUR_DEVICES,
        from: UnixMicros(hour),
        events_each: HOUR_MINUTES * 6,
        ..large.clone()
    };
    let began = Instant::now();
    let mut filled = Filled::default();
    for backlog in [small, large] {
        let places = stack.places();
        let writing =
            tokio::task::spawn_blocking(move || backlog.write(&places.kafka, &places.topic_prefix));
        let written = writing.await??;
        filled.events += written.events;
        filled.payload_bytes += written.payload_bytes;
    }
    filled.took = began.elapsed();
    let topic = Topic::RawEvents.name(&stack.topic_prefix);
    filled.kafka_bytes = kafka::topic_bytes(&local_dir()?, &topic).ok();
    Ok((filled, hour))
}

/// The same topics once more, as after an outage of the whole core.
async fn all_roles(
    config: StackConfig,
    stack: &Stack,
    events: u64,
) -> anyhow::Result<report::Cost> {
    let mut again = Stack::prepare(StackConfig {
        name: "bench_all".into(),
        topic_prefix: Some(stack.topic_prefix.clone()),
        cores: vec![CoreConfig::new("core", "all")],
        ..config
    })
    .await?;
    let measured = async {
        let mut parts = Parts::connect(&again, events).await?;
        parts.all(&mut again).await
    };
    match measured.await {
        Ok(cost) => again.stop().await.map(|()| cost),
        Err(error) => Err(again.explain(error)),
    }
}
