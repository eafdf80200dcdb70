//! `cloud-core`: arguments, configuration, telemetry, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use cloud_core::cli::{Command, ConfigArgs, Topics, apply, rebuild};
use cloud_core::config::CoreConfig;
use cloud_core::role;
use penstock_common::{shutdown, telemetry};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Run { role, config } => {
            let config = load(&config)?;
            role::run(config, role, shutdown::on_signals()?).await
        }
        Command::Rebuild(asked) => rebuild(load(&asked.config)?, asked).await,
        Command::Topics(Topics::Apply { dry_run, config }) => apply(load(&config)?, dry_run).await,
    }
}

fn load(args: &ConfigArgs) -> anyhow::Result<CoreConfig> {
    let config = CoreConfig::load(args.config.as_deref(), &args.set)?;
    telemetry::init(&config.log)?;
    Ok(config)
}
