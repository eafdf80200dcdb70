//! `bench query`: what an answer of the API costs while events come in, on a month of history.
//!
//! ```text
//! rollup-past ─▶ rollups (a month of hours, most of a day's minutes)      ┐
//! backlog ─▶ topic ─▶ raw writer, compaction, aggregator, merge worker    ├─▶ questions, open loop
//!            (the last hours, as events)                                  │
//! fleet ─▶ gateway ─▶ topic ─▶ all roles (the present, all the while)     ┘
//! ```
//! Latency is measured from the moment a question was due, whatever the ones before it took, to
//! the last byte of its answer. Every answer is read, and must be complete.

mod answer;
mod data;
mod load;
mod made;
mod question;
mod report;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use penstock_common::shutdown;
use tokio_util::sync::CancellationToken;

use self::data::DataSet;
use self::load::Load;
use self::question::{Kind, Questions};
use self::report::{Ingest, Report};
use self::usage::Usages;
use crate::fleet::client::Client;
use crate::fleet::{self, FleetConfig, Tally};
use crate::oracle::{api, drain};
use crate::stack::{CoreConfig, Stack, StackConfig};

/// What a browser takes behind TLS.
const ENCODINGS: &str = "gzip, deflate, br, zstd";
/// A device sends every 10 s (spec L1).
const DEVICE_PERIOD_S: f64 = 10.0;
/// So often the larger questions are asked, one after the other.
const ALONE_TRIES: usize = 5;

/// The cores in the order of the configuration.
const PREPARE: usize = 0;
const CORE: usize = 1;
const API: usize = 2;

/// `hw-tests bench query`.
#[derive(Args, Clone, Debug)]
pub struct QueryArgs {
    /// Devices with a past.
    #[arg(long, default_value_t = 2_000)]
    pub devices: u32,
    /// Days of hours in their past.
    #[arg(long, default_value_t = 30)]
    pub days: u32,
    /// So many hours of it are events, which the core stores, compacts and rolls up itself.
    #[arg(long, default_value_t = 3)]
    pub raw_hours: u32,
    /// Devices of the group.
    #[arg(long, default_value_t = 100)]
    pub group: u32,
    /// Questions a second.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Connections that they are asked on.
    #[arg(long, default_value_t = 50)]
    pub connections: usize,
    /// How long.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// How long before that nothing is measured.
    #[arg(long, default_value_t = 20)]
    pub warm_up: u64,
    /// Events a second through the gateway meanwhile.
    #[arg(long, default_value_t = 2_000.0)]
    pub ingest: f64,
    /// Events a request of them.
    #[arg(long, default_value_t = 10)]
    pub batch: usize,
    /// Everything but the clock follows from it; random when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs the benchmark and prints what it measured; succeeds only if every answer was right.
///
/// # Errors
/// When something can't be started or read, an answer is wrong, or an event is missing.
pub async fn run(args: QueryArgs) -> anyhow::Result<()> {
    ensure!((1..=6).contains(&args.raw_hours), "--raw-hours is 1 to 6");
    ensure!((2..=366).contains(&args.days), "--days is 2 to 366");
    ensure!((20..=20_000).contains(&args.devices), "--devices is 20 to 20000");
    ensure!((1..=args.devices).contains(&args.group), "--group is 1 to --devices");
    ensure!((1..=100).contains(&args.batch), "--batch is 1 to 100");
    ensure!(args.rate > 0.0 && args.ingest > 0.0, "--rate and --ingest are above 0");
    ensure!(args.seconds > 0 && args.connections > 0, "--seconds and --connections are above 0");
    super::warn_of_debug_build();
    let stop = shutdown::on_signals()?;
    let data = DataSet::plan(&args, args.seed.unwrap_or_else(rand::random));
    let mut config = StackConfig::from_env("bench_query")?;
    config.raw_flush_interval = Duration::from_secs(60);
    let patience = data.preparing();
    let patience: Vec<&str> = patience.iter().map(String::as_str).collect();
    config.cores = vec![
        CoreConfig::new("prepare", "raw,compact,rollup").with(&patience),
        CoreConfig::new("core", "raw,compact,rollup,rebuild,deadletter,ledger"),
        CoreConfig::new("api", "api"),
    ];
    let mut stack = Stack::prepare(config).await?;
    match measure(&args, data, &mut stack, stop).await {
        Ok(report) => {
            println!("{report}");
            report.check()?;
            stack.stop().await
        }
        Err(error) => Err(stack.explain(error)),
    }
}

async fn measure(
    args: &QueryArgs,
    data: DataSet,
    stack: &mut Stack,
    stop: CancellationToken,
) -> anyhow::Result<Report> {
    let made = data.make(stack, PREPARE).await?;
    println!("{made}");
    stack.cores[CORE].start().await?;
    stack.cores[API].start().await?;
    stack.gateway.start().await?;
    data.make_group(stack).await?;
    let client = Client::new(stack.api.address, args.connections, Duration::from_secs(60));
    let client = Arc::new(client.with_token(&stack.api.token).accepting(ENCODINGS));
    let compared = data.verify(&client).await?;
    println!("{compared} points compared with their values, one by one");

    let (tally, end) = (Arc::new(Tally::default()), stop.child_token());
    let devices = (args.ingest * DEVICE_PERIOD_S / args.batch as f64).ceil().max(1.0) as u32;
    let fleet = FleetConfig::plain(data.past.seed, devices, args.ingest, args.batch);
    let began = std::time::Instant::now();
    let ingest =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), end.clone()));
    let mut questions = Questions::new(Arc::new(data));
    let load = |seconds| Load { rate: args.rate, lasts: Duration::from_secs(seconds) };
    println!("{} questions/s beside {} events/s", args.rate, args.ingest);
    if args.warm_up > 0 {
        load(args.warm_up).run(&client, &mut questions, &stop).await?;
    }
    let before = Usages::read(stack, API, CORE).await?;
    let measured = load(args.seconds).run(&client, &mut questions, &stop).await?;
    let usages = Usages::read(stack, API, CORE).await?.since(&before);
    let mut alone = Vec::new();
    for kind in Kind::ALONE {
        alone.push((kind, load::alone(&client, &mut questions, kind, ALONE_TRIES).await?));
    }
    end.cancel();
    ingest.await?;
    let took = began.elapsed();
    stack.check_alive()?;
    drain::wait(&stack.places()).await?;
    tally.check()?;
    let status = api::status(&api::client(&stack.api)).await?;
    let stored = status.rows_published.saturating_sub(made.events());
    let ingest = Ingest { wanted: args.ingest, took, tally, stored };
    Ok(Report { made, measured, usages, alone, ingest, wanted: args.rate })
}
