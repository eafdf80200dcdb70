//! Two brokers, one of which goes away: partitions of events that are only there have no leader,
//! the dead letters change theirs, and the rest notices nothing (spec I8, N5).
//!
//! With `PENSTOCK_TEST_LONG=1` it goes away twice, in order and killed, and for longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::{self, checker::Tolerance, topics};
use hw_tests::stack::service::{Kind, Service, Stop};
use hw_tests::stack::{Stack, StackConfig, kafka};
use hw_tests::terms;
use hw_tests::wait::until;
use penstock_common::topic::Topic;
use tokio_util::sync::CancellationToken;

/// The nodes' numbers in `deploy/local`.
const FIRST: i32 = 1;
const SECOND: i32 = 2;
/// The partitions that the second broker leads.
const LED_BY_SECOND: std::ops::Range<i32> = 0..3;

/// Events a second.
const PATIENCE: Duration = Duration::from_secs(90);
const RATE: f64 = 600.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_away_stops_only_what_it_alone_has() {
    let seed = terms::seed();
    let first = Service::start(Kind::Kafka).await.unwrap();
    let mut config = StackConfig::from_env("brokers").unwrap().impatient();
    config.kafka = first.address().to_owned();
    // So that all else, the consumers' own topic too, is on the first one.
    let stack = Stack::start(config.clone()).await.unwrap();
    stack.stop().await.unwrap();
    let second = first.start_second_broker().await.unwrap();
    let prefix = format!("brokers-{:08x}.", rand::random::<u32>());
    create_topics(first.address(), &prefix).await.unwrap();
    let config = StackConfig { topic_prefix: Some(prefix), ..config };
    let mut stack = Stack::start(config).await.unwrap();
    if let Err(error) = one_goes_away(seed, &second, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn create_topics(kafka: &str, prefix: &str) -> anyhow::Result<()> {
    for topic in Topic::ALL {
        let of_partition = |partition| -> &[i32] {
            match topic {
                Topic::RawEvents if LED_BY_SECOND.contains(&partition) => &[SECOND],
                Topic::RawEvents => &[FIRST],
                _ => &[SECOND, FIRST],
            }
        };
        let brokers: Vec<&[i32]> = (0..topic.spec().partitions).map(of_partition).collect();
        kafka::create_topic_on(kafka, &topic.name(prefix), &brokers).await?;
    }
    Ok(())
}

/// How many records of the topic the partitions of the range have.
fn records(ends: &HashMap<i32, i64>, partitions: &std::ops::Range<i32>) -> i64 {
    ends.iter().filter(|(partition, _)| partitions.contains(partition)).map(|(_, end)| end).sum()
}

async fn one_goes_away(seed: u64, second: &Arc<Service>, stack: &mut Stack) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let fleet = FleetConfig::mixed(seed, 300, RATE);
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    let acknowledged = "penstock_forward_acknowledged_records_total";
    until(PATIENCE, "2000 records before the second broker goes away", async || {
        Ok(metric(stack, acknowledged).await? > 2_000.0)
    })
    .await?;
    let (hows, away) = match terms::is_long() {
        true => (&[Stop::Shutdown, Stop::Kill][..], Duration::from_secs(60)),
        false => (&[Stop::Kill][..], Duration::from_secs(6)),
    };
    for how in hows {
        second.stop(*how).await?;
        // Past the time after which they are passed over, and the dead letters have a new leader.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let letters = dead_letters(stack)?;
        let (before, since) = (metric(stack, acknowledged).await?, Instant::now());
        tokio::time::sleep(away).await;
        let stalled = metric(stack, "penstock_forward_stalled_partitions").await? as usize;
        ensure!((1..=LED_BY_SECOND.len()).contains(&stalled), "{stalled} are passed over");
        let count = metric(stack, acknowledged).await? - before;
        let rate = count / since.elapsed().as_secs_f64();
        let letters = dead_letters(stack)? - letters;
        println!(
            "{how:?}: {stalled} partitions without a leader; {rate:.0} records a second go on, \
             {letters} dead letters by their new leader"
        );
        ensure!(count > RATE, "only {count} records of the others went on in {away:?}");
        ensure!(letters > 0, "no dead letter by its new leader");
        second.restart().await?;
        until(PATIENCE, "those that waited catch up", async || {
            Ok(metric(stack, "penstock_forward_parked_entries").await? < 1.0)
        })
        .await?;
    }
    stop.cancel();
    let told = load.await?;
    stack.check_alive()?;
    let places = stack.places();
    let proof = oracle::prove(&places, &told, Tolerance::default()).await?;
    println!("{proof}");
    let topic = Topic::RawEvents.name(&places.topic_prefix);
    let ends = tokio::task::block_in_place(|| topics::end_offsets(&places.kafka, &topic))?;
    let led = records(&ends, &LED_BY_SECOND);
    ensure!(led > 100, "too few records on the second broker to say anything: {led}");
    tally.check()?;
    ensure!(tally.server_errors.get() == 0, "{} answers 5xx", tally.server_errors.get());
    Ok(())
}

/// How many records the topic of dead letters has.
fn dead_letters(stack: &Stack) -> anyhow::Result<i64> {
    let (kafka, topic) = (stack.places().kafka, Topic::DeadLetter.name(&stack.topic_prefix));
    let ends = tokio::task::block_in_place(|| topics::end_offsets(&kafka, &topic))?;
    Ok(ends.values().sum())
}

async fn metric(stack: &Stack, name: &str) -> anyhow::Result<f64> {
    oracle::metrics_of(&stack.gateway, name).await
}
