//! The rollups' store: what a flush of the stream may change, and what it must not.

use std::collections::BTreeMap;

use cloud_core::bus::Watermarks;
use cloud_core::failpoint::{Action, Failpoints};
use cloud_core::rollup::RollupConfig;
use cloud_core::rollup::aggregate::Aggregate;
use cloud_core::rollup::window::{DAY, HOUR, MINUTE, hour_of};
use cloud_core::source::next_offset;
use cloud_core::store::publish::{Covered, PublishError};
use cloud_core::store::rollup::import::FinishedRow;
use cloud_core::store::rollup::{DeviceClose, Mark, MinuteRow, RollupStore, StreamFlush, Table};
use futures::future::join_all;

use crate::support::events::T0;
use crate::support::services::Database;

/// Without any wait, so that everything marked is due.
pub(crate) fn impatient() -> RollupConfig {
    RollupConfig {
        connections_max: 8,
        merge_delay_ms: 0,
        day_delay_ms: 0,
        fleet_delay_ms: 0,
        ..RollupConfig::default()
    }
}

/// Rollups in a database of their own, and a stream's partition 0.
pub(crate) struct Scene {
    pub(crate) database: Database,
    pub(crate) store: RollupStore,
    pub(crate) failpoints: Failpoints,
    pub(crate) generation: i64,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let database = Database::create().await;
        let failpoints = Failpoints::default();
        let store = RollupStore::open(&impatient(), &database.dsn, failpoints.clone()).unwrap();
        store.migrate().await.unwrap();
        let mut scene = Self { database, store, failpoints, generation: 0 };
        scene.claim().await;
        scene
    }

    pub(crate) async fn claim(&mut self) {
        let bounds = [Watermarks { partition: 0, low: 0, high: 1_000_000 }];
        let claims = self.store.positions().claim("rollup", "t", &bounds, next_offset).await;
        self.generation = claims.unwrap()[0].generation;
    }

    /// What a flush writes that covers these offsets.
    pub(crate) fn flush(&self, from: i64, to: i64) -> StreamFlush {
        StreamFlush {
            role: "rollup".into(),
            topic: "t".into(),
            covered: vec![Covered { partition: 0, from, to, generation: self.generation }],
            rewinds: vec![(0, from)],
            rows: Vec::new(),
            closes: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Every row of every table, as text, without the times of the database's clock.
    pub(crate) async fn state(&self) -> String {
        let tables = [
            "consumer_position",
            "device_state",
            "rebuild_mark",
            "merge_mark",
            "rollup_1m",
            "rollup_1h",
            "rollup_1d",
        ];
        let client = self.database.client().await;
        let mut state = String::new();
        for table in tables {
            let sql = format!(
                "SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM rollup.{table} t"
            );
            state += &client.query_one(&sql, &[]).await.unwrap().get::<_, String>(0);
            state += "\n";
        }
        state
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.database.number(&sql.replace("FROM ", "FROM rollup.")).await
    }

    /// (metric or device, bucket) → (aggregate, revision) of a table.
    pub(crate) async fn rows(
        &self,
        table: &str,
    ) -> BTreeMap<(String, String, i64), (Vec<u8>, i32)> {
        let sql = format!(
            "SELECT s.device, s.metric, (extract(epoch FROM r.bucket) * 1000000)::int8, r.sketch, \
                    r.revision FROM rollup.{table} r JOIN rollup.series s USING (series_id)"
        );
        let rows = self.database.client().await.query(&sql, &[]).await.unwrap();
        let row = |row: &tokio_postgres::Row| {
            ((row.get(0), row.get(1), row.get(2)), (row.get(3), row.get(4)))
        };
        rows.iter().map(row).collect()
    }
}

pub(crate) fn row(device: &str, minute: i64, values: &[f64], last_offset: i64) -> MinuteRow {
    MinuteRow {
        fleet: "press".into(),
        device: device.into(),
        metric: "cpu_temp".into(),
        minute,
        aggregate: values.iter().copied().collect::<Aggregate>(),
        last_offset,
    }
}

pub(crate) fn close(device: &str, closed_through: i64) -> DeviceClose {
    DeviceClose { fleet: "press".into(), device: device.into(), partition: 0, closed_through }
}

pub(crate) fn late(device: &str, minute: i64, event_offset: i64) -> Mark {
    Mark {
        fleet: "press".into(),
        device: device.into(),
        hour: hour_of(minute),
        partition: 0,
        event_offset: Some(event_offset),
        replay_offset: None,
        ready_through: minute + MINUTE,
        done_through: minute + MINUTE,
        reason: "late",
    }
}

fn everything(scene: &Scene) -> StreamFlush {
    let mut flush = scene.flush(0, 10);
    flush.rows = vec![row("a", T0, &[1.0, 2.0], 8), row("b", T0 + MINUTE, &[0.1], 9)];
    flush.closes = vec![close("a", T0 + MINUTE)];
    flush.marks = vec![late("a", T0 - HOUR, 7)];
    flush
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_migrate_the_rollups_at_once_beside_the_catalog() {
    let database = Database::create().await;
    let stores: Vec<RollupStore> = (0..6)
        .map(|_| RollupStore::open(&impatient(), &database.dsn, Failpoints::default()).unwrap())
        .collect();
    for done in join_all(stores.iter().map(RollupStore::migrate)).await {
        done.unwrap();
    }
    // Without TimescaleDB: native partitions.
    assert_eq!(
        database.number("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'").await,
        0
    );
    let native = "SELECT count(*) FROM pg_partitioned_table \
                  WHERE partrelid::regclass::text LIKE 'rollup.rollup_1_'";
    assert_eq!(database.number(native).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_counts_once_however_often_it_is_tried() {
    let scene = Scene::new().await;
    let flush = everything(&scene);
    let empty = scene.state().await;
    scene.failpoints.arm("rollup_before_commit", Action::Fail(1));
    scene.store.flush_stream(&flush).await.unwrap_err();
    assert_eq!(scene.state().await, empty, "nothing before the commit");
    // Committed, but nobody hears of it.
    scene.failpoints.arm("rollup_after_commit", Action::Fail(1));
    scene.store.flush_stream(&flush).await.unwrap_err();
    let after = scene.state().await;
    assert_ne!(after, empty);
    for _ in 0..3 {
        assert!(scene.store.flush_stream(&flush).await.unwrap().repeated);
        assert_eq!(scene.state().await, after);
    }
    assert_eq!(scene.number("SELECT next_offset FROM consumer_position").await, 10);
    assert_eq!(scene.number("SELECT rewind_offset FROM consumer_position").await, 0);
    assert_eq!(scene.store.device_states(&[0, 1]).await.unwrap(), [close("a", T0 + MINUTE)]);
    assert_eq!(scene.store.device_states(&[1]).await.unwrap(), []);
    // A device with rows and nothing closed is known to be the stream's.
    assert_eq!(scene.number("SELECT count(*) FROM device_state").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_fenced_changes_nothing() {
    let mut scene = Scene::new().await;
    let zombie = everything(&scene);
    scene.claim().await;
    let before = scene.state().await;
    let mut wrong_place = everything(&scene);
    wrong_place.covered[0].from = 3;
    for flush in [zombie, wrong_place] {
        let error = scene.store.flush_stream(&flush).await.unwrap_err();
        assert!(matches!(error, PublishError::Fenced { partition: 0, .. }), "{error}");
        assert_eq!(scene.state().await, before);
    }
    scene.store.flush_stream(&everything(&scene)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_revised_only_when_it_changes_and_never_covers_less() {
    let scene = Scene::new().await;
    let key = ("a".to_owned(), "cpu_temp".to_owned(), T0);
    let write = async |from: i64, values: &[f64], last_offset: i64| {
        let mut flush = scene.flush(from, from + 1);
        flush.rows = vec![row("a", T0, values, last_offset)];
        let done = scene.store.flush_stream(&flush).await.unwrap();
        let revision = scene.rows("rollup_1m").await[&key].1;
        (done.changed, done.refused, revision)
    };
    assert_eq!(write(0, &[1.0], 5).await, (1, 0, 1));
    let marked = "SELECT version FROM merge_mark WHERE device = 'a'";
    assert_eq!(scene.number(marked).await, 1);
    assert_eq!(write(1, &[1.0], 5).await, (0, 0, 1), "the same again");
    assert_eq!(write(2, &[1.0], 6).await, (0, 0, 1), "more is covered, nothing changes");
    assert_eq!(scene.number("SELECT last_offset FROM rollup_1m").await, 6);
    assert_eq!(scene.number(marked).await, 1, "nothing to merge");
    assert_eq!(write(3, &[2.0, 1.0], 7).await, (1, 0, 2));
    assert_eq!(scene.number(marked).await, 2);
    assert_eq!(write(4, &[1.0, 2.0], 6).await, (0, 0, 2), "covers less, says the same");
    assert_eq!(scene.number("SELECT count(*) FROM rebuild_mark").await, 0);
    assert_eq!(write(5, &[1.0], 6).await, (0, 1, 2), "covers less, says something else");
    let mark = "SELECT count(*) FROM rebuild_mark WHERE reason = 'coverage' AND device = 'a'";
    assert_eq!(scene.number(mark).await, 1);
    assert_eq!(scene.number("SELECT last_offset FROM rollup_1m").await, 7);
    let expected: Aggregate = [1.0, 2.0].into_iter().collect();
    assert_eq!(scene.rows("rollup_1m").await[&key].0, expected.encode());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_a_row_are_those_of_its_aggregate() {
    let scene = Scene::new().await;
    let mut flush = scene.flush(0, 1);
    let values: Vec<f64> = (0..40).map(|n| f64::from(n) * 0.1 - 1.0).collect();
    flush.rows = vec![row("a", T0 - 30 * DAY, &values, 3)];
    let aggregate = flush.rows[0].aggregate.clone();
    scene.store.flush_stream(&flush).await.unwrap();
    let sql = "SELECT count, sum, min, max, p50, p95 FROM rollup.rollup_1m";
    let found = scene.database.client().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(found.get::<_, i64>(0), 40);
    let expected = [
        aggregate.sum(),
        aggregate.min(),
        aggregate.max(),
        aggregate.quantile(0.5),
        aggregate.quantile(0.95),
    ];
    assert_eq!([1, 2, 3, 4, 5].map(|column| found.get::<_, f64>(column)), expected);
}

/// Hours of a gateway's backlog beside the present, and years far apart: at once, from several
/// writers, each of which needs the same new partitions.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_made_for_times_far_apart() {
    let mut scene = Scene::new().await;
    let bounds: Vec<Watermarks> =
        (0..4).map(|partition| Watermarks { partition, low: 0, high: 9 }).collect();
    let claims = scene.store.positions().claim("rollup", "t", &bounds, next_offset).await.unwrap();
    scene.generation = claims[0].generation;
    let times = [-400 * DAY, -31 * DAY, -DAY, -MINUTE, 0, DAY, 700 * DAY];
    let write = async |partition: i32| {
        // Its own handle, as another process has.
        let store =
            RollupStore::open(&impatient(), &scene.database.dsn, Failpoints::default()).unwrap();
        let mut flush = scene.flush(0, 1);
        let generation = claims[partition as usize].generation;
        flush.covered = vec![Covered { partition, from: 0, to: 1, generation }];
        flush.rewinds.clear();
        let device = format!("d{partition}");
        flush.rows = times.iter().map(|time| row(&device, T0 + time, &[1.0], 1)).collect();
        store.flush_stream(&flush).await
    };
    for done in join_all((0..4).map(write)).await {
        assert_eq!(done.unwrap().changed, times.len());
    }
    let partitions = "SELECT count(*) FROM pg_inherits \
                      WHERE inhparent = 'rollup.rollup_1m'::regclass";
    assert_eq!(scene.database.number(partitions).await, 6, "two of the times share a day");
    assert_eq!(scene.number("SELECT count(*) FROM rollup_1m").await, 28);
    // One that somebody dropped is made again.
    let client = scene.database.client().await;
    let keep = scene.store.clone();
    let mut flush = scene.flush(1, 2);
    flush.covered[0].generation = claims[0].generation;
    flush.rows = vec![row("d0", T0, &[3.0], 2)];
    keep.flush_stream(&flush).await.unwrap();
    client.batch_execute("DROP TABLE rollup.rollup_1m_20260101").await.unwrap();
    flush.covered[0] = Covered { from: 2, to: 3, ..flush.covered[0] };
    keep.flush_stream(&flush).await.unwrap_err();
    assert_eq!(keep.flush_stream(&flush).await.unwrap().changed, 1);
}

/// A past that is brought in: rows of every width as they are, once, and nothing to be merged.
#[tokio::test]
async fn what_was_finished_elsewhere_is_written_as_it_is() {
    let scene = Scene::new().await;
    let finished = |device: &str, bucket, values: &[f64]| FinishedRow {
        fleet: "f".into(),
        device: device.into(),
        metric: "m".into(),
        bucket,
        aggregate: values.iter().copied().collect(),
    };
    for table in [Table::Minute, Table::Hour, Table::Day] {
        let rows = [finished("a", T0, &[1.0, 4.0]), finished("", T0, &[1.0, 4.0, 2.5])];
        assert_eq!(scene.store.import(table, &rows).await.unwrap(), 2);
        assert_eq!(scene.store.import(table, &rows).await.unwrap(), 0, "the same again");
        let other = [finished("a", T0, &[3.0])];
        assert_eq!(scene.store.import(table, &other).await.unwrap(), 1);
        let range = (T0, T0 + DAY);
        let found = scene.store.series_rows(table, ("f", "a", "m"), range, 10).await.unwrap();
        let found: Vec<_> = found.iter().map(|r| (r.bucket, r.count, r.p95, r.revision)).collect();
        assert_eq!(found, [(T0, 1, 3.0, 2)]);
        let fleet = scene.store.series_rows(table, ("f", "", "m"), range, 10).await.unwrap();
        assert_eq!((fleet.len(), fleet[0].count, fleet[0].sum), (1, 3, 7.5));
    }
    assert_eq!(scene.number("SELECT count(*) FROM merge_mark").await, 0);
    assert_eq!(scene.number("SELECT count(*) FROM device_state").await, 0);
}
