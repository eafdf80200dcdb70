//! The loss ledger finds what is lost behind the pipeline's back, by name, and nothing else
//! (spec N1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::ledger::{self, Ledger};
use hw_tests::oracle::record::ToldFleet;
use hw_tests::oracle::{self, api, checker::Tolerance, drain, topics};
use hw_tests::stack::{Stack, StackConfig, kafka};
use penstock_common::codec;
use penstock_common::topic::Topic;
use rdkafka::message::Message;
use tokio_util::sync::CancellationToken;

/// So many records are deleted at the beginning of each of two partitions.
const LOST_EACH: i64 = 7;

async fn load(stack: &Stack, fleet: FleetConfig, events: u64) -> anyhow::Result<ToldFleet> {
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let running =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    while tally.accepted.get() < events {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    let told = running.await?;
    tally.check()?;
    Ok(told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_deleted_on_the_bus_are_named() {
    let seed = hw_tests::terms::seed();
    let config = StackConfig::from_env("lost").unwrap().impatient();
    let mut stack = Stack::start(config).await.unwrap();
    if let Err(error) = lose(seed, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn lose(seed: u64, stack: &mut Stack) -> anyhow::Result<()> {
    // Some are stored before anything is lost.
    load(stack, FleetConfig::mixed(seed, 40, 800.0), 2_000).await?;
    drain::wait(&stack.places()).await?;
    stack.cores[0].terminate().await?;
    let places = stack.places();
    let topic = Topic::RawEvents.name(&places.topic_prefix);
    let read = tokio::task::block_in_place(|| topics::end_offsets(&places.kafka, &topic))?;
    // What comes now waits on the bus, and some of it is deleted before anybody has read it.
    load(stack, FleetConfig::plain(seed + 1, 40, 2_000.0, 20), 4_000).await?;
    drain::spools(&places).await?;
    let lost = tokio::task::block_in_place(|| numbers(&places.kafka, &topic, &read))?;
    ensure!(lost.len() == 2 * LOST_EACH as usize, "{} records to lose", lost.len());
    let cuts: BTreeSet<i32> = lost.values().copied().collect();
    for partition in cuts {
        kafka::delete_records(&places.kafka, &topic, partition, read[&partition] + LOST_EACH)
            .await?;
    }
    stack.cores[0].start().await?;

    let named = wait_for_missing(stack, lost.len() as u64).await?;
    let named: BTreeSet<(String, String, u64)> = named
        .gateways
        .iter()
        .flat_map(|gateway| {
            gateway.missing_ranges.iter().flat_map(|range| {
                (range.from_seq..range.to_seq)
                    .map(|seq| (gateway.gateway.clone(), range.epoch.clone(), seq))
            })
        })
        .collect();
    ensure!(named.iter().eq(lost.keys()), "lost are {lost:?}, the ledger names {named:?}");
    // As an operator sees it: a table with the names, and an exit code for scripts.
    let (code, table) = stack.core_output(&["ledger"]).await?;
    ensure!(code == Some(1), "cloud-core ledger ended with {code:?}\n{table}");
    for (gateway, epoch, _) in lost.keys() {
        ensure!(table.contains(&format!("MISSING: {gateway}/{epoch}/")), "{table}");
    }
    println!("{table}");
    Ok(())
}

/// Gateway, epoch and number of the first records of two partitions from these offsets on, and the
/// partition of each.
fn numbers(
    kafka: &str,
    topic: &str,
    from: &std::collections::HashMap<i32, i64>,
) -> anyhow::Result<BTreeMap<(String, String, u64), i32>> {
    let mut of: BTreeMap<i32, Vec<(String, String, u64)>> = BTreeMap::new();
    let mut failed = None;
    topics::read_topic(kafka, topic, |message| {
        let (partition, offset) = (message.partition(), message.offset());
        let first = from.get(&partition).copied().unwrap_or(0);
        if (first..first + LOST_EACH).contains(&offset) {
            match codec::decode_event(topics::headers(message)) {
                Ok(meta) => {
                    let from = meta.provenance;
                    let name = (from.gateway.to_string(), from.epoch.to_string(), from.seq);
                    of.entry(partition).or_default().push(name);
                }
                Err(error) => failed = Some(error),
            }
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    let full = of.into_iter().filter(|(_, names)| names.len() == LOST_EACH as usize).take(2);
    Ok(full.flat_map(|(partition, names)| names.into_iter().map(move |n| (n, partition))).collect())
}

async fn wait_for_missing(stack: &Stack, count: u64) -> anyhow::Result<Ledger> {
    let client = api::client(&stack.api);
    let waiting = async {
        loop {
            if let Ok(ledger) = ledger::ask(&client).await
                && ledger.total.missing >= count
                && ledger.total.in_flight == 0
            {
                return ledger;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let limit = Duration::from_secs(60);
    let found = tokio::time::timeout(limit, waiting).await;
    match found {
        Ok(ledger) => Ok(ledger),
        Err(_) => {
            let last = ledger::ask(&client).await.context("ask the ledger")?;
            anyhow::bail!("{count} are lost, and after {limit:?} the ledger says {last:?}")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_rejection_is_no_loss() {
    let seed = hw_tests::terms::seed();
    let stack = Stack::start(StackConfig::from_env("rejects").unwrap().impatient()).await.unwrap();
    let fleet = FleetConfig {
        faulty_share: 0.5,
        broken_body_share: 0.1,
        duplicate_share: 0.05,
        ..FleetConfig::mixed(seed, 40, 1_000.0)
    };
    let proved = async {
        let told = load(&stack, fleet, 4_000).await?;
        let proof = oracle::prove(&stack.places(), &told, Tolerance::default()).await?;
        println!("{proof}");
        let rejected = proof.verdict.rejected;
        ensure!(rejected > 2_000, "only {rejected} events were rejected");
        anyhow::Ok(())
    };
    if let Err(error) = proved.await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}
