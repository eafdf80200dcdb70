//! Two brokers, one of which goes away: partitions that are only there have no leader, others
//! change theirs, and the rest notices nothing (spec I8, N5).

use std::collections::HashMap;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::{self, checker::Tolerance, topics};
use hw_tests::stack::service::{Kind, Service, Stop};
use hw_tests::stack::{Stack, StackConfig, kafka};
use penstock_common::topic::Topic;
use tokio_util::sync::CancellationToken;

/// The nodes' numbers in `deploy/local`.
const FIRST: i32 = 1;
const SECOND: i32 = 2;
/// The partitions that the second broker leads.
const LED_BY_SECOND: std::ops::Range<i32> = 0..3;

/// Events a second.
const RATE: f64 = 600.0;

/// How many brokers have each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// Without the second broker, its partitions have no leader.
    One,
    /// They change their leader.
    Two,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_away_stops_only_what_it_alone_has() {
    let seed = env::var("PENSTOCK_TEST_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("PENSTOCK_TEST_SEED={seed}");
    let first = Service::start(Kind::Kafka).await.unwrap();
    let mut config = StackConfig::from_env("brokers").unwrap().impatient();
    config.kafka = first.address().to_owned();
    // So that all else, the consumers' own topic too, is on the first one.
    let stack = Stack::start(config.clone()).await.unwrap();
    stack.stop().await.unwrap();
    let second = first.start_second_broker().await.unwrap();
    for copies in [Copies::One, Copies::Two] {
        let prefix = format!("brokers-{:08x}.", rand::random::<u32>());
        create_topics(first.address(), &prefix, copies).await.unwrap();
        let config = StackConfig { topic_prefix: Some(prefix), ..config.clone() };
        let mut stack = Stack::start(config).await.unwrap();
        if let Err(error) = one_goes_away(seed, &second, copies, &mut stack).await {
            panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
        }
        stack.stop().await.unwrap();
    }
}

async fn create_topics(kafka: &str, prefix: &str, copies: Copies) -> anyhow::Result<()> {
    for topic in Topic::ALL {
        let of_partition = |partition| -> &[i32] {
            let is_led = topic == Topic::RawEvents && LED_BY_SECOND.contains(&partition);
            match (copies, is_led) {
                (Copies::One, true) => &[SECOND],
                (Copies::One, false) => &[FIRST],
                (Copies::Two, true) => &[SECOND, FIRST],
                (Copies::Two, false) => &[FIRST, SECOND],
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

async fn one_goes_away(
    seed: u64,
    second: &Arc<Service>,
    copies: Copies,
    stack: &mut Stack,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let fleet = FleetConfig::mixed(seed, 300, RATE);
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    let acknowledged = "penstock_forward_acknowledged_records_total";
    wait(|| async { Ok(metric(stack, acknowledged).await? > 2_000.0) })
        .await
        .context("before the second broker goes away")?;
    for how in [Stop::Shutdown, Stop::Kill] {
        second.stop(how).await?;
        // Past the time after which they are passed over, and more.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let stalled = metric(stack, "penstock_forward_stalled_partitions").await? as usize;
        let expected = if copies == Copies::One { 1..=LED_BY_SECOND.len() } else { 0..=0 };
        ensure!(expected.contains(&stalled), "{stalled} partitions are passed over");
        let (before, since) = (metric(stack, acknowledged).await?, Instant::now());
        tokio::time::sleep(Duration::from_secs(10)).await;
        let count = metric(stack, acknowledged).await? - before;
        let rate = count / since.elapsed().as_secs_f64();
        println!("{copies:?}, {how:?}: {stalled} stalled, {rate:.0} records a second go on");
        ensure!(rate > RATE * 0.6, "only {rate} records a second of the others go on");
        second.restart().await?;
        wait(|| async { Ok(metric(stack, "penstock_forward_parked_entries").await? < 1.0) })
            .await
            .context("those that waited catch up")?;
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

async fn metric(stack: &Stack, name: &str) -> anyhow::Result<f64> {
    oracle::metrics_of(&stack.gateway, name).await
}

async fn wait<F: Future<Output = anyhow::Result<bool>>>(
    mut is_so: impl FnMut() -> F,
) -> anyhow::Result<()> {
    let since = Instant::now();
    while !is_so().await? {
        ensure!(since.elapsed() < Duration::from_secs(90), "not within 90 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
