//! A private Kafka, PostgreSQL, S3 server or MQTT broker of one test's own, to be stopped and started under
//! load: other tests share the usual ones.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal};

use super::repo_dir;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The broker.
    Kafka,
    /// The database.
    Postgres,
    /// The object store; it keeps everything in memory.
    S3,
    /// The MQTT broker.
    Mosquitto,
}

impl Kind {
    const fn folder(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::S3 => "s3",
            Self::Mosquitto => "mosquitto",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::Kafka => "PENSTOCK_KAFKA",
            Self::Postgres => "PENSTOCK_PG",
            Self::S3 => "PENSTOCK_S3_ENDPOINT",
            Self::Mosquitto => "PENSTOCK_MQTT",
        }
    }
}

/// How a server goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// As for maintenance.
    Shutdown,
    /// As in a power cut.
    Kill,
}

/// A server; killed and its data removed when dropped.
pub struct Service {
    kind: Kind,
    scripts: PathBuf,
    local: PathBuf,
    address: String,
    /// Where the first broker of its cluster has its state; none: it is the first.
    joins: Option<PathBuf>,
}

impl Service {
    /// Starts one, with fresh data.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn start(kind: Kind) -> anyhow::Result<Arc<Self>> {
        Self::start_as(kind, None).await
    }

    /// Starts a second broker in the cluster of this one.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn start_second_broker(&self) -> anyhow::Result<Arc<Self>> {
        ensure!(self.kind == Kind::Kafka, "only Kafka has a second one");
        Self::start_as(Kind::Kafka, Some(self.local.clone())).await
    }

    async fn start_as(kind: Kind, joins: Option<PathBuf>) -> anyhow::Result<Arc<Self>> {
        let repo = repo_dir()?;
        let unique = format!("{}-{:08x}", kind.folder(), rand::random::<u32>());
        let mut service = Self {
            kind,
            scripts: repo.join("deploy/local").join(kind.folder()),
            local: repo.join(".local/own").join(unique),
            address: String::new(),
            joins,
        };
        let started = tokio::task::spawn_blocking(move || {
            service.run("start", &[])?;
            service.address = service.variable(kind.variable())?;
            anyhow::Ok(service)
        });
        Ok(Arc::new(started.await??))
    }

    /// A variable that `deploy/local` gives to tests.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn variable(&self, name: &str) -> anyhow::Result<String> {
        let env = std::fs::read_to_string(self.local.join("env")).context("read the env file")?;
        let value = env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        Ok(value.with_context(|| format!("no {name} there"))?.to_owned())
    }

    /// As `deploy/local` gives it to tests: host:port, DSN or URL.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it has its data.
    pub fn data_dir(&self) -> PathBuf {
        self.local.join(self.kind.folder())
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it can't be stopped.
    pub async fn stop(self: &Arc<Self>, how: Stop) -> anyhow::Result<()> {
        ensure!(self.kind != Kind::S3, "the S3 server forgets everything: pause it");
        let args: &[&str] = if how == Stop::Kill { &["--kill"] } else { &[] };
        let service = Arc::clone(self);
        tokio::task::spawn_blocking(move || service.run("stop", args)).await?
    }

    /// Starts it again, with the data that it had, at the same address.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn restart(self: &Arc<Self>) -> anyhow::Result<()> {
        let service = Arc::clone(self);
        tokio::task::spawn_blocking(move || service.run("start", &[])).await?
    }

    /// Stops the process where it stands (SIGSTOP): connections stay open, and nobody answers.
    ///
    /// # Errors
    /// When it is not there.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused process go on.
    ///
    /// # Errors
    /// When it is not there.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let path = self.local.join("run").join(format!("{}.pid", self.kind.folder()));
        let text = std::fs::read_to_string(&path);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
        let pid = pid.and_then(Pid::from_raw).with_context(|| format!("no pid: {text:?}"))?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("send {signal:?}"))
    }

    fn run(&self, script: &str, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.scripts.join(script));
        command.args(args).env("PENSTOCK_LOCAL", &self.local);
        if let Some(first) = &self.joins {
            command.env("PENSTOCK_KAFKA_JOIN", first);
        }
        let status =
            command.status().with_context(|| format!("run {}/{script}", self.kind.folder()))?;
        ensure!(status.success(), "{}/{script}: {status}", self.kind.folder());
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Cleaning up after a failed test must not hide its failure. A stopped process dies too.
        let _ = self.run("stop", &["--kill"]);
        let data = self.data_dir();
        // PostgreSQL's data may live behind a link, where its user can reach them.
        if let Ok(elsewhere) = std::fs::read_link(&data) {
            let _ = std::fs::remove_dir_all(elsewhere);
        }
        let _ = std::fs::remove_dir_all(&self.local);
    }
}
