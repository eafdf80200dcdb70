//! `bench freshness`: how long an event takes from its reception at a gateway to every live
//! stream that follows it, as a page reads them, under load.
//!
//! ```text
//! fleet ─▶ gateway ─▶ topic ─▶ the API's live view ─▶ streams of devices, of groups, of the fleet
//!            │ received_at  │ append time                 │ the clock when a point's last byte came
//! ```
//! All three clocks are this machine's. What was followed is read from the topic afterwards, by
//! a plain consumer: every value of it must have been shown, once.

mod follow;
mod judge;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use penstock_common::shutdown;
use tokio_util::sync::CancellationToken;

use self::follow::{Stream, Whose};
use self::judge::Expected;
use self::report::{Report, Used};
use crate::demo::progress::Progress;
use crate::fleet::{self, FleetConfig, Tally};
use crate::oracle::drain;
use crate::stack::process::Usage;
use crate::stack::{CoreConfig, Stack, StackConfig};

/// A device sends every 10 s (spec L1).
const DEVICE_PERIOD_S: f64 = 10.0;
/// A stream has at most so many series; a group beyond it is one line.
const GROUP_DEVICES: usize = 100;
/// The metric that groups are followed by; every device has it.
const METRIC: &str = "cpu_temp";
/// What is not visible by then never will be (spec L2: fresher than 30 s).
const VISIBLE_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// The cores in the order of the configuration.
const CORE: usize = 0;
const API: usize = 1;

/// `hw-tests bench freshness`.
#[derive(Args, Clone, Debug)]
pub struct FreshnessArgs {
    /// Events a second.
    #[arg(long, default_value_t = 5_000.0)]
    pub rate: f64,
    /// How long.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Events a request.
    #[arg(long, default_value_t = 100)]
    pub batch: usize,
    /// Streams of one device, with all its metrics.
    #[arg(long, default_value_t = 20)]
    pub devices_followed: usize,
    /// Streams of a group of 100 devices, with one metric.
    #[arg(long, default_value_t = 5)]
    pub groups: usize,
    /// Everything but the clock follows from it; random when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs the benchmark and prints what it measured; succeeds only if nothing that was followed
/// stayed invisible.
///
/// # Errors
/// When something can't be started or read, or a stream did not show what it should.
pub async fn run(args: FreshnessArgs) -> anyhow::Result<()> {
    ensure!((1..=100).contains(&args.batch), "--batch is 1 to 100");
    ensure!(args.rate > 0.0 && args.rate.is_finite(), "--rate is above 0");
    ensure!(args.devices_followed + args.groups <= 400, "at most 400 streams");
    super::warn_of_debug_build();
    let stop = shutdown::on_signals()?;
    let mut config = StackConfig::from_env("bench_freshness")?;
    config.raw_flush_interval = Duration::from_secs(60);
    config.cores = vec![
        CoreConfig::new("core", "raw,compact,rollup,rebuild,deadletter,ledger"),
        CoreConfig::new("api", "api"),
    ];
    let mut stack = Stack::start(config).await?;
    match measure(&args, &mut stack, stop).await {
        Ok(report) => {
            println!("{report}");
            report.check()?;
            stack.stop().await
        }
        Err(error) => Err(stack.explain(error)),
    }
}

async fn measure(
    args: &FreshnessArgs,
    stack: &mut Stack,
    stop: CancellationToken,
) -> anyhow::Result<Report> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let wanted = (args.rate * DEVICE_PERIOD_S / args.batch as f64).ceil();
    let devices = wanted.clamp(1.0, 2_000.0) as u32;
    println!(
        "{} events/s in batches of {} from {devices} devices for {} s, seed {seed}",
        args.rate, args.batch, args.seconds
    );
    let names: Vec<String> = (0..devices).map(|number| format!("sim-{number:05}")).collect();
    let whose = whose(args, stack, &names).await?;
    let stop_following = CancellationToken::new();
    let mut streams = Vec::new();
    for whose in whose {
        streams.push(Stream::open(&stack.api, whose, stop_following.clone()).await?);
    }
    let (tally, end) = (Arc::new(Tally::default()), stop.child_token());
    let before = [stack.gateway.usage(), stack.cores[CORE].usage(), stack.cores[API].usage()];
    let own = Usage::own();
    let began = Instant::now();
    let run_for = Duration::from_secs(args.seconds);
    let (timer, ended) = (end.clone(), tokio::time::sleep(run_for));
    tokio::spawn(async move {
        ended.await;
        timer.cancel();
    });
    let progress = Progress::start(Arc::clone(&tally), Some(stack.api.clone()));
    let fleet = FleetConfig::plain(seed, devices, args.rate, args.batch);
    fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), end).await;
    let took = began.elapsed();
    let now = [stack.gateway.usage(), stack.cores[CORE].usage(), stack.cores[API].usage()];
    let used = Used {
        gateway: now[0].since(before[0]).cpu,
        core: now[1].since(before[1]).cpu,
        api: now[2].since(before[2]).cpu,
        load: Usage::own().since(own).cpu,
    };
    progress.end().await;
    drain::spools(&stack.places()).await?;
    let ends = Instant::now();
    let places = stack.places();
    let expected = tokio::task::spawn_blocking(move || Expected::read(&places)).await??;
    ensure!(
        expected.events == tally.accepted.get(),
        "{} events accepted, {} on the topic",
        tally.accepted.get(),
        expected.events
    );
    while streams.iter().any(|stream| expected.invisible(stream) > 0)
        && ends.elapsed() < VISIBLE_WITHIN
    {
        tokio::time::sleep(POLL_EVERY).await;
    }
    stack.check_alive()?;
    tally.check()?;
    stop_following.cancel();
    let mut judged = judge::Judged::new()?;
    for stream in streams {
        let (whose, seen) = stream.end().await?;
        judged.add(&expected, &whose, seen);
    }
    Ok(Report { args: args.clone(), devices, took, tally, used, judged })
}

/// Who follows what: some devices, groups side by side, and the whole fleet as one line.
async fn whose(
    args: &FreshnessArgs,
    stack: &Stack,
    names: &[String],
) -> anyhow::Result<Vec<Whose>> {
    let mut whose = Vec::new();
    let apart = names.len().div_ceil(args.devices_followed.max(1)).max(1);
    for device in names.iter().step_by(apart).take(args.devices_followed) {
        whose.push(Whose::Device(device.clone()));
    }
    let mut csv = "group,fleet,device\n".to_owned();
    for (number, members) in names.chunks(GROUP_DEVICES).take(args.groups).enumerate() {
        let group = format!("group-{number}");
        members.iter().for_each(|device| csv.push_str(&format!("{group},sim,{device}\n")));
        let members: BTreeSet<String> = members.iter().cloned().collect();
        whose.push(Whose::Group { group, members, metric: METRIC });
    }
    whose.push(Whose::Fleet { metric: METRIC });
    let file = stack.dir.join("groups.csv");
    std::fs::write(&file, csv).with_context(|| format!("write {}", file.display()))?;
    stack.core_command(&["groups", "import", &file.display().to_string()]).await?;
    Ok(whose)
}
