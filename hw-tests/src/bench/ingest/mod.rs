//! `bench ingest`: what ingestion costs on this machine, with exact counts.

mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use penstock_common::shutdown;
use penstock_common::topic::Topic;
use tokio_util::sync::CancellationToken;

use self::report::Report;
use super::syncs;
use crate::demo::progress::Progress;
use crate::fleet::client::Client;
use crate::fleet::{self, FleetConfig, Tally};
use crate::oracle::{self, api, checker::Tolerance};
use crate::stack::process::Usage;
use crate::stack::{CoreConfig, Stack, StackConfig, kafka, local_dir};

/// More would make reading them back one by one the longest part of the benchmark.
const DEVICES_MAX: u32 = 2_000;
/// How often a device sends, in seconds, where that needs no more devices than that.
const DEVICE_PERIOD_S: f64 = 10.0;

/// Bytes of the records that the gateway has made durable.
const SPOOL_BYTES_METRIC: &str = "penstock_spool_committed_record_bytes_total";

/// `hw-tests bench ingest`.
#[derive(Args, Debug)]
pub struct IngestArgs {
    /// Events a second.
    #[arg(long, default_value_t = 5000.0)]
    pub rate: f64,
    /// How long.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// Events a request.
    #[arg(long, default_value_t = 100)]
    pub batch: u32,
    /// Everything but the clock follows from it; random when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs the benchmark and prints what it measured; succeeds only if the counts are exact.
///
/// # Errors
/// When something can't be started or read, or the verdict does not hold.
pub async fn run(args: IngestArgs) -> anyhow::Result<()> {
    anyhow::ensure!((1..=100).contains(&args.batch), "--batch is 1 to 100");
    anyhow::ensure!(args.rate > 0.0 && args.rate.is_finite(), "--rate is above 0");
    super::warn_of_debug_build();
    let stop = shutdown::on_signals()?;
    let mut config = StackConfig::from_env("bench")?;
    config.cores = vec![CoreConfig::new("core", "raw,api")];
    config.raw_flush_interval = Duration::from_secs(60);
    let mut stack = Stack::start(config).await?;
    match measure(&args, &mut stack, stop).await {
        Ok(report) => {
            println!("{report}");
            report.verdict.check()?;
            stack.stop().await
        }
        Err(error) => Err(stack.explain(error)),
    }
}

async fn measure(
    args: &IngestArgs,
    stack: &mut Stack,
    stop: CancellationToken,
) -> anyhow::Result<Report> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let batch = args.batch as usize;
    let wanted = (args.rate * DEVICE_PERIOD_S / f64::from(args.batch)).ceil();
    let devices = wanted.clamp(1.0, f64::from(DEVICES_MAX)) as u32;
    println!(
        "{} events/s in batches of {batch} from {devices} devices for {} s, seed {seed}",
        args.rate, args.seconds
    );
    let end = {
        let stop = stop.clone();
        let run_for = Duration::from_secs(args.seconds);
        tokio::spawn(async move {
            tokio::time::sleep(run_for).await;
            stop.cancel();
        })
    };
    let syncs = syncs::Syncs::start(&stack.dir).context("measure bare syncs")?;
    let before = (stack.gateway.usage(), stack.cores[0].usage(), Usage::own());
    let started = Instant::now();
    let tally = Arc::new(Tally::default());
    let progress = Progress::start(Arc::clone(&tally), Some(stack.api.clone()));
    let fleet = FleetConfig::plain(seed, devices, args.rate, batch);
    let told = fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop).await;
    let took = started.elapsed();
    let load_generator = Usage::own().since(before.2);
    end.abort();
    let bare_sync = syncs.end().context("measure bare syncs")?;
    progress.end().await;
    println!("\nThe load has stopped; the oracle waits for the pipeline to drain, then counts ...");
    oracle::drain::wait(&stack.places()).await?;
    // Before the oracle reads everything back: that is not ingestion.
    let gateway = stack.gateway.usage().since(before.0);
    let core = stack.cores[0].usage().since(before.1);
    let admin = Client::new(stack.gateway_admin, 1, Duration::from_secs(10));
    let spool_bytes = oracle::drain::metric(&admin, SPOOL_BYTES_METRIC).await? as u64;
    stack.check_alive()?;
    let verdict = oracle::judge(&stack.places(), &told, Tolerance::default()).await?;
    tally.check()?;
    let status = api::status(&api::client(&stack.api)).await?;
    let raw_events = Topic::RawEvents.name(&stack.topic_prefix);
    Ok(Report {
        rate_wanted: args.rate,
        batch,
        took,
        tally,
        bare_sync,
        load_generator,
        gateway,
        core,
        spool_bytes,
        kafka_bytes: kafka::topic_bytes(&local_dir()?, &raw_events).ok(),
        parquet_bytes: status.bytes_published,
        rows: status.rows_published,
        files: status.files_published,
        verdict,
    })
}
