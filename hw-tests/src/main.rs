//! `hw-tests`: the demo, the load generator, and the benchmarks.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hw_tests::{bench, demo, power_cut, simulate};
use penstock_common::telemetry::{self, LogConfig};

#[derive(Parser)]
#[command(version, about = "Simulated devices, the oracle, the demo and the benchmarks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything, run a simulated fleet, and let the oracle judge.
    Demo(demo::DemoArgs),
    /// Run a simulated fleet against a gateway that is already there.
    Simulate(simulate::SimulateArgs),
    /// Cut the power of a virtual machine that runs a gateway, and look for loss.
    PowerCut(power_cut::PowerCutArgs),
    /// Measure.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand)]
enum Bench {
    /// Ingestion: rate, acknowledgement latency, CPU and bytes per event, exact counts.
    Ingest(bench::ingest::IngestArgs),
    /// The gateway alone: CPU, acknowledgement, bytes written, and a large backlog.
    Gateway(bench::gateway::GatewayArgs),
    /// The core from a pre-filled topic: raw writer, compaction, rollups, rebuild, all together.
    Core(bench::core::CoreArgs),
    /// The API: latency of its questions, open loop, on a month of history, beside ingest.
    Query(bench::query::QueryArgs),
    /// The live view: from an event's reception to every stream that follows it.
    Freshness(bench::freshness::FreshnessArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = LogConfig { filter: "warn".into(), ..LogConfig::default() };
    let run = || -> anyhow::Result<()> {
        telemetry::init(&log)?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            match cli.command {
                Command::Demo(args) => demo::run(args).await,
                Command::Simulate(args) => simulate::run(args).await,
                Command::PowerCut(args) => power_cut::run(args).await,
                Command::Bench(Bench::Ingest(args)) => bench::ingest::run(args).await,
                Command::Bench(Bench::Gateway(args)) => bench::gateway::run(args).await,
                Command::Bench(Bench::Core(args)) => bench::core::run(args).await,
                Command::Bench(Bench::Query(args)) => bench::query::run(args).await,
                Command::Bench(Bench::Freshness(args)) => bench::freshness::run(args).await,
            }
        })
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
