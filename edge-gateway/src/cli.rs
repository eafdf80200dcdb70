//! What the program can be told on its command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use edge_gateway::spool_tool::SpoolCommand;

/// Takes events from the devices of a facility, makes them durable, and forwards them.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs the gateway until SIGTERM.
    Run {
        #[command(flatten)]
        config: ConfigArgs,
        /// Prints the effective configuration, without secrets, and ends.
        #[arg(long)]
        print_config: bool,
    },
    /// Tries everything that the gateway needs, and says what to do where something is wrong.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Looks at the spool, checks it, gets events out of it, or adds a key.
    #[command(subcommand)]
    Spool(SpoolCommand),
}

#[derive(Args)]
pub(crate) struct ConfigArgs {
    /// The configuration (TOML).
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Overrides one key, e.g. --set http.listen=127.0.0.1:8080; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}
