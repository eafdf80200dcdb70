//! The real processes: a gateway and cores, with a topic prefix, databases and a directory of
//! their own, that can be killed and started again on the same ports.

mod authority;
mod config;
mod database;
pub mod kafka;
mod place;
pub mod process;
pub mod relay;
mod s3;
pub mod service;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use self::config::Wiring;
pub use self::config::{CoreConfig, StackConfig};
use self::database::Database;
pub(crate) use self::place::{binary, free_ports};
pub use self::place::{local_dir, repo_dir};
use self::process::Process;
use crate::fleet::Target;
use crate::oracle::Places;
use crate::oracle::api::CoreApi;

/// A running gateway and its cores.
pub struct Stack {
    /// The gateway.
    pub gateway: Process,
    /// The cores, in the order of the configuration.
    pub cores: Vec<Process>,
    /// Where devices post, with the key of the fleet.
    pub gateway_http: Target,
    /// The gateway's health and metrics.
    pub gateway_admin: SocketAddr,
    /// The query API.
    pub api: CoreApi,
    /// The topic prefix.
    pub topic_prefix: String,
    /// Everything of this run: configurations, logs, spool, store.
    pub dir: PathBuf,
    /// The bucket of this run on the S3 server, where there is one.
    pub s3_bucket: Option<String>,
    config: StackConfig,
    catalog: Database,
    rollups: Option<Database>,
}

impl Stack {
    /// Creates directory, databases and topics, and starts all processes.
    ///
    /// # Errors
    /// With the last lines of the log when a process does not become ready.
    pub async fn start(config: StackConfig) -> anyhow::Result<Self> {
        let mut stack = Self::prepare(config).await?;
        for core in &mut stack.cores {
            core.start().await?;
        }
        stack.gateway.start().await?;
        Ok(stack)
    }

    /// Creates directory, databases and topics, and starts nothing.
    ///
    /// # Errors
    /// When something can't be created.
    pub async fn prepare(mut config: StackConfig) -> anyhow::Result<Self> {
        let apis = config.cores.iter().filter(|core| core.has_api()).count();
        ensure!(apis == 1, "{apis} cores have the role api, which listens on one port");
        let run = format!("{}-{:08x}", config.name, rand::random::<u32>());
        let dir = place::local_dir()?.join("runs").join(&run);
        std::fs::create_dir_all(dir.join("store"))
            .with_context(|| format!("create {}", dir.display()))?;
        let issued = if config.tls { Some(authority::issue(&dir)?) } else { None };
        if let Some(issued) = &issued {
            config.gateway_set.push(format!("http.tls.cert_file={:?}", issued.cert_file));
            config.gateway_set.push(format!("http.tls.key_file={:?}", issued.key_file));
        }
        let catalog = Database::create(&config.postgres, &run).await?;
        let rollups = match &config.rollup_postgres {
            Some(server) => Some(Database::create(server, &run).await?),
            None => None,
        };
        let s3_bucket = match &config.s3 {
            Some(endpoint) => Some(s3::create_bucket(endpoint, &run).await?),
            None => None,
        };
        let topic_prefix = config.topic_prefix.clone().unwrap_or_else(|| format!("{run}."));
        let [gateway_http, gateway_admin, api] = place::free_ports()?;
        let wiring = Wiring {
            config: &config,
            dir: &dir,
            topic_prefix: &topic_prefix,
            catalog_dsn: &catalog.dsn,
            rollup_dsn: rollups.as_ref().map(|database| database.dsn.as_str()),
            s3_bucket: s3_bucket.as_deref(),
            api,
            gateway_http,
            gateway_admin,
        };
        let (core_toml, gateway_toml) = (dir.join("core.toml"), dir.join("gateway.toml"));
        write(&core_toml, &wiring.core_toml())?;
        write(&gateway_toml, &wiring.gateway_toml())?;
        let binary = place::binary("cloud-core")?;
        let core = |core: &CoreConfig| {
            Process::new(&dir, &core.name, binary.clone())
                .args(["run", "--role", core.roles.as_str(), "--config"])
                .arg(core_toml.display().to_string())
                .arg("--set")
                .arg(format!("ready_file={:?}", dir.join(format!("{}.ready", core.name))))
                .args(config.core_set.iter().flat_map(|set| ["--set", set.as_str()]))
                .args(core.set.iter().flat_map(|set| ["--set", set.as_str()]))
        };
        let cores = config.cores.iter().map(core).collect();
        let gateway = Process::new(&dir, "gateway", place::binary("edge-gateway")?)
            .args(["run", "--config"])
            .arg(gateway_toml.display().to_string())
            .args(config.gateway_set.iter().flat_map(|set| ["--set", set.as_str()]));
        let mut stack = Self {
            gateway,
            cores,
            gateway_http: gateway_http.into(),
            gateway_admin,
            api: CoreApi { address: api, token: String::new() },
            topic_prefix,
            dir,
            s3_bucket,
            config,
            catalog,
            rollups,
        };
        stack.core_command(&["topics", "apply"]).await?;
        stack.api.token = stack.create_token("oracle", "admin").await?;
        let key = stack.create_key(&stack.config.fleet).await?;
        stack.gateway_http = Target::with_key(gateway_http, &key)?;
        if let Some(issued) = &issued {
            stack.gateway_http = stack.gateway_http.trusting(&issued.ca_file)?;
        }
        stack.write_snapshot().await?;
        Ok(stack)
    }

    /// Makes a key of a fleet; the gateway knows it with the next snapshot.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn create_key(&self, fleet: &str) -> anyhow::Result<String> {
        let said = self.core_command(&["keys", "create", "--fleet", fleet]).await?;
        let key = said.split_whitespace().find(|word| word.starts_with("pfk_"));
        Ok(key.with_context(|| format!("no key in {said:?}"))?.to_owned())
    }

    /// Writes the gateway's snapshot, which it takes within a second or so.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn write_snapshot(&self) -> anyhow::Result<()> {
        let out = self.dir.join(config::SNAPSHOT_FILE).display().to_string();
        self.core_command(&["snapshot", "write", "--out", &out]).await?;
        Ok(())
    }

    /// Makes a token for the API.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn create_token(&self, name: &str, role: &str) -> anyhow::Result<String> {
        let said = self.core_command(&["tokens", "create", "--name", name, "--role", role]).await?;
        let token = said.split_whitespace().find(|word| word.starts_with("pst_"));
        Ok(token.with_context(|| format!("no token in {said:?}"))?.to_owned())
    }

    /// Runs a command of the core (`ledger`, `rebuild`, …) with the stack's configuration, to its
    /// end; what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn core_command(&self, args: &[&str]) -> anyhow::Result<String> {
        let (code, output) = self.core_output(args).await?;
        ensure!(code == Some(0), "cloud-core {args:?} ended with {code:?}\n{output}");
        Ok(output)
    }

    /// The same, whatever its exit code is.
    ///
    /// # Errors
    /// When it can't be run.
    pub async fn core_output(&self, args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let output = tokio::process::Command::new(place::binary("cloud-core")?)
            .args(args)
            .arg("--config")
            .arg(self.dir.join("core.toml"))
            .args(self.config.core_set.iter().flat_map(|set| ["--set", set.as_str()]))
            .output()
            .await
            .with_context(|| format!("run cloud-core {args:?}"))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code(), text))
    }

    /// Runs another program of this workspace to its end; what it printed.
    ///
    /// # Errors
    /// When it is not built, or fails, with what it said.
    pub async fn program(&self, name: &str, args: &[String]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(place::binary(name)?)
            .args(args)
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("run {name}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} {args:?}: {}\n{said}{errors}", output.status);
        Ok(said)
    }

    /// What `edge-gateway check` says of this gateway's configuration, good or bad.
    ///
    /// # Errors
    /// When it can't be run.
    pub async fn gateway_check(&self) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(place::binary("edge-gateway")?)
            .args(["check", "--config"])
            .arg(self.dir.join("gateway.toml"))
            .args(self.config.gateway_set.iter().flat_map(|set| ["--set", set.as_str()]))
            .output()
            .await
            .context("run edge-gateway check")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    /// Where the oracle looks.
    pub fn places(&self) -> Places {
        Places {
            kafka: self.config.kafka.clone(),
            topic_prefix: self.topic_prefix.clone(),
            api: self.api.clone(),
            gateways: vec![self.gateway_admin],
            rollup_dsn: self.rollups.as_ref().unwrap_or(&self.catalog).dsn.clone(),
        }
    }

    /// The database of the catalog.
    pub fn catalog_dsn(&self) -> &str {
        &self.catalog.dsn
    }

    /// Fails when one of the processes that should run has ended by itself.
    ///
    /// # Errors
    /// With its status and the last lines of its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        let processes = self.cores.iter_mut().chain([&mut self.gateway]);
        processes.filter(|process| process.is_running()).try_for_each(Process::check_alive)
    }

    /// Adds the last lines of all logs to an error.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let logs = self.cores.iter().chain([&self.gateway]).map(Process::log_tail);
        let logs = logs.collect::<Vec<_>>().join("\n");
        error.context(format!("everything of this run is in {}\n{logs}", self.dir.display()))
    }

    /// Drains and ends the processes that run; removes what belongs to this run only.
    ///
    /// # Errors
    /// When a process does not end cleanly, or something can't be removed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut ended = Ok(());
        for process in [&mut self.gateway].into_iter().chain(&mut self.cores) {
            if process.is_running() {
                ended = ended.and(process.terminate().await);
            }
        }
        ended.map_err(|error| self.explain(error))?;
        self.catalog.drop().await?;
        if let Some(rollups) = &self.rollups {
            rollups.drop().await?;
        }
        if self.config.topic_prefix.is_none() {
            kafka::delete_topics(&self.config.kafka, &self.topic_prefix).await?;
        }
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
