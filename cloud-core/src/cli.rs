//! The command line.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

use crate::bus::{kafka::KafkaAdmin, topics};
use crate::config::CoreConfig;
use crate::role::Roles;

/// What the process is asked to do.
#[derive(Debug, Parser)]
#[command(version, about = "Penstock's cloud core")]
pub enum Command {
    /// Runs roles until SIGTERM.
    Run {
        /// `all`, or some of `raw,compact,api`.
        #[arg(long, default_value = "all")]
        role: Roles,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Looks after the topics of the bus.
    #[command(subcommand)]
    Topics(Topics),
}

/// About topics.
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Creates the topics and brings their settings in line.
    Apply {
        /// Only says what it would do.
        #[arg(long)]
        dry_run: bool,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Sets one key on top of it, e.g. --set raw.flush_interval_ms=1000.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `topics apply`.
///
/// # Errors
/// When Kafka is away or refuses, or a topic needs a decision.
pub async fn apply(config: CoreConfig, dry_run: bool) -> anyhow::Result<()> {
    let kafka = &config.kafka;
    let plans = topics::plans(&kafka.topic_prefix, kafka.replication, kafka.min_insync_replicas);
    let report = topics::apply(&KafkaAdmin::open(kafka)?, &plans, dry_run).await?;
    for line in &report.lines {
        println!("{line}");
    }
    match report.refused {
        0 => Ok(()),
        refused => bail!("{refused} topics need a decision"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_as_documented() {
        let parse = |text: &str| Command::try_parse_from(text.split(' '));
        let run = parse("core run --role raw,api --config x.toml --set a=1 --set b.c=2").unwrap();
        let Command::Run { role, config } = run else { panic!("{run:?}") };
        assert_eq!(role, "raw,api".parse().unwrap());
        assert_eq!(config.set, ["a=1", "b.c=2"]);
        assert!(parse("core topics apply --dry-run --config x.toml").is_ok());
        assert!(parse("core run --role cook").is_err());
    }
}
