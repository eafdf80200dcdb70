//! `bench gateway`: what the gateway alone costs, forwarding to the real Kafka, and what a large
//! backlog does to it.
//!
//! ```text
//! fleet ─▶ gateway (every event durable) ─▶ Kafka        batches, single events, the peak, too much
//! fleet ─▶ gateway (every event durable) ─╳ Kafka        a backlog; restarted; drained cold
//! ```
//! No core runs beside it. Every accepted event must be on the topic in the end.

mod backlog;
mod load;
mod report;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use penstock_common::shutdown;

use self::backlog::Backlog;
use self::load::{Load, Loads};

/// `hw-tests bench gateway`.
#[derive(Args, Clone, Debug)]
pub struct GatewayArgs {
    /// Which parts; all when not given.
    #[arg(long, value_enum)]
    pub part: Vec<Part>,
    /// How long each load lasts.
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// How large the backlog becomes, MB of records.
    #[arg(long, default_value_t = 2_000)]
    pub backlog_mb: u64,
    /// Without TLS between devices and gateway.
    #[arg(long)]
    pub plain: bool,
    /// Everything but the clock follows from it; random when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// 5,000 events a second in batches of 100.
    Batches,
    /// 2,000 requests a second with one event each.
    Singles,
    /// 15,000 events a second in batches of 100.
    Peak,
    /// As much as it takes, in batches of 100.
    Saturation,
    /// As much as it takes, one event a request.
    SaturationSingles,
    /// A backlog of large events: memory, start, drain.
    Backlog,
}

/// Runs the benchmark and prints what it measured; succeeds only if the counts are exact.
///
/// # Errors
/// When something can't be started or read, or an event is missing.
pub async fn run(args: GatewayArgs) -> anyhow::Result<()> {
    ensure!(args.seconds > 0, "--seconds is above 0");
    ensure!((1..=20_000).contains(&args.backlog_mb), "--backlog-mb is 1 to 20000");
    super::warn_of_debug_build();
    let stop = shutdown::on_signals()?;
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let has = |part| args.part.is_empty() || args.part.contains(&part);
    let load = |part, name, rate, batch| {
        has(part).then_some(Load {
            name,
            rate,
            batch,
            seconds: args.seconds,
            seed,
            is_saturating: matches!(part, Part::Saturation | Part::SaturationSingles),
        })
    };
    let loads = [
        load(Part::Batches, "batches of 100", 5_000.0, 100),
        load(Part::Singles, "single events", 2_000.0, 1),
        load(Part::Peak, "the peak, batches of 100", 15_000.0, 100),
        load(Part::Saturation, "saturation, batches of 100", 400_000.0, 100),
        load(Part::SaturationSingles, "saturation, single events", 40_000.0, 1),
    ];
    let loads: Vec<Load> = loads.into_iter().flatten().collect();
    if !loads.is_empty() {
        Loads::run(&loads, !args.plain, &stop).await?;
    }
    if has(Part::Backlog) && !stop.is_cancelled() {
        let report = Backlog { bytes: args.backlog_mb * 1_000_000, seed }.run(&stop).await?;
        println!("{report}");
    }
    Ok(())
}
