//! A fleet against a gateway that is already there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use penstock_common::shutdown;

use crate::demo::progress::Progress;
use crate::fleet::{self, FleetConfig, Tally, Target};

/// `hw-tests simulate`.
#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// The gateway's address.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub gateway: SocketAddr,
    /// The key of the fleet; or in the environment, as PENSTOCK_FLEET_KEY, where nobody sees it.
    /// Without any, the gateway must ask for none.
    #[arg(long)]
    pub key: Option<String>,
    /// How many devices.
    #[arg(long, default_value_t = 200)]
    pub devices: u32,
    /// Events a second, over all devices.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// End after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Everything but the clock follows from it; random when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs until the time is up, or Ctrl-C.
///
/// # Errors
/// When the gateway answers what the contract doesn't know.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let stop = shutdown::on_signals()?;
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let tally = Arc::new(Tally::default());
    if let Some(seconds) = args.seconds {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            stop.cancel();
        });
    }
    let config = FleetConfig {
        resolve_within: Duration::from_secs(10),
        ..FleetConfig::mixed(seed, args.devices, args.rate)
    };
    let key = args.key.clone().or_else(|| std::env::var("PENSTOCK_FLEET_KEY").ok());
    let gateway = match &key {
        Some(key) => Target::with_key(args.gateway, key)?,
        None => args.gateway.into(),
    };
    let progress = Progress::start(Arc::clone(&tally), None);
    let told = fleet::run(config, gateway, Arc::clone(&tally), stop).await;
    progress.end().await;
    println!("rejected, by reason:");
    for (reason, count) in told.reasons() {
        println!("  {count:>8}  {reason}");
    }
    tally.check()
}
