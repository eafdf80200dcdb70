//! The whole pipeline on one machine, a simulated fleet on top, and the oracle's verdict.

pub(crate) mod progress;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use penstock_common::shutdown;
use tokio_util::sync::CancellationToken;

use self::progress::Progress;
use crate::fleet::{self, FleetConfig, Tally};
use crate::oracle::{self, checker::Tolerance};
use crate::stack::{Stack, StackConfig};

/// `hw-tests demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// End after so many seconds; without it, at Ctrl-C.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// How many devices.
    #[arg(long, default_value_t = 200)]
    pub devices: u32,
    /// Events a second, over all devices.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// Everything but the clock follows from it; random when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs the demo; succeeds only if the oracle's verdict holds.
///
/// # Errors
/// When something can't be started, or the verdict does not hold.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let stop = shutdown::on_signals()?;
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("Starting a core and a gateway ...");
    let mut stack = tokio::select! {
        stack = Stack::start(StackConfig::from_env("demo")?.impatient()) => stack?,
        () = stop.cancelled() => return Ok(()),
    };
    let token = stack.create_token("demo", "analyst").await?;
    println!("{}", where_to_look(&stack, &token, args.devices, args.rate, seed));
    match judged_run(&args, seed, &mut stack, stop).await {
        Ok(()) => stack.stop().await,
        Err(error) => Err(stack.explain(error)),
    }
}

async fn judged_run(
    args: &DemoArgs,
    seed: u64,
    stack: &mut Stack,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let tally = Arc::new(Tally::default());
    if let Some(seconds) = args.seconds {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            stop.cancel();
        });
    }
    let progress = Progress::start(Arc::clone(&tally), Some(stack.api.clone()));
    let config = FleetConfig::mixed(seed, args.devices, args.rate);
    let told = fleet::run(config, stack.gateway_http, Arc::clone(&tally), stop).await;
    progress.end().await;
    println!("\nThe devices have stopped. The oracle waits until everything has drained, then");
    println!("compares what each device was told with what is stored (Ctrl-C skips this) ...");
    stack.check_alive()?;
    let tolerance = Tolerance { foreign_devices: true, ..Tolerance::default() };
    let proof = oracle::prove(&stack.places(), &told, tolerance).await?;
    println!("\n{proof}");
    tally.check()
}

fn where_to_look(stack: &Stack, token: &str, devices: u32, rate: f64, seed: u64) -> String {
    let now = SystemClock.now();
    let hour_ago = UnixMicros(now.0 - 3_600_000_000).to_rfc3339();
    let hour_ahead = UnixMicros(now.0 + 3_600_000_000).to_rfc3339();
    let now = now.to_rfc3339();
    let (http, admin, api, dir) =
        (stack.gateway_http, stack.gateway_admin, stack.api.address, stack.dir.display());
    let key = http.key().unwrap_or_default();
    format!(
        r#"
{devices} simulated devices now send {rate} events/s (seed {seed}). Meanwhile, in another terminal:

  Post an event of your own (the gateway answers once it is safe on its disk):
    curl -i http://{http}/v1/events -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"event_id":"'$(cat /proc/sys/kernel/random/uuid)'","device_id":"my-press","device_firmware_version":"1.2.0","timestamp":"{now}","metrics":{{"cpu_temp":48.5,"vibration_rms":2.1,"supply_voltage":24.0}}}}'
  Look at the dashboard, and sign in with this token:
    http://{api}/#/live?fleet=sim&device=sim-00000
    {token}
  Read your event back as an analyst, a few seconds later:
    curl -H 'Authorization: Bearer {token}' 'http://{api}/v1/raw?device=my-press&from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z'
  The last hour of a simulated device, by the minute:
    curl -H 'Authorization: Bearer {token}' 'http://{api}/v1/series?fleet=sim&device=sim-00000&metric=cpu_temp&from={hour_ago}&to={hour_ahead}&resolution=1m'
  What became of everything:
    curl -H 'Authorization: Bearer {token}' http://{api}/v1/ledger
  The gateway's health and metrics:
    curl -i http://{admin}/readyz
    curl http://{admin}/metrics

  Configurations, logs, the spool and the Parquet files: {dir}
  Ctrl-C stops the devices and lets the oracle judge; a second one stops at once.
"#
    )
}
