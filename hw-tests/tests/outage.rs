//! Every store goes away under load, one after the other, and then all is as if nothing had
//! happened (spec P1, P10, N5). The devices notice none of it.
//!
//! With `PENSTOCK_TEST_LONG=1` each of them is away for minutes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::api::{self, CoreApi};
use hw_tests::oracle::{self, checker::Tolerance};
use hw_tests::stack::service::{Kind, Service, Stop};
use hw_tests::stack::{CoreConfig, Stack, StackConfig};
use hw_tests::terms;
use tokio_util::sync::CancellationToken;

/// The parts that go away, all of this test's own.
struct Parts {
    kafka: Arc<Service>,
    catalog: Arc<Service>,
    rollups: Arc<Service>,
    objects: Arc<Service>,
}

/// The core with the role `rollup`, in the order of the configuration.
const ROLLUP_CORE: usize = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_store_may_go_away_and_come_back() {
    let seed = hw_tests::terms::seed();
    let parts = Parts {
        kafka: Service::start(Kind::Kafka).await.unwrap(),
        catalog: Service::start(Kind::Postgres).await.unwrap(),
        rollups: Service::start(Kind::Postgres).await.unwrap(),
        objects: Service::start(Kind::S3).await.unwrap(),
    };
    let mut config = StackConfig::from_env("outages").unwrap().impatient();
    config.kafka = parts.kafka.address().to_owned();
    config.postgres = parts.catalog.address().to_owned();
    config.rollup_postgres = Some(parts.rollups.address().to_owned());
    config.s3 = Some(parts.objects.address().to_owned());
    config.cores = vec![
        CoreConfig::new("core", "raw,api,rebuild,compact,deadletter,ledger"),
        CoreConfig::new("rollup", "rollup"),
    ];
    let mut stack = Stack::start(config).await.unwrap();
    if let Err(error) = outages(seed, &parts, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn outages(seed: u64, parts: &Parts, stack: &mut Stack) -> anyhow::Result<()> {
    let is_long = terms::is_long();
    let away = Duration::from_secs(if is_long { 180 } else { 15 });
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let fleet = FleetConfig::mixed(seed, 40, 300.0);
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    let api = &stack.api.clone();
    stored_more(api, 1_000).await.context("before the outages")?;

    println!("the rollups' database is away for {away:?}");
    parts.rollups.stop(Stop::Kill).await?;
    raw_goes_on(api, away).await.context("without the rollups' database")?;
    parts.rollups.restart().await?;

    println!("the aggregator is away for {away:?}");
    stack.cores[ROLLUP_CORE].kill()?;
    raw_goes_on(api, away).await.context("without the aggregator")?;
    stack.cores[ROLLUP_CORE].start().await?;

    println!("the catalog's database is away for {away:?}");
    let before = tally.accepted.get();
    parts.catalog.stop(Stop::Kill).await?;
    tokio::time::sleep(away).await;
    parts.catalog.restart().await?;
    accepted_since(&tally, before, away)?;
    stored_more(api, 1_000).await.context("after the catalog's outage")?;

    println!("the object store does not answer for {away:?}");
    let before = tally.accepted.get();
    parts.objects.pause()?;
    tokio::time::sleep(away).await;
    parts.objects.resume()?;
    accepted_since(&tally, before, away)?;
    stored_more(api, 1_000).await.context("after the object store's outage")?;

    println!("Kafka is away for {away:?}");
    let before = tally.accepted.get();
    parts.kafka.stop(Stop::Kill).await?;
    tokio::time::sleep(away).await;
    parts.kafka.restart().await?;
    accepted_since(&tally, before, away)?;
    stored_more(api, 1_000).await.context("after Kafka's outage")?;

    stop.cancel();
    let told = load.await?;
    // None of them ended by itself or needed a hand.
    stack.check_alive()?;
    let proof = oracle::prove(&stack.places(), &told, Tolerance::default()).await?;
    println!("{proof}");
    tally.check()?;
    ensure!(tally.server_errors.get() == 0, "{} answers 5xx", tally.server_errors.get());
    Ok(())
}

async fn stored(api: &CoreApi) -> anyhow::Result<u64> {
    Ok(api::status(&api::client(api)).await?.rows_published)
}

/// Waits until so many more events are in the raw store.
async fn stored_more(api: &CoreApi, events: u64) -> anyhow::Result<()> {
    let limit = Duration::from_secs(90);
    let waiting = async {
        let mut goal = None;
        loop {
            // Right after an outage the API may not answer yet.
            if let Ok(now) = stored(api).await
                && now >= *goal.get_or_insert(now + events)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let done = tokio::time::timeout(limit, waiting).await;
    done.with_context(|| format!("fewer than {events} events were stored in {limit:?}"))
}

/// In every third of the time more is stored.
async fn raw_goes_on(api: &CoreApi, time: Duration) -> anyhow::Result<()> {
    let mut before = stored(api).await?;
    for _ in 0..3 {
        tokio::time::sleep(time / 3).await;
        let now = stored(api).await?;
        ensure!(now > before, "raw stands still at {now} events");
        before = now;
    }
    Ok(())
}

fn accepted_since(tally: &Tally, before: u64, time: Duration) -> anyhow::Result<()> {
    let accepted = tally.accepted.get() - before;
    let least = time.as_secs() * 100;
    ensure!(accepted >= least, "only {accepted} events accepted in {time:?}");
    Ok(())
}
