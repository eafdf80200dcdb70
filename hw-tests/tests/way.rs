//! An event's whole way on real parts: every sample ends where it belongs, and a broker that goes
//! away and comes back costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hw_tests::fleet::client::Client;
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::{self, api, checker::Tolerance, drain, topics};
use hw_tests::stack::service::{Kind, Service, Stop};
use hw_tests::stack::{CoreConfig, Stack, StackConfig, repo_dir};
use penstock_common::codec;
use penstock_common::topic::Topic;
use rdkafka::message::Message;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_ends_where_it_belongs() {
    let mut config = StackConfig::from_env("samples").unwrap();
    config.cores = vec![CoreConfig::new("core", "raw,api")];
    config.raw_flush_interval = Duration::from_secs(1);
    // The samples have fixed dates.
    config.core_set.push("raw.late_days_max=3650".into());
    let stack = Stack::start(config).await.unwrap();
    if let Err(error) = samples(&stack).await {
        panic!("{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn samples(stack: &Stack) -> anyhow::Result<()> {
    let good = read_samples("good")?;
    let mut bad = read_samples("bad")?;
    let expected = bad.remove("expected.json").context("bad/expected.json")?;
    let expected: Value = serde_json::from_slice(&expected)?;
    ensure!(good.len() >= 3 && bad.len() >= 3, "the sample set is not complete");

    let client = Client::new(stack.gateway_http, 1, Duration::from_secs(10));
    let post = async |name: &String, body: &Bytes| {
        let answer = client.post("/v1/events", "application/json", None, body.clone()).await;
        answer.with_context(|| format!("post {name}"))
    };
    for (name, body) in &good {
        let answer = post(name, body).await?;
        ensure!(answer.status == 202, "{name}: {} {:?}", answer.status, answer.body);
    }
    for (name, body) in &bad {
        let answer = post(name, body).await?;
        ensure!(answer.status == 400, "{name}: {} {:?}", answer.status, answer.body);
        let problem: Value = serde_json::from_slice(&answer.body)?;
        let error = &problem["events"][0]["errors"][0];
        for field in ["pointer", "rule"] {
            let wanted = &expected[name][field];
            ensure!(error[field] == *wanted, "{name}: {field} {wanted} expected in {problem}");
        }
    }
    drain::wait(&stack.places()).await?;

    let api_client = api::client(&stack.api);
    for (name, body) in &good {
        let event: Value = serde_json::from_slice(body)?;
        let (device, id) = (text(&event, "device_id")?, text(&event, "event_id")?);
        let mut found = Vec::new();
        api::read_device(&api_client, "sim", &device, |event_id, payload| {
            if event_id.eq_ignore_ascii_case(&id) {
                found.push(payload.to_vec());
            }
        })
        .await?;
        ensure!(found == [body.to_vec()], "{name}: stored as {} copies or altered", found.len());
    }
    let places = stack.places();
    let dead = tokio::task::block_in_place(|| dead_letters(&places))?;
    for (name, body) in &bad {
        let wanted = text(&expected[name], "reason")?;
        let found: Vec<_> = dead.iter().filter(|(payload, _)| payload == body).collect();
        ensure!(found.len() == 1, "{name}: {} dead letters", found.len());
        ensure!(found[0].1 == wanted, "{name}: reason {}, expected {wanted}", found[0].1);
    }
    ensure!(dead.len() == bad.len(), "{} dead letters for {} samples", dead.len(), bad.len());
    Ok(())
}

fn dead_letters(places: &oracle::Places) -> anyhow::Result<Vec<(Vec<u8>, String)>> {
    let mut found = Vec::new();
    let mut unreadable = None;
    let topic = Topic::DeadLetter.name(&places.topic_prefix);
    topics::read_topic(&places.kafka, &topic, |message| {
        match codec::decode_dead_letter(topics::headers(message)) {
            Ok(meta) => {
                found.push((message.payload().unwrap_or_default().to_vec(), meta.reason));
            }
            Err(error) => unreadable = Some(error),
        }
    })?;
    unreadable.map_or(Ok(found), |error| Err(error.into()))
}

/// The samples of a folder by name. Files end in a newline for editors; devices send none.
fn read_samples(folder: &str) -> anyhow::Result<BTreeMap<String, Bytes>> {
    let dir = repo_dir()?.join("schemas/samples").join(folder);
    let mut samples = BTreeMap::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a sample's name")?;
        let bytes = std::fs::read(&path)?;
        samples.insert(name.to_owned(), Bytes::copy_from_slice(bytes.trim_ascii_end()));
    }
    Ok(samples)
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    Ok(value[field].as_str().with_context(|| format!("{field} in {value}"))?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_away_and_comes_back_costs_nothing() {
    let seed = hw_tests::terms::seed();
    let broker = Service::start(Kind::Kafka).await.unwrap();
    let mut config = StackConfig::from_env("outage").unwrap().impatient();
    config.kafka = broker.address().to_owned();
    let mut stack = Stack::start(config).await.unwrap();
    if let Err(error) = outages(seed, &broker, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn outages(seed: u64, broker: &Arc<Service>, stack: &mut Stack) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let fleet = FleetConfig::mixed(seed, 40, 400.0);
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    more_accepted(&tally, 1_000).await?;
    // Once as a shutdown does, once as a crash does.
    for how in [Stop::Shutdown, Stop::Kill] {
        broker.stop(how).await?;
        // The devices notice nothing: the spool takes what the broker can't.
        more_accepted(&tally, 1_500).await?;
        let pending = drain::pending(stack.gateway_admin).await?;
        ensure!(pending >= 1_000.0, "{pending} entries in the spool during the outage");
        broker.restart().await?;
        more_accepted(&tally, 1_000).await?;
    }
    stop.cancel();
    let told = load.await?;
    stack.check_alive()?;
    let proof = oracle::prove(&stack.places(), &told, Tolerance::default()).await?;
    println!("{proof}");
    tally.check()?;
    ensure!(tally.server_errors.get() == 0, "{} answers 5xx", tally.server_errors.get());
    Ok(())
}

/// Waits until so many more events are accepted.
async fn more_accepted(tally: &Tally, events: u64) -> anyhow::Result<()> {
    let goal = tally.accepted.get() + events;
    let waiting = async {
        while tally.accepted.get() < goal {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, waiting)
        .await
        .with_context(|| format!("fewer than {events} events accepted in {limit:?}"))
}
