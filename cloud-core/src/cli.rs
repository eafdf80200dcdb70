//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;

use crate::api;
use crate::bus::{kafka::KafkaAdmin, topics};
use crate::config::CoreConfig;
use crate::failpoint::Failpoints;
use crate::ledger::answer::ask;
use crate::role::Roles;
use crate::store::ledger::LedgerStore;
use crate::store::postgres;
use crate::store::rollup::RollupStore;
use crate::store::rollup::request::Whose;

pub mod access;
pub mod fleets;

use access::{GroupsCommand, Tokens};
use fleets::{Fleets, Keys, SnapshotCommand};

/// How often `--wait` looks.
const POLL: Duration = Duration::from_millis(500);

/// What the process is asked to do.
#[derive(Debug, Parser)]
#[command(version, about = "Penstock's cloud core")]
pub enum Command {
    /// Runs roles until SIGTERM.
    Run {
        /// `all`, or some of `raw,compact,rollup,rebuild,deadletter,ledger,api`.
        #[arg(long, default_value = "all")]
        role: Roles,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Says what became of everything that gateways received; exits with 1 when something is
    /// missing.
    Ledger {
        /// Only what was received from then on (RFC 3339).
        #[arg(long)]
        from: Option<String>,
        /// Only what was received before then (RFC 3339).
        #[arg(long)]
        to: Option<String>,
        /// Only this gateway.
        #[arg(long)]
        gateway: Option<String>,
        /// As JSON, the body of `GET /v1/ledger`.
        #[arg(long)]
        json: bool,
        /// The configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Asks for rollups to be computed again from the raw events.
    Rebuild(Rebuild),
    /// Looks after the topics of the bus.
    #[command(subcommand)]
    Topics(Topics),
    /// Makes, lists and revokes the tokens of the API.
    #[command(subcommand)]
    Tokens(Tokens),
    /// Imports and lists the device groups.
    #[command(subcommand)]
    Groups(GroupsCommand),
    /// Makes, lists and revokes the keys that fleets of devices send with.
    #[command(subcommand)]
    Keys(Keys),
    /// Lists fleets, and limits what they may send.
    #[command(subcommand)]
    Fleets(Fleets),
    /// Makes the file that gateways work from.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// Which rollups.
#[derive(Debug, Args)]
pub struct Rebuild {
    /// Begin of the range, RFC 3339; whole hours are rebuilt.
    #[arg(long)]
    pub from: String,
    /// Its end, not included.
    #[arg(long)]
    pub to: String,
    /// One fleet only.
    #[arg(long)]
    pub fleet: Option<String>,
    /// One device only.
    #[arg(long)]
    pub device: Option<String>,
    /// Waits until it is done, and says how many rows changed.
    #[arg(long)]
    pub wait: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
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

/// `ledger`: prints the answer; whether nothing is missing.
///
/// # Errors
/// When the question can't be understood, or the catalog is away.
pub async fn ledger(
    config: CoreConfig,
    parameters: Vec<(String, String)>,
    json: bool,
) -> anyhow::Result<bool> {
    let question = match api::ledger::parse(&parameters) {
        Ok(question) => question,
        Err(problems) => bail!("{}", problems.join("\n")),
    };
    let store = LedgerStore::new(postgres::pool(&config.catalog)?);
    let silent_after_ms = config.ledger.silent_after_ms;
    let answer = ask(&store, &question, SystemClock.now(), silent_after_ms).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        print!("{}", answer.to_text());
    }
    Ok(answer.total.missing == 0)
}

/// `rebuild`.
///
/// # Errors
/// When the range is none, or the rollups' database is away.
pub async fn rebuild(config: CoreConfig, asked: Rebuild) -> anyhow::Result<()> {
    let time = |name: &str, text: &str| {
        let time = UnixMicros::parse_rfc3339(text);
        time.with_context(|| format!("read --{name} {text:?}: want e.g. 2026-01-31T08:00:00Z"))
    };
    let (from, to) = (time("from", &asked.from)?.0, time("to", &asked.to)?.0);
    if from >= to {
        bail!("--from must be before --to, which is not included");
    }
    let rollups = RollupStore::open(&config.rollup, &config.catalog.dsn, Failpoints::default())?;
    rollups.migrate().await?;
    let whose = Whose { fleet: asked.fleet, device: asked.device };
    let request = rollups.request_rebuild(from, to, &whose).await?;
    println!("request {request}: a core with the role rebuild works on it");
    if asked.wait {
        wait(&rollups, request).await?;
    }
    Ok(())
}

async fn wait(rollups: &RollupStore, request: i64) -> anyhow::Result<()> {
    loop {
        let state = rollups.request_state(request).await?.context("the request is gone")?;
        if state.done {
            println!(
                "request {request} is done: {} hours of devices, {} rows changed, {} deleted; \
                 hours and days follow; {} hours were too old",
                state.marks, state.rows_changed, state.rows_deleted, state.hours_refused
            );
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
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
        assert!(parse("core ledger --from x --to y --gateway g --json --set a=1").is_ok());
        assert!(parse("core run --role cook").is_err());
        let range = "--from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z";
        assert!(parse(&format!("core rebuild {range} --fleet f --device d --wait")).is_ok());
        assert!(parse("core rebuild --from 2026-01-01T00:00:00Z").is_err());
        assert!(parse("core tokens create --name ann --role viewer --days 30").is_ok());
        assert!(parse("core tokens create --name ann --role root").is_err());
        assert!(parse("core groups import g.csv --patch --config x.toml").is_ok());
        assert!(parse("core keys create --fleet f --days 90").is_ok());
        assert!(parse("core keys create --fleet f --days 90 --expires x").is_err());
        assert!(parse("core fleets limit --fleet f --events-per-second 5").is_err());
        assert!(
            parse("core fleets limit --fleet f --events-per-second 5 --events-burst 9").is_ok()
        );
        assert!(parse("core snapshot write --out s.json --fleet a --fleet b --every 5").is_ok());
    }
}
