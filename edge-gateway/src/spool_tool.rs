//! `edge-gateway spool …`: the spool on a bench or in a cabinet.
//!
//! Exit codes: 0, all is well; 2, something is damaged or can't be read (it is listed); 1, the
//! command could not do its work.

mod export;
mod stat;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::config::GatewayConfig;
use crate::spool::offline::{self, Owner};
use crate::spool::{SpoolConfig, keys};

/// Looks at the spool of a gateway, without changing it.
#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// How full it is, what waits, and what is wrong. Works while the gateway runs.
    Stat(Place),
    /// Reads every event and checks it. The gateway must be stopped.
    Verify(Place),
    /// Writes the events that are not forwarded as JSON lines. The gateway must be stopped.
    Export {
        /// Which spool.
        #[command(flatten)]
        place: Place,
        /// The file to write; standard output if it is not given.
        #[arg(long)]
        output: Option<PathBuf>,
        /// Events that were forwarded, but whose file is still there, too.
        #[arg(long)]
        all: bool,
    },
    /// Adds a key to the key file: the next start encrypts with it.
    NewKey(Place),
}

/// Which spool.
#[derive(Debug, Args)]
pub struct Place {
    /// The gateway's configuration (TOML).
    #[arg(long)]
    config: Option<PathBuf>,
    /// Overrides one key of it, e.g. --set spool.dir=/mnt/spool; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// The spool's directory, without any configuration.
    #[arg(long, conflicts_with_all = ["config", "overrides"])]
    dir: Option<PathBuf>,
    /// The key file, where it is not in that directory.
    #[arg(long, requires = "dir")]
    key_file: Option<PathBuf>,
}

impl Place {
    fn config(&self) -> anyhow::Result<SpoolConfig> {
        match &self.dir {
            Some(dir) => Ok(SpoolConfig {
                dir: dir.clone(),
                key_file: self.key_file.clone(),
                ..SpoolConfig::default()
            }),
            None => {
                let config = GatewayConfig::load(self.config.as_deref(), &self.overrides);
                let hint = "give --config FILE of the gateway, or --dir DIRECTORY of the spool";
                Ok(config.context(hint)?.spool)
            }
        }
    }
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing wrong.
    Well,
    /// Something is damaged or can't be read.
    Trouble,
}

impl From<Found> for ExitCode {
    fn from(found: Found) -> Self {
        match found {
            Found::Well => Self::SUCCESS,
            Found::Trouble => Self::from(2),
        }
    }
}

/// Runs a command; what it says goes to `out`.
///
/// # Errors
/// When it can't do its work.
pub fn run(command: &SpoolCommand, out: &mut dyn std::io::Write) -> anyhow::Result<Found> {
    match command {
        SpoolCommand::Stat(place) => stat::run(&place.config()?, out),
        SpoolCommand::Verify(place) => {
            let config = place.config()?;
            let _lock = stopped(&config)?;
            verify::run(&config, out)
        }
        SpoolCommand::Export { place, output, all } => {
            let config = place.config()?;
            let _lock = stopped(&config)?;
            export::run(&config, output.as_deref(), *all, out)
        }
        SpoolCommand::NewKey(place) => {
            let path = place.config()?.key_file();
            let id = keys::add(&path)?;
            writeln!(
                out,
                "The key {id} is in {}. Keep a copy of the file elsewhere, and restart the \
                 gateway: from then on it encrypts with this key. Older keys stay in the file \
                 until `edge-gateway spool stat` no longer lists them.",
                path.display()
            )?;
            Ok(Found::Well)
        }
    }
}

/// Keeps gateways out for as long as the result is held.
fn stopped(config: &SpoolConfig) -> anyhow::Result<Option<std::fs::File>> {
    match offline::owner(&config.dir)? {
        Owner::Nobody(lock) => Ok(lock),
        Owner::Gateway(process) => bail!(
            "a gateway (process {process}) has the spool in {} open: stop it first; \
             `edge-gateway spool stat` works while it runs",
            config.dir.display()
        ),
    }
}

#[cfg(test)]
mod tests;
