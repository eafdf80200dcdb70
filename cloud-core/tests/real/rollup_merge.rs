//! Hours, days and fleets from finer rows, while these change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use cloud_core::bus::Watermarks;
use cloud_core::failpoint::{Action, Failpoints};
use cloud_core::rollup::aggregate::Aggregate;
use cloud_core::rollup::merge_worker::{MergeMetrics, MergeWorker};
use cloud_core::rollup::window::{HOUR, MINUTE, day_of, hour_of};
use cloud_core::source::next_offset;
use cloud_core::store::publish::Covered;
use cloud_core::store::rollup::{MinuteRow, RollupStore};
use futures::future::join_all;
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::rollup_store::{Scene, close, impatient, row};
use crate::support::events::T0;
use crate::support::eventually;
use crate::support::proxy::Proxy;

pub(crate) fn worker(store: &RollupStore) -> MergeWorker {
    MergeWorker { store: store.clone(), metrics: MergeMetrics::new(&Registry::new()).unwrap() }
}

/// Merges until nothing is left to be merged.
pub(crate) async fn merge_all(store: &RollupStore) {
    let worker = worker(store);
    eventually("everything is merged", async || {
        worker.round().await.unwrap();
        store.merge_backlog().await.unwrap().0 == 0
    })
    .await;
}

/// The four levels above minutes of devices, by table: (device, metric, bucket) → bytes.
type Levels = [BTreeMap<(String, String, i64), Vec<u8>>; 3];

/// What the tables should hold: from the values of the minutes of devices, at once.
pub(crate) fn naive(minutes: &BTreeMap<(String, String, i64), Vec<f64>>) -> Levels {
    let mut values: [BTreeMap<(String, String, i64), Aggregate>; 3] = Default::default();
    for ((device, metric, minute), of_minute) in minutes {
        let buckets = [*minute, hour_of(*minute), day_of(*minute)];
        for (level, bucket) in values.iter_mut().zip(buckets) {
            for device in [device.as_str(), ""] {
                let key = (device.to_owned(), metric.clone(), bucket);
                let aggregate = level.entry(key).or_default();
                of_minute.iter().for_each(|value| aggregate.add(*value));
            }
        }
    }
    values.map(|level| level.into_iter().map(|(key, a)| (key, a.encode())).collect())
}

pub(crate) async fn stored(scene: &Scene) -> Levels {
    let mut levels = Levels::default();
    for (level, table) in levels.iter_mut().zip(["rollup_1m", "rollup_1h", "rollup_1d"]) {
        *level =
            scene.rows(table).await.into_iter().map(|(key, (bytes, _))| (key, bytes)).collect();
    }
    levels
}

fn seed() -> u64 {
    let seed = std::env::var("PENSTOCK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("replay with PENSTOCK_TEST_SEED={seed}");
    seed
}

/// Writers that extend and change minutes over two days, workers that merge meanwhile: in the end
/// every row is as if it had been computed at once from all values, to the byte.
#[tokio::test(flavor = "multi_thread")]
async fn merges_under_writers_end_as_if_computed_at_once() {
    const WRITERS: i32 = 3;
    let seed = seed();
    let scene = Scene::new().await;
    let bounds: Vec<Watermarks> =
        (1..=WRITERS).map(|partition| Watermarks { partition, low: 0, high: 99 }).collect();
    let claims = scene.store.positions().claim("rollup", "t", &bounds, next_offset).await.unwrap();
    let writing = AtomicBool::new(true);
    let write = async |partition: i32| {
        let mut random = StdRng::seed_from_u64(seed + partition as u64);
        let mut values: BTreeMap<(String, String, i64), Vec<f64>> = BTreeMap::new();
        let generation = claims[partition as usize - 1].generation;
        for n in 0..25 {
            let mut flush = scene.flush(n, n + 1);
            flush.covered = vec![Covered { partition, from: n, to: n + 1, generation }];
            flush.rewinds.clear();
            let mut rows: BTreeMap<(String, String, i64), MinuteRow> = BTreeMap::new();
            for _ in 0..random.random_range(1..30) {
                let device = format!("d{partition}-{}", random.random_range(0..4));
                let minute = T0 + random.random_range(0..40) * 71 * MINUTE;
                let metric = ["cpu_temp", "humidity"][random.random_range(0..2)];
                let key = (device.clone(), metric.to_owned(), minute);
                let of_minute = values.entry(key.clone()).or_default();
                of_minute.push(random.random_range(-1e3..1e3));
                let mut new = row(&device, minute, of_minute, n);
                new.metric = metric.into();
                rows.insert(key, new);
            }
            flush.rows = rows.into_values().collect();
            let device = format!("d{partition}-0");
            flush.closes = vec![close(&device, T0 + n * HOUR)];
            scene.store.flush_stream(&flush).await.unwrap();
        }
        values
    };
    let merge = async || {
        let store = RollupStore::open(&impatient(), &scene.database.dsn, Failpoints::default());
        let worker = worker(&store.unwrap());
        while writing.load(Ordering::Relaxed) {
            worker.round().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let all = async {
        let values = join_all((1..=WRITERS).map(write)).await;
        writing.store(false, Ordering::Relaxed);
        values
    };
    let (values, ..) = tokio::join!(all, merge(), merge(), merge());
    merge_all(&scene.store).await;
    let expected = naive(&values.into_iter().flatten().collect());
    assert_eq!(stored(&scene).await, expected);
    // Once more: nothing changes.
    let rows = "SELECT string_agg(r::text, ';' ORDER BY series_id, bucket) FROM rollup.rollup_1d r";
    let client = scene.database.client().await;
    let before: String = client.query_one(rows, &[]).await.unwrap().get(0);
    let again = "INSERT INTO rollup.merge_mark (level, fleet, device, bucket, urgent, due_at) \
                 SELECT DISTINCT '1d', fleet, device, (extract(epoch FROM bucket) * 1000000)::int8, \
                   true, now() FROM rollup.rollup_1d JOIN rollup.series USING (series_id)";
    client.execute(again, &[]).await.unwrap();
    merge_all(&scene.store).await;
    assert_eq!(client.query_one(rows, &[]).await.unwrap().get::<_, String>(0), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_fails_changes_nothing_and_is_done_again() {
    let scene = Scene::new().await;
    let mut flush = scene.flush(0, 1);
    flush.rows = vec![row("a", T0, &[1.0], 1), row("b", T0, &[0.1, 0.2], 1)];
    scene.store.flush_stream(&flush).await.unwrap();
    let before = scene.state().await;
    for group in scene.store.merge_groups(10).await.unwrap() {
        scene.failpoints.arm("merge_before_commit", Action::Fail(1));
        scene.store.merge(group, 10).await.unwrap_err();
        assert_eq!(scene.state().await, before);
    }
    merge_all(&scene.store).await;
    let minutes = [("a", vec![1.0]), ("b", vec![0.1, 0.2])];
    let minutes = minutes.map(|(d, v)| ((d.to_owned(), "cpu_temp".to_owned(), T0), v));
    assert_eq!(stored(&scene).await, naive(&BTreeMap::from(minutes)));
    // Rows of a device cover what its minutes cover; a fleet's say nothing of offsets.
    let offsets = "SELECT count(*) FROM rollup_1d WHERE last_offset = 1";
    assert_eq!(scene.number(offsets).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_holds_up_its_own_window_alone() {
    let scene = Scene::new().await;
    let mut flush = scene.flush(0, 1);
    flush.rows = vec![row("a", T0, &[1.0], 1), row("b", T0 + HOUR, &[2.0], 1)];
    scene.store.flush_stream(&flush).await.unwrap();
    let client = scene.database.client().await;
    let damage = "UPDATE rollup.rollup_1m SET sketch = 'x' WHERE sum = 1";
    client.execute(damage, &[]).await.unwrap();
    let worker = worker(&scene.store);
    eventually("the sound window is merged", async || {
        worker.round().await.unwrap();
        scene.number("SELECT count(*) FROM rollup_1d").await == 2
    })
    .await;
    assert_eq!(scene.number("SELECT count(*) FROM merge_mark").await, 2, "a's hour, the minute");
    assert!(worker.metrics.failures() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_goes_away_and_comes_back() {
    let scene = Scene::new().await;
    let (head, name) = scene.database.dsn.rsplit_once('/').unwrap();
    let (user, target) = head.rsplit_once('@').unwrap();
    let proxy = Proxy::to(target.to_owned()).await;
    let dsn = format!("{user}@{}/{name}", proxy.address);
    let behind = RollupStore::open(&impatient(), &dsn, Failpoints::default()).unwrap();
    let (worker, stop) = (worker(&behind), CancellationToken::new());
    let metrics = worker.metrics.clone();
    let running = tokio::spawn(worker.run(stop.clone()));
    proxy.cut();
    let mut flush = scene.flush(0, 1);
    flush.rows = vec![row("a", T0, &[1.0], 1)];
    scene.store.flush_stream(&flush).await.unwrap();
    eventually("the worker has noticed", async || metrics.failures() > 0).await;
    proxy.mend();
    eventually("it has caught up", async || {
        scene.store.merge_backlog().await.unwrap().0 == 0
            && scene.number("SELECT count(*) FROM rollup_1d").await == 2
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}
