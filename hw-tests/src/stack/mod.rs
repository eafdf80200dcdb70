//! The real processes: a gateway and a core, with a topic prefix, a database and a directory of
//! their own, that can be killed and started again on the same ports.

mod database;
pub mod kafka;
mod place;
pub mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

pub use self::place::{local_dir, repo_dir};
use self::process::Process;
use crate::oracle::Places;

/// How the stack is set up.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// What the run's directory and database are called after.
    pub name: String,
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// PostgreSQL, as a superuser that may create databases.
    pub postgres: String,
    /// The fleet of the gateway's devices.
    pub fleet: String,
    /// The raw writer's flush interval.
    pub raw_flush_interval: Duration,
    /// More `--set` arguments for the gateway.
    pub gateway_set: Vec<String>,
    /// More `--set` arguments for the core.
    pub core_set: Vec<String>,
}

impl StackConfig {
    /// A stack on the services that `./dev` has started.
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
            fleet: "sim".into(),
            raw_flush_interval: Duration::from_secs(5),
            gateway_set: Vec::new(),
            core_set: Vec::new(),
        })
    }
}

/// A running gateway and core.
pub struct Stack {
    /// The gateway.
    pub gateway: Process,
    /// The core, in all roles of the pipeline.
    pub core: Process,
    /// Where devices post.
    pub gateway_http: SocketAddr,
    /// The gateway's health and metrics.
    pub gateway_admin: SocketAddr,
    /// The query API.
    pub api: SocketAddr,
    /// The topic prefix.
    pub topic_prefix: String,
    /// Everything of this run: configurations, logs, spool, store.
    pub dir: PathBuf,
    config: StackConfig,
    database: database::Database,
}

impl Stack {
    /// Creates directory, database and topics, and starts both processes.
    ///
    /// # Errors
    /// With the last lines of the log when a process does not become ready.
    pub async fn start(config: StackConfig) -> anyhow::Result<Self> {
        let run = format!("{}-{:08x}", config.name, rand::random::<u32>());
        let dir = place::local_dir()?.join("runs").join(&run);
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let database = database::Database::create(&config.postgres, &run).await?;
        let topic_prefix = format!("{run}.");
        let [gateway_http, gateway_admin, api] = place::free_ports()?;

        let core_config = dir.join("core.toml");
        let flush_ms = config.raw_flush_interval.as_millis();
        write(
            &core_config,
            &format!(
                "ready_file = {ready:?}\n[kafka]\nbootstrap = {kafka:?}\n\
                 topic_prefix = {topic_prefix:?}\n[catalog]\ndsn = {dsn:?}\n\
                 [store]\nurl = {store:?}\n[raw]\nflush_interval_ms = {flush_ms}\n\
                 [api]\nlisten = \"{api}\"\n",
                ready = dir.join("core.ready"),
                kafka = config.kafka,
                dsn = database.dsn,
                store = format!("file://{}", dir.join("store").display()),
            ),
        )?;
        std::fs::create_dir_all(dir.join("store")).context("create the store's directory")?;
        let gateway_config = dir.join("gateway.toml");
        write(
            &gateway_config,
            &format!(
                "ready_file = {ready:?}\n[gateway]\nname = \"gw-1\"\nfleet = {fleet:?}\n\
                 [http]\nlisten = \"{gateway_http}\"\n[admin]\nlisten = \"{gateway_admin}\"\n\
                 [spool]\ndir = {spool:?}\n[kafka]\nbootstrap = {kafka:?}\n\
                 topic_prefix = {topic_prefix:?}\n",
                ready = dir.join("gateway.ready"),
                fleet = config.fleet,
                spool = dir.join("spool"),
                kafka = config.kafka,
            ),
        )?;
        let core = Process::new(&dir, "core", place::binary("cloud-core")?)
            .args(["run", "--role", "raw,api", "--config"])
            .arg(core_config.display().to_string())
            .args(config.core_set.iter().flat_map(|set| ["--set", set.as_str()]));
        let gateway = Process::new(&dir, "gateway", place::binary("edge-gateway")?)
            .args(["run", "--config"])
            .arg(gateway_config.display().to_string())
            .args(config.gateway_set.iter().flat_map(|set| ["--set", set.as_str()]));
        let mut stack = Self {
            gateway,
            core,
            gateway_http,
            gateway_admin,
            api,
            topic_prefix,
            dir,
            config,
            database,
        };
        stack.topics_apply(&core_config).await?;
        stack.core.start().await?;
        stack.gateway.start().await?;
        Ok(stack)
    }

    async fn topics_apply(&self, core_config: &Path) -> anyhow::Result<()> {
        let output = tokio::process::Command::new(place::binary("cloud-core")?)
            .args(["topics", "apply", "--config"])
            .arg(core_config)
            .output()
            .await
            .context("run cloud-core topics apply")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cloud-core topics apply: {}\n{stderr}", output.status);
        Ok(())
    }

    /// Where the oracle looks.
    pub fn places(&self) -> Places {
        Places {
            kafka: self.config.kafka.clone(),
            topic_prefix: self.topic_prefix.clone(),
            api: self.api,
            gateways: vec![self.gateway_admin],
        }
    }

    /// Adds the last lines of both logs to an error.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let logs = [&self.gateway, &self.core].map(Process::log_tail).join("\n");
        error.context(format!("everything of this run is in {}\n{logs}", self.dir.display()))
    }

    /// Drains and ends both processes; removes what belongs to this run only.
    ///
    /// # Errors
    /// When a process does not end cleanly, or something can't be removed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let gateway = self.gateway.terminate().await;
        let core = self.core.terminate().await;
        gateway.and(core).map_err(|error| self.explain(error))?;
        self.database.drop().await?;
        kafka::delete_topics(&self.config.kafka, &self.topic_prefix).await?;
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
