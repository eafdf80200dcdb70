//! `cloud-core`: arguments, configuration, telemetry, run, exit code.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use cloud_core::bus::{kafka::KafkaAdmin, topics};
use cloud_core::config::CoreConfig;
use cloud_core::role::{self, Roles};
use penstock_common::{shutdown, telemetry};

#[derive(Parser)]
#[command(version, about = "Penstock's cloud core")]
enum Command {
    /// Runs roles until SIGTERM.
    Run {
        /// `all`, or some of `raw,api`.
        #[arg(long, default_value = "all")]
        role: Roles,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Looks after the topics of the bus.
    #[command(subcommand)]
    Topics(Topics),
}

#[derive(Subcommand)]
enum Topics {
    /// Creates the topics and brings their settings in line.
    Apply {
        /// Only says what it would do.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Args)]
struct ConfigArgs {
    /// A TOML file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Sets one key on top of it, e.g. --set raw.flush_interval_ms=1000.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Run { role, config } => {
            let config = load(&config)?;
            role::run(config, role, shutdown::on_signals()?).await
        }
        Command::Topics(Topics::Apply { dry_run, config }) => apply(load(&config)?, dry_run).await,
    }
}

fn load(args: &ConfigArgs) -> anyhow::Result<CoreConfig> {
    let config = CoreConfig::load(args.config.as_deref(), &args.set)?;
    telemetry::init(&config.log)?;
    Ok(config)
}

async fn apply(config: CoreConfig, dry_run: bool) -> anyhow::Result<()> {
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
