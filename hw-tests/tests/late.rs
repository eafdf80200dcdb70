//! Events that come late, one by one or by the hour, and ranges that are rebuilt (spec P5, R2, N5).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hw_tests::fleet::backlog::Backlog;
use hw_tests::fleet::client::Client;
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::naive::{self, Figures};
use hw_tests::oracle::rollups::{self, WIDTHS};
use hw_tests::oracle::truth::Truth;
use hw_tests::oracle::{drain, metrics_of};
use hw_tests::stack::{Stack, StackConfig};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const CORRECTED_WITHIN: Duration = Duration::from_secs(120);

/// With the intervals as they are shipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_event_is_in_every_width_within_two_minutes() {
    let mut config = StackConfig::from_env("late").unwrap();
    config.raw_flush_interval = Duration::from_secs(60);
    let stack = Stack::start(config).await.unwrap();
    if let Err(error) = late(&stack).await {
        panic!("{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

/// Values by the time of their events, µs.
type Sent = Vec<(i64, f64)>;

/// The event of the present: it is not late, and reaches its hour and day at their usual pace.
const PRESENT: f64 = 42.0;

async fn late(stack: &Stack) -> anyhow::Result<()> {
    let client = Client::new(stack.gateway_http, 1, Duration::from_secs(10));
    let now = SystemClock.now().0;
    // Never at the end of an hour: what belongs together stays in one window of each width.
    let within = |time: i64| time.div_euclid(HOUR) * HOUR + 10 * 60 * SECOND;
    let (month, hour) = (within(now - 30 * DAY), within(now - 2 * HOUR));
    let mut sent = Sent::new();
    // In the device's order: each closes the minutes before it.
    for (at, value) in [(month, 40.0), (hour, 41.0), (now, PRESENT)] {
        post(&client, at, value).await?;
        sent.push((at, value));
    }
    let database = rollups::connect(&stack.places().rollup_dsn).await?;
    let limit = Duration::from_secs(60);
    wait_for(&database, &sent, month, &WIDTHS[..1], limit).await.context("the first rows")?;
    wait_for(&database, &sent, hour, &WIDTHS[..1], limit).await.context("the first rows")?;

    for (at, value) in [(month, 50.0), (hour, 51.0)] {
        let at = at + 20 * SECOND;
        post(&client, at, value).await?;
        sent.push((at, value));
    }
    let began = Instant::now();
    for (name, at) in [("a month old", month), ("hours old", hour)] {
        let left = CORRECTED_WITHIN.saturating_sub(began.elapsed());
        wait_for(&database, &sent, at, &WIDTHS, left).await.context(name)?;
        println!("the event that is {name} is in all widths after {:?} at most", began.elapsed());
    }
    Ok(())
}

async fn post(client: &Client, at: i64, value: f64) -> anyhow::Result<()> {
    let body = format!(
        r#"{{"event_id":"{}","device_id":"late-1","device_firmware_version":"1.0.0","timestamp":"{}","metrics":{{"cpu_temp":{value:.1},"vibration_rms":1.0,"supply_voltage":24.0}}}}"#,
        Uuid::new_v4(),
        UnixMicros(at).to_rfc3339(),
    );
    let answer = client.post("/v1/events", "application/json", None, body.into()).await?;
    ensure!(answer.status == 202, "{} {:?}", answer.status, answer.body);
    Ok(())
}

/// Waits until the windows around `at`, of the device and of the fleet, are what was sent.
async fn wait_for(
    database: &tokio_postgres::Client,
    sent: &Sent,
    at: i64,
    widths: &[(&'static str, i64)],
    limit: Duration,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let mut wrong = Vec::new();
        for (table, length) in widths {
            let bucket = at.div_euclid(*length) * length;
            let values = sent
                .iter()
                .filter(|(time, _)| time.div_euclid(*length) * length == bucket)
                .map(|(_, value)| *value);
            let late: Vec<f64> = values.clone().filter(|value| *value != PRESENT).collect();
            let all: Vec<f64> = values.collect();
            for device in ["late-1", ""] {
                // At first there is no table yet.
                let row = rollups::row(database, table, ("sim", device, "cpu_temp"), bucket).await;
                let is_right = |row: &Figures| {
                    let of = |values: &[f64]| naive::figures(values);
                    [of(&late), of(&all)]
                        .into_iter()
                        .flatten()
                        .any(|wanted| wanted.faults(row).is_empty())
                };
                if !matches!(&row, Ok(Some(row)) if is_right(row)) {
                    wrong.push(format!("{table} {device:?}: {row:?}, not of {all:?}"));
                }
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < limit, "after {:?}: {wrong:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_of_backlog_drain_without_rebuilds_and_rebuilding_changes_nothing() {
    let seed = hw_tests::terms::seed();
    let mut stack =
        Stack::start(StackConfig::from_env("backlog").unwrap().impatient()).await.unwrap();
    if let Err(error) = backlog(seed, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn backlog(seed: u64, stack: &mut Stack) -> anyhow::Result<()> {
    let places = stack.places();
    let (stop, tally) = (CancellationToken::new(), Arc::new(Tally::default()));
    let live = FleetConfig::plain(seed, 20, 200.0, 10);
    let load = tokio::spawn(fleet::run(live, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    while tally.accepted.get() < 1_000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Another gateway had no link for four hours; now it has.
    let from = UnixMicros(SystemClock.now().0 - 4 * HOUR);
    let backlog = Backlog {
        seed,
        fleet: "sim".into(),
        gateway: "gw-cut".into(),
        first_device: 0,
        devices: 30,
        schema_version: 2,
        from,
        events_each: 4 * 360,
        interval_micros: 10 * SECOND,
    };
    let (kafka, prefix) = (places.kafka.clone(), places.topic_prefix.clone());
    let written = tokio::task::spawn_blocking(move || backlog.write(&kafka, &prefix)).await??;
    let goal = tally.accepted.get() + 2_000;
    while tally.accepted.get() < goal {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    load.await?;
    drain::wait(&places).await?;
    let truth = tokio::task::block_in_place(|| Truth::read(&places))?;
    ensure!(truth.distinct() > written.events, "{} events on the topic", truth.distinct());
    let verdict = rollups::judge(&places, "sim", &truth).await?;
    println!("{} events of backlog; {verdict}", written.events);
    verdict.check()?;
    let marks = metrics_of(&stack.cores[0], "penstock_rollup_marks_total").await?;
    ensure!(marks == 0.0, "{marks} hours were marked to be rebuilt");

    let to = SystemClock.now();
    let (from, to) = (UnixMicros(from.0 - HOUR).to_rfc3339(), to.to_rfc3339());
    for _ in 0..5 {
        let said = stack.core_command(&["rebuild", "--from", &from, "--to", &to, "--wait"]).await?;
        print!("{said}");
        ensure!(said.contains(" 0 rows changed, 0 deleted"), "{said}");
        let hours: Option<u64> =
            said.split("is done: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        ensure!(hours.is_some_and(|hours| hours >= 30 * 4), "{hours:?} hours of devices: {said}");
    }
    rollups::judge(&places, "sim", &truth).await?.check()
}
