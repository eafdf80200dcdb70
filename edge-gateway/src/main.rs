//! The edge gateway's command line.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;
use edge_gateway::config::GatewayConfig;
use edge_gateway::{check, gateway, spool_tool};
use penstock_common::telemetry;

use self::cli::{Cli, Command, ConfigArgs};

/// Records are made in one thread and dropped in another: with glibc's own, an eighth of the time
/// went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run { config, print_config } => run(&config, print_config),
        Command::Check { config, json } => check(&config, json),
        Command::Spool(command) => {
            spool_tool::run(&command, &mut std::io::stdout()).map(ExitCode::from)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("edge-gateway: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(args: &ConfigArgs, print_config: bool) -> anyhow::Result<ExitCode> {
    let config = GatewayConfig::load(args.config.as_deref(), &args.overrides)?;
    if print_config {
        print!("{}", penstock_common::config::print(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::init(&config.log)?;
    tokio::runtime::Runtime::new()?.block_on(gateway::run(config))?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &ConfigArgs, json: bool) -> anyhow::Result<ExitCode> {
    let report = check::run(args.config.as_deref(), &args.overrides);
    match json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.text()),
    }
    Ok(ExitCode::from(report.exit_code))
}
