//! The edge gateway's command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use edge_gateway::config::GatewayConfig;
use edge_gateway::gateway;
use penstock_common::telemetry;

/// Takes events from the devices of a facility, makes them durable, and forwards them.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway until SIGTERM.
    Run {
        /// The configuration (TOML).
        #[arg(long)]
        config: Option<PathBuf>,
        /// Overrides one key, e.g. --set http.listen=127.0.0.1:8080; may be given again.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
}

fn main() -> ExitCode {
    let Command::Run { config, overrides } = Cli::parse().command;
    let run = || -> anyhow::Result<()> {
        let config = GatewayConfig::load(config.as_deref(), &overrides)?;
        telemetry::init(&config.log)?;
        tokio::runtime::Runtime::new()?.block_on(gateway::run(config))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edge-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
