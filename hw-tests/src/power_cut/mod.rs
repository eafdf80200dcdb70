//! The power-cut rig (spec I5, I7, O7): a real kernel with a real file system runs the real
//! gateway on a disk that loses what was not flushed, and its power is cut again and again, on the
//! same disk. Meanwhile a fleet posts events and remembers what was acknowledged. In the end the
//! spool drains into Kafka, and the oracle compares.
//!
//! - [`disk`] is the disk: an NBD server with a volatile write cache.
//! - [`guest`] is the machine: QEMU, killed at the cut.
//! - `plan` draws when the power goes, `config` is what the gateway is given.
//! - `numbers` looks for gaps, whatever the devices were told.
//! - `rig` puts them together, `report` says what came of it.
//!
//! The guest's image is made by `hw-tests/power-cut/guest`.

mod config;
pub mod disk;
pub mod guest;
mod medium;
mod numbers;
mod plan;
mod report;
mod rig;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use self::guest::Arch;
pub use self::report::Report;
use self::rig::Rig;
use crate::fleet::{self, FleetConfig, Tally};
use crate::stack::repo_dir;

/// `hw-tests power-cut`.
#[derive(Args, Clone, Debug)]
pub struct PowerCutArgs {
    /// How often the power is cut.
    #[arg(long, default_value_t = 100)]
    pub cuts: u32,
    /// The guest's processor.
    #[arg(long, value_enum, default_value = "x86_64")]
    pub arch: Arch,
    /// Draws the plan and the losses; random when not given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The gateway's syncs do nothing: loss must be found, or the rig is worth nothing.
    #[arg(long)]
    pub lie: bool,
    /// The gateway's program for the guest's processor; this build's when not given.
    #[arg(long)]
    pub gateway: Option<PathBuf>,
    /// How many devices.
    #[arg(long, default_value_t = 30)]
    pub devices: u32,
    /// Events a second, over all devices. While the guest is away, they gather.
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// The most events that a life acknowledges before its cut is due.
    #[arg(long, default_value_t = 1500)]
    pub load_events_max: u64,
}

/// Cuts, drains, compares; succeeds if nothing was lost, or with `--lie` if loss was found.
///
/// # Errors
/// When the verdict is another, too little happened to tell, or something can't be started.
pub async fn run(args: PowerCutArgs) -> anyhow::Result<()> {
    let report = cut(&args).await?;
    println!("{report}");
    report.check(args.lie)
}

/// Does everything but judging.
///
/// # Errors
/// When something can't be started, or the guest fails: a disk that can't be mounted any more, a
/// gateway that does not start or ends.
pub async fn cut(args: &PowerCutArgs) -> anyhow::Result<Report> {
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("--seed {seed}");
    let mut rig = Rig::set_up(args, seed).await?;
    let report = runs(args, seed, &mut rig).await;
    let report = report.with_context(|| {
        format!("--seed {seed}; everything of this run is in {}", rig.dir().display())
    })?;
    let verdict = report.check(args.lie);
    rig.clean_up(verdict.is_ok()).await?;
    Ok(report)
}

async fn runs(args: &PowerCutArgs, seed: u64, rig: &mut Rig) -> anyhow::Result<Report> {
    let tally = Arc::new(Tally::default());
    let stop = CancellationToken::new();
    let config = FleetConfig {
        fleet: config::FLEET.into(),
        // Full batches at the same time: a commit group is then many pieces, and can be torn.
        connections_max: 16,
        // What a cut leaves open is tried again at once, so that every life is under load.
        request_timeout: Duration::from_secs(5),
        retry_max: Duration::from_millis(300),
        // The guest is slow, and it has what gathered meanwhile to take.
        resolve_within: Duration::from_secs(300),
        ..FleetConfig::mixed(seed, args.devices, args.rate)
    };
    let load = tokio::spawn(fleet::run(config, rig.http(), Arc::clone(&tally), stop.clone()));
    let done = rig.cut_all(args, &tally).await;
    stop.cancel();
    let (counted, guest) = done?;
    let told = load.await.context("the fleet")?;
    let report = rig.judge(counted, guest, &told).await?;
    tally.check()?;
    Ok(report)
}

/// The scripts and files of the rig.
fn scripts() -> anyhow::Result<PathBuf> {
    Ok(repo_dir()?.join("hw-tests/power-cut"))
}
