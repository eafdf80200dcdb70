//! What a stack consists of, and the files that its processes read.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// The gateway's snapshot, in the run's directory.
pub(super) const SNAPSHOT_FILE: &str = "snapshot.json";

/// How the stack is set up.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// What the run's directory and database are called after.
    pub name: String,
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// PostgreSQL, as a superuser that may create databases.
    pub postgres: String,
    /// Another PostgreSQL for the rollups; none: they are in the catalog's database.
    pub rollup_postgres: Option<String>,
    /// An S3 server for the objects; none: they are in the run's directory.
    pub s3: Option<String>,
    /// Topics that are there already and outlive the stack; none: topics of its own.
    pub topic_prefix: Option<String>,
    /// The fleet of the gateway's devices.
    pub fleet: String,
    /// The raw writer's flush interval.
    pub raw_flush_interval: Duration,
    /// Whether devices speak TLS to the gateway.
    pub tls: bool,
    /// More `--set` arguments for the gateway.
    pub gateway_set: Vec<String>,
    /// More `--set` arguments for every core.
    pub core_set: Vec<String>,
    /// The cores. One of them has the role `api`.
    pub cores: Vec<CoreConfig>,
}

/// One core process.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// What its files are called after.
    pub name: String,
    /// Its roles, as `--role` takes them.
    pub roles: String,
    /// Its own `--set` arguments, after those of all cores.
    pub set: Vec<String>,
}

impl CoreConfig {
    /// A core with these roles.
    pub fn new(name: &str, roles: &str) -> Self {
        Self { name: name.to_owned(), roles: roles.to_owned(), set: Vec::new() }
    }

    /// With settings of its own, `key=value`.
    #[must_use]
    pub fn with(mut self, set: &[&str]) -> Self {
        self.set.extend(set.iter().map(|set| (*set).to_owned()));
        self
    }

    pub(super) fn has_api(&self) -> bool {
        self.roles == "all" || self.roles.split(',').any(|role| role == "api")
    }
}

impl StackConfig {
    /// A stack on the services that `./dev` has started, with one core in all roles.
    ///
    /// # Errors
    /// When their addresses are not in the environment.
    pub fn from_env(name: &str) -> anyhow::Result<Self> {
        let var =
            |name| std::env::var(name).with_context(|| format!("{name} is set by ./dev test"));
        Ok(Self {
            name: name.to_owned(),
            kafka: var("PENSTOCK_KAFKA")?,
            postgres: var("PENSTOCK_PG")?,
            rollup_postgres: None,
            s3: None,
            topic_prefix: None,
            fleet: "sim".into(),
            raw_flush_interval: Duration::from_secs(5),
            tls: false,
            gateway_set: Vec::new(),
            core_set: Vec::new(),
            cores: vec![CoreConfig::new("core", "all")],
        })
    }

    /// Makes everything that waits for its hour wait for seconds: windows close, hours are
    /// merged, rebuilt and compacted, and the ledger judges, while a test looks on.
    #[must_use]
    pub fn impatient(mut self) -> Self {
        self.raw_flush_interval = Duration::from_secs(1);
        let quick = [
            "rollup.flush_interval_ms=1000",
            "rollup.provisional_delay_ms=2000",
            "rollup.lateness_ms=15000",
            "rollup.merge_delay_ms=2000",
            "rollup.day_delay_ms=3000",
            "rollup.fleet_delay_ms=2000",
            "rebuild.delay_ms=500",
            "rebuild.poll_ms=200",
            "rebuild.settle_ms=5000",
            "rebuild.lease_ms=20000",
            "compact.interval_ms=2000",
            "compact.files_max=8",
            "deadletter.flush_interval_ms=1000",
            "deadletter.resolve_first_ms=2000",
            "deadletter.resolve_interval_ms=1000",
            "ledger.flush_interval_ms=500",
            "ledger.check_interval_ms=1000",
        ];
        self.core_set.extend(quick.map(String::from));
        self.gateway_set.push("status.interval_ms=1000".into());
        self
    }
}

/// Where the parts of one run are.
pub(super) struct Wiring<'a> {
    pub(super) config: &'a StackConfig,
    pub(super) dir: &'a Path,
    pub(super) topic_prefix: &'a str,
    pub(super) catalog_dsn: &'a str,
    pub(super) rollup_dsn: Option<&'a str>,
    pub(super) s3_bucket: Option<&'a str>,
    pub(super) api: SocketAddr,
    pub(super) gateway_http: SocketAddr,
    pub(super) gateway_admin: SocketAddr,
}

impl Wiring<'_> {
    /// The configuration that all cores share.
    pub(super) fn core_toml(&self) -> String {
        let mut text = format!(
            "[kafka]\nbootstrap = {kafka:?}\ntopic_prefix = {prefix:?}\n\
             [catalog]\ndsn = {dsn:?}\n\
             [raw]\nflush_interval_ms = {flush_ms}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"{api}\"\n\
             requests_per_second = 1000000.0\nrequests_burst = 1000000\n",
            kafka = self.config.kafka,
            prefix = self.topic_prefix,
            dsn = self.catalog_dsn,
            flush_ms = self.config.raw_flush_interval.as_millis(),
            api = self.api,
        );
        if let Some(dsn) = self.rollup_dsn {
            put(&mut text, format_args!("[rollup]\ndsn = {dsn:?}\n"));
        }
        match (&self.config.s3, self.s3_bucket) {
            (Some(endpoint), Some(bucket)) => put(
                &mut text,
                format_args!(
                    "[store]\nurl = \"s3://{bucket}\"\n[store.s3]\nendpoint = {endpoint:?}\n\
                     region = \"us-east-1\"\naccess_key_id = \"test\"\n\
                     secret_access_key = \"test\"\nallow_http = true\n",
                ),
            ),
            _ => {
                let url = format!("file://{}", self.dir.join("store").display());
                put(&mut text, format_args!("[store]\nurl = {url:?}\n"));
            }
        }
        text
    }

    /// The gateway's configuration.
    pub(super) fn gateway_toml(&self) -> String {
        format!(
            "ready_file = {ready:?}\n[gateway]\nname = \"gw-1\"\nfleet = {fleet:?}\n\
             [http]\nlisten = \"{http}\"\n[admin]\nlisten = \"{admin}\"\n\
             [snapshot]\nfile = {snapshot:?}\n[spool]\ndir = {spool:?}\n[kafka]\nbootstrap = {kafka:?}\n\
             topic_prefix = {prefix:?}\n{DEAD_LETTERS}",
            ready = self.dir.join("gateway.ready"),
            fleet = self.config.fleet,
            http = self.gateway_http,
            admin = self.gateway_admin,
            snapshot = self.dir.join(SNAPSHOT_FILE),
            spool = self.dir.join("spool"),
            kafka = self.config.kafka,
            prefix = self.topic_prefix,
        )
    }
}

/// The oracle looks for every rejection, and simulated devices make many.
const DEAD_LETTERS: &str =
    "[dead_letters]\ndevice_burst = 1000000\ntotal_burst_bytes = 1073741824\n";

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    // A String takes every write.
    let _ = text.write_fmt(more);
}
