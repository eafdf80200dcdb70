//! The gateway's connection to Kafka is secured, and a broken right or a wrong secret costs time
//! and nothing else (spec I8, I13, O6, N5).

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::{self, checker::Tolerance, drain};
use hw_tests::stack::{CoreConfig, Stack, StackConfig, kafka};
use hw_tests::terms;
use hw_tests::wait::until;
use penstock_common::topic::Topic;
use tokio_util::sync::CancellationToken;

/// The user of both secured listeners.
const USER: &str = "gateway";

const PATIENCE: Duration = Duration::from_secs(60);

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is set by ./dev test"))
}

fn secrets(file: &str) -> PathBuf {
    PathBuf::from(var("PENSTOCK_KAFKA_SECRETS")).join(file)
}

/// A stack whose gateway reaches Kafka by a secured listener.
fn config(name: &str, listener: &str, settings: &[(&str, String)]) -> StackConfig {
    let mut config = StackConfig::from_env(name).unwrap().impatient();
    config.cores = vec![CoreConfig::new("core", "all")];
    config.gateway_set.push(format!("kafka.bootstrap={}", var(listener)));
    let ca = secrets("ca.pem");
    config.gateway_set.push(format!("kafka.tls.ca_file={:?}", ca.display().to_string()));
    config.gateway_set.extend(settings.iter().map(|(key, value)| format!("{key}={value:?}")));
    config
}

fn certificate() -> [(&'static str, String); 2] {
    [
        ("kafka.tls.cert_file", secrets("client.pem").display().to_string()),
        ("kafka.tls.key_file", secrets("client.key").display().to_string()),
    ]
}

fn login(mechanism: &str, password_file: PathBuf) -> [(&'static str, String); 3] {
    [
        ("kafka.sasl.mechanism", mechanism.to_owned()),
        ("kafka.sasl.username", USER.to_owned()),
        ("kafka.sasl.password_file", password_file.display().to_string()),
    ]
}

async fn drains(stack: &Stack) -> anyhow::Result<()> {
    until(PATIENCE, "the spool drains", async || {
        Ok(drain::pending(stack.gateway_admin).await? < 500.0)
    })
    .await
}

struct Load {
    tally: Arc<Tally>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<oracle::record::ToldFleet>,
}

fn load(stack: &Stack, seed: u64) -> Load {
    let (tally, stop) = (Arc::new(Tally::default()), CancellationToken::new());
    let fleet = FleetConfig::mixed(seed, 40, 400.0);
    let running =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    Load { tally, stop, running }
}

impl Load {
    async fn accepted(&self, events: u64) -> anyhow::Result<()> {
        let goal = self.tally.accepted.get() + events;
        until(PATIENCE, "they are accepted", async || Ok(self.tally.accepted.get() >= goal)).await
    }

    async fn prove(self, stack: &Stack) -> anyhow::Result<()> {
        self.stop.cancel();
        let told = self.running.await?;
        let proof = oracle::prove(&stack.places(), &told, Tolerance::default()).await?;
        println!("{proof}");
        self.tally.check()?;
        ensure!(self.tally.server_errors.get() == 0, "answers 5xx");
        Ok(())
    }
}

async fn metric(stack: &Stack, name: &str) -> anyhow::Result<f64> {
    oracle::metrics_of(&stack.gateway, name).await
}

/// What the gateway has logged.
fn log(stack: &Stack) -> anyhow::Result<String> {
    std::fs::read_to_string(stack.dir.join("gateway.log")).context("read the gateway's log")
}

/// `edge-gateway check` says this, and the gateway's log does.
async fn is_told(stack: &Stack, words: &str, todo: &str) -> anyhow::Result<()> {
    let said = stack.gateway_check().await?;
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(words)).collect();
    println!("check: {}", lines.join(" / "));
    ensure!(said.contains(words) && said.contains(todo), "check does not say {words:?}:\n{said}");
    let what = format!("the log says {words:?}");
    until(PATIENCE, &what, async || Ok(log(stack)?.contains(words))).await
}

async fn with_stack(
    config: StackConfig,
    seed: u64,
    run: impl AsyncFnOnce(&mut Stack) -> anyhow::Result<()>,
) {
    let mut stack = Stack::start(config).await.unwrap();
    if let Err(error) = run(&mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

/// Mutual TLS, and a right to write that is taken away under load and given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_lost_and_given_back_costs_nothing() {
    let seed = terms::seed();
    let config = config("rights", "PENSTOCK_KAFKA_TLS", &certificate());
    let broker = config.kafka.clone();
    with_stack(config, seed, async |stack| {
        let said = stack.gateway_check().await?;
        ensure!(said.contains("with 30 partitions"), "mutual TLS works for check too:\n{said}");
        let load = load(stack, seed);
        load.accepted(1_000).await?;
        drains(stack).await?;
        let topic = Topic::RawEvents.name(&stack.topic_prefix);
        kafka::forbid(&broker, &topic, USER, true).await?;
        let blocked = "penstock_forward_blocked_topics";
        until(PATIENCE, "says so", async || Ok(metric(stack, blocked).await? > 0.5)).await?;
        let letters = metric(stack, "penstock_forward_acknowledged_records_total").await?;
        load.accepted(1_500).await?;
        let pending = drain::pending(stack.gateway_admin).await?;
        ensure!(pending >= 1_000.0, "{pending} entries in the spool without the right to write");
        // Dead letters, on a topic that may be written to, are not held up.
        let now = metric(stack, "penstock_forward_acknowledged_records_total").await?;
        println!("{} other records acknowledged meanwhile", now - letters);
        let rewinds = metric(stack, "penstock_forward_rewinds_total").await?;
        ensure!(rewinds <= 3.0, "{rewinds} producers were spent");
        kafka::forbid(&broker, &topic, USER, false).await?;
        until(PATIENCE, "goes on", async || Ok(metric(stack, blocked).await? < 0.5)).await?;
        load.prove(stack).await
    })
    .await;
}

/// SASL/SCRAM, with a wrong password that is corrected while the gateway runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_corrected_needs_no_restart() {
    let seed = terms::seed();
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "not this one\n").unwrap();
        let config = config("login", "PENSTOCK_KAFKA_SASL", &login(mechanism, file.clone()));
        with_stack(config, seed, async |stack| {
            let load = load(stack, seed);
            load.accepted(1_000).await?;
            let acknowledged = metric(stack, "penstock_forward_acknowledged_records_total").await?;
            ensure!(acknowledged < 0.5, "{acknowledged} records with a wrong password");
            is_told(stack, "does not accept this gateway's user or password", "[kafka.sasl]")
                .await?;
            let right = std::fs::read_to_string(secrets("password"))?;
            std::fs::write(&file, &right)?;
            load.accepted(500).await?;
            drains(stack).await.context("the new password is taken up")?;
            let log = log(stack)?;
            ensure!(!log.contains(right.trim()), "the password is in the log");
            ensure!(!log.contains("not this one"), "the wrong password is in the log");
            load.prove(stack).await
        })
        .await;
    }
}

/// A gateway without the certificate that the broker asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_a_certificate_is_told_so() {
    let seed = terms::seed();
    with_stack(config("nameless", "PENSTOCK_KAFKA_TLS", &[]), seed, async |stack| {
        is_told(stack, "does not accept this gateway's certificate", "kafka.tls.cert_file").await
    })
    .await;
}

/// A broker whose certificate is signed by somebody else is told nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_broker_is_told_nothing() {
    let seed = terms::seed();
    let mut config = config("impostor", "PENSTOCK_KAFKA_TLS", &certificate());
    let ca = secrets("other-ca.pem");
    config.gateway_set.push(format!("kafka.tls.ca_file={:?}", ca.display().to_string()));
    with_stack(config, seed, async |stack| {
        let load = load(stack, seed);
        load.accepted(1_000).await?;
        let acknowledged = metric(stack, "penstock_forward_acknowledged_records_total").await?;
        ensure!(acknowledged < 0.5, "{acknowledged} records on a broker that is not known");
        is_told(stack, "the broker's certificate is not trusted", "kafka.tls.ca_file").await?;
        load.stop.cancel();
        load.running.await?;
        Ok(())
    })
    .await;
}
