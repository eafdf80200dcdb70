//! The spool at its hard limit while Kafka is away: the oldest give way, and every accepted event
//! arrives, as itself or as a dead letter with that reason (spec I9, N1, N5).
//!
//! With `PENSTOCK_TEST_LONG=1` it stays at the limit for minutes.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hw_tests::fleet::client::Client;
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::{self, checker::Tolerance, drain};
use hw_tests::stack::service::{Kind, Service, Stop};
use hw_tests::stack::{Stack, StackConfig};
use hw_tests::terms;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_hard_limit_the_oldest_give_way_and_every_event_is_accounted_for() {
    let seed = env::var("PENSTOCK_TEST_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("PENSTOCK_TEST_SEED={seed}");
    let broker = Service::start(Kind::Kafka).await.unwrap();
    let mut config = StackConfig::from_env("limit").unwrap().impatient();
    config.kafka = broker.address().to_owned();
    // About 40,000 events, a quarter of it for what gives way. Of these the 5,000 that may be in
    // flight, at most, may arrive both ways.
    let spool = [
        "spool.bytes_max=4194304",
        "spool.segment_bytes=262144",
        "kafka.in_flight_records_max=5000",
        "pressure.retry_after_s_max=1",
    ];
    config.gateway_set.extend(spool.map(String::from));
    let mut stack = Stack::start(config).await.unwrap();
    if let Err(error) = fill(seed, &broker, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn fill(seed: u64, broker: &Arc<Service>, stack: &mut Stack) -> anyhow::Result<()> {
    let is_long = terms::is_long();
    let at_the_limit = Duration::from_secs(if is_long { 180 } else { 15 });
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    // Of an event that gave way, a copy sent again would be the first on raw-events, and late.
    let fleet = FleetConfig { duplicate_share: 0.0, ..FleetConfig::mixed(seed, 40, 3_000.0) };
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    let admin = Client::new(stack.gateway_admin, 1, Duration::from_secs(10));
    reaches(&admin, "penstock_forward_acknowledged_records_total", 1_000.0).await?;
    broker.stop(Stop::Kill).await?;
    reaches(&admin, "penstock_spool_evicted_entries_total", 7_000.0).await?;
    tokio::time::sleep(at_the_limit).await;
    let disk_bytes = drain::metric(&admin, "penstock_spool_disk_bytes").await?;
    ensure!(disk_bytes <= 4_194_304.0, "the spool takes {disk_bytes} bytes");
    broker.restart().await?;
    // With the link back everything drains while the devices go on.
    let accepted = tally.accepted.get();
    while tally.accepted.get() < accepted + 2_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    let told = load.await?;
    stack.check_alive()?;
    let tolerance = Tolerance { gives_way: true, ..Tolerance::default() };
    let proof = oracle::prove(&stack.places(), &told, tolerance).await?;
    println!("{proof}");
    let evicted = drain::metric(&admin, "penstock_spool_evicted_entries_total").await?;
    let refused = drain::metric(&admin, "penstock_spool_refused_full_total").await?;
    println!("gave way {evicted}, refused {refused} requests");
    ensure!(proof.verdict.gave_way >= 1_500, "{} gave way", proof.verdict.gave_way);
    ensure!(tally.server_errors.get() == 0, "{} answers 5xx", tally.server_errors.get());
    Ok(())
}

async fn reaches(admin: &Client, metric: &str, least: f64) -> anyhow::Result<()> {
    let waiting = async {
        while drain::metric(admin, metric).await? < least {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    let limit = Duration::from_secs(120);
    let reached = tokio::time::timeout(limit, waiting).await;
    reached.with_context(|| format!("{metric} does not come to {least} in {limit:?}"))?
}
