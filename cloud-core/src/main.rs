//! `cloud-core`: arguments, configuration, telemetry, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use cloud_core::cli::access::{groups, tokens};
use cloud_core::cli::fleets::{SnapshotCommand, fleets, keys, write};
use cloud_core::cli::{Command, ConfigArgs, Topics, apply, ledger, rebuild};
use cloud_core::config::CoreConfig;
use cloud_core::role;
use penstock_common::{shutdown, telemetry};

/// Millions of records of all sizes come and go between threads: glibc's own took a fifth of the
/// time and kept what it had freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Run { role, config } => {
            role::run(load(&config)?, role, shutdown::on_signals()?).await?;
        }
        Command::Ledger { from, to, gateway, json, config } => {
            let given = [("from", from), ("to", to), ("gateway", gateway)];
            let of = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?));
            let parameters = given.into_iter().filter_map(of).collect();
            let is_whole = ledger(load(&config)?, parameters, json).await?;
            return Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Rebuild(asked) => rebuild(load(&asked.config)?, asked).await?,
        Command::Tokens(command) => tokens(&load(command.config())?, command).await?,
        Command::Groups(command) => groups(&load(command.config())?, command).await?,
        Command::Keys(command) => keys(&load(command.config())?, command).await?,
        Command::Fleets(command) => fleets(&load(command.config())?, command).await?,
        Command::Snapshot(SnapshotCommand::Write(asked)) => {
            write(&load(&asked.config)?, asked).await?;
        }
        Command::Topics(Topics::Apply { dry_run, config }) => {
            apply(load(&config)?, dry_run).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load(args: &ConfigArgs) -> anyhow::Result<CoreConfig> {
    let config = CoreConfig::load(args.config.as_deref(), &args.set)?;
    telemetry::init(&config.log)?;
    Ok(config)
}
