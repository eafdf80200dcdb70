//! `rollup-past`: writes a fleet's past into the rollups, through the core's own aggregation and
//! its own writes, so that benchmarks have a month of history in minutes.
//!
//! A program of its own: it needs the core's code, and `hw-tests`, which judges the core, must not
//! share any with it.

mod past;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cloud_core::failpoint::Failpoints;
use cloud_core::rollup::RollupConfig;
use cloud_core::store::rollup::{RollupStore, Table};
use futures::TryStreamExt;

use self::past::{Rows, Span, Written};

/// Memory of many threads, as in the core.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Transactions at the same time: PostgreSQL's part of one is a core's work.
const PARALLEL: usize = 2;

#[derive(Parser)]
#[command(version, about = "Writes a made-up past into the rollups of a benchmark")]
struct Cli {
    /// The database of the rollups.
    #[arg(long)]
    dsn: String,
    /// The fleet.
    #[arg(long)]
    fleet: String,
    #[command(flatten)]
    span: Span,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let began = Instant::now();
    let config = RollupConfig { dsn: cli.dsn, ..RollupConfig::default() };
    let store = RollupStore::open(&config, "", Failpoints::default())?;
    store.migrate().await?;
    let writes =
        futures::stream::iter(past::rows(&cli.span, &cli.fleet).map(Ok::<_, anyhow::Error>))
            .map_ok(|Rows { table, rows }| {
                let store = store.clone();
                // A task of its own, so that the next rows are made meanwhile.
                let write = async move { Ok((table, store.import(table, &rows).await?)) };
                async { tokio::spawn(write).await? }
            })
            .try_buffer_unordered(PARALLEL);
    let written = writes
        .try_fold(Written::default(), |mut sum, (table, rows)| async move {
            *match table {
                Table::Minute => &mut sum.minutes,
                Table::Hour => &mut sum.hours,
                Table::Day => &mut sum.days,
            } += rows;
            Ok::<_, anyhow::Error>(sum)
        })
        .await?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({
            "minutes": written.minutes, "hours": written.hours, "days": written.days,
            "seconds": seconds,
        })
    );
    Ok(())
}
