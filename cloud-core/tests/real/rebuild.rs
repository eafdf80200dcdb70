//! Rollups from raw files: what a rebuild must put right, and what it must leave alone. The raw
//! writer and Kafka are real; the stream's part is written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloud_core::bus::Watermarks;
use cloud_core::cli::{self, ConfigArgs, Rebuild};
use cloud_core::config::CoreConfig;
use cloud_core::failpoint::{Action, Failpoints};
use cloud_core::rebuild::config::RebuildConfig;
use cloud_core::rebuild::metrics::RebuildMetrics;
use cloud_core::rebuild::worker::RebuildWorker;
use cloud_core::rollup::aggregate::Aggregate;
use cloud_core::rollup::counted::CountedMetrics;
use cloud_core::rollup::window::{DAY, HOUR, MINUTE, hour_of, minute_of};
use cloud_core::source::next_offset;
use cloud_core::store::publish::Covered;
use cloud_core::store::rollup::request::Whose;
use cloud_core::store::rollup::{DeviceClose, Mark, MinuteRow, RollupStore, StreamFlush};
use penstock_common::clock::ManualClock;
use penstock_common::event::UnixMicros;
use penstock_common::schema::SchemaSet;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::rollup_merge::{merge_all, naive};
use crate::rollup_store::impatient;
use crate::support::events::{Event, SECOND, Sent, T0};
use crate::support::{PARTITIONS, Rig, Running, Store, eventually};

struct World {
    rig: Rig,
    running: Running,
    rollups: RollupStore,
    failpoints: Failpoints,
    generations: Vec<i64>,
    flushed: i64,
}

type Rows = BTreeMap<(String, String, i64), Vec<u8>>;

impl World {
    async fn new() -> Self {
        let rig = Rig::new(Store::Directory).await;
        let failpoints = Failpoints::default();
        let rollups =
            RollupStore::open(&impatient(), &rig.database.dsn, failpoints.clone()).unwrap();
        rollups.migrate().await.unwrap();
        let bounds: Vec<Watermarks> =
            (0..PARTITIONS).map(|partition| Watermarks { partition, low: 0, high: 99 }).collect();
        let claims = rollups.positions().claim("rollup", "t", &bounds, next_offset).await.unwrap();
        let generations = claims.iter().map(|claim| claim.generation).collect();
        let running = rig.start();
        Self { rig, running, rollups, failpoints, generations, flushed: 0 }
    }

    fn worker(&self) -> RebuildWorker {
        RebuildWorker {
            rollups: self.rollups.clone(),
            catalog: self.rig.catalog.clone(),
            objects: self.rig.objects.clone(),
            counted: CountedMetrics::new(&SchemaSet::baked().unwrap()),
            config: RebuildConfig { delay_ms: 0, ..RebuildConfig::default() },
            lateness: 10 * MINUTE,
            late_days_max: 88,
            events_topic: self.rig.topic(),
            replay_topic: "none".into(),
            clock: Arc::new(ManualClock::new(UnixMicros(T0 + 2 * DAY))),
            metrics: RebuildMetrics::new(&Registry::new()).unwrap(),
        }
    }

    /// Stores events as raw.
    async fn store(&self, events: &[Event]) -> Vec<Sent> {
        let sent = self.rig.send(events).await;
        self.rig.drained(&sent).await;
        sent
    }

    /// What the stream does besides: rows, closes and marks.
    async fn stream(&mut self, rows: Vec<MinuteRow>, closes: Vec<DeviceClose>, marks: Vec<Mark>) {
        let (from, to) = (self.flushed, self.flushed + 1);
        let covered = Covered { partition: 0, from, to, generation: self.generations[0] };
        self.flushed = to;
        let flush = StreamFlush {
            role: "rollup".into(),
            topic: "t".into(),
            covered: vec![covered],
            rewinds: vec![],
            rows,
            closes,
            marks,
        };
        self.rollups.flush_stream(&flush).await.unwrap();
    }

    /// Rebuilds until no mark and no request waits, and merges.
    async fn settle(&self) {
        let worker = self.worker();
        let open = "SELECT count(*) FROM rollup.rebuild_request WHERE done_at IS NULL";
        eventually("everything is rebuilt", async || {
            worker.round().await.unwrap();
            self.rollups.rebuild_backlog().await.unwrap().waiting == 0
                && self.rig.database.number(open).await == 0
        })
        .await;
        merge_all(&self.rollups).await;
    }

    async fn rows(&self) -> [Rows; 3] {
        let mut all: [Rows; 3] = Default::default();
        for (rows, table) in all.iter_mut().zip(["rollup_1m", "rollup_1h", "rollup_1d"]) {
            let sql = format!(
                "SELECT s.device, s.metric, (extract(epoch FROM r.bucket) * 1000000)::int8, \
                   r.sketch FROM rollup.{table} r JOIN rollup.series s USING (series_id)"
            );
            let found = self.rig.database.client().await.query(&sql, &[]).await.unwrap();
            *rows = found.iter().map(|r| ((r.get(0), r.get(1), r.get(2)), r.get(3))).collect();
        }
        all
    }

    /// All rows whole, with revisions and times.
    async fn exact(&self) -> Vec<String> {
        let client = self.rig.database.client().await;
        let mut all = Vec::new();
        for table in ["rollup_1m", "rollup_1h", "rollup_1d"] {
            let sql = format!("SELECT r::text FROM rollup.{table} r ORDER BY series_id, bucket");
            let rows = client.query(&sql, &[]).await.unwrap();
            all.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        all
    }

    async fn request(&self, from: i64, to: i64) -> i64 {
        self.rollups.request_rebuild(from, to, &Whose::default()).await.unwrap()
    }
}

fn assert_same(found: &[Rows; 3], expected: &[Rows; 3]) {
    let show = |bytes: &Vec<u8>| Aggregate::decode(bytes).map(|a| (a.count(), a.sum()));
    for (found, expected) in found.iter().zip(expected) {
        let keys: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
        let other = keys.into_iter().filter(|key| found.get(*key) != expected.get(*key));
        let pair = |key| (key, found.get(key).map(show), expected.get(key).map(show));
        let others: Vec<_> = other.map(pair).collect();
        assert!(others.is_empty(), "{} found otherwise, first {:#?}", others.len(), &others[..1]);
    }
}

/// The values of minutes as the contract says, from all copies of all events: by identity, the
/// least copy counts.
fn values(events: &[Event]) -> BTreeMap<(String, String, i64), Vec<f64>> {
    let mut canonical: BTreeMap<(&str, &str, u128), &Event> = BTreeMap::new();
    for event in events {
        let key = (&*event.fleet, &*event.device, event.id.as_u128());
        let least = canonical.entry(key).or_insert(event);
        let order = |e: &Event| (e.received_at, e.gateway.clone(), e.epoch, e.seq);
        if order(event) < order(least) {
            *least = event;
        }
    }
    let mut values: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for event in canonical.values() {
        let key = (event.device.clone(), "cpu_temp".to_owned(), minute_of(event.effective()));
        values.entry(key).or_default().push(event.cpu_temp);
    }
    values
}

fn close(sent: &Sent, closed_through: i64) -> DeviceClose {
    let device = sent.key.as_str().into();
    DeviceClose { fleet: "press-line".into(), device, partition: sent.partition, closed_through }
}

fn mark(device: &str, time: i64, sent: Option<&Sent>) -> Mark {
    let end = minute_of(time) + MINUTE;
    Mark {
        fleet: "press-line".into(),
        device: device.into(),
        hour: hour_of(time),
        partition: sent.map_or(-1, |sent| sent.partition),
        event_offset: sent.map(|sent| sent.offset),
        replay_offset: None,
        ready_through: end,
        done_through: end,
        reason: "late",
    }
}

/// An hour and a bit of three devices; every third value is new.
fn hour_of_events() -> Vec<Event> {
    let event = |device: usize, n: i64| {
        let mut event = Event::new(&format!("dev-{device}"), n * 20);
        event.cpu_temp = 20.0 + (n * 7 % 100) as f64 * 0.1 + device as f64;
        event
    };
    (0..3).flat_map(|device| (0..200).map(move |n| event(device, n))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_old_event_corrects_every_level() {
    let mut world = World::new().await;
    let mut events = hour_of_events();
    let old = T0 - 30 * DAY;
    let shift = old - T0;
    for event in &mut events {
        (event.time, event.received_at) = (event.time + shift, event.received_at + shift);
    }
    let sent = world.store(&events).await;
    world.request(old, old + 2 * HOUR).await;
    world.settle().await;
    assert_same(&world.rows().await, &naive(&values(&events)));

    let closed = old + 2 * HOUR;
    let mut late = Event::new("dev-1", 61);
    (late.time, late.cpu_temp) = (old + 61 * SECOND, -5.0);
    let closes = sent.iter().map(|sent| close(sent, closed));
    let closes: BTreeMap<Arc<str>, DeviceClose> = closes.map(|c| (c.device.clone(), c)).collect();
    world.stream(vec![], closes.into_values().collect(), vec![]).await;
    let sent = world.store(&[late.clone()]).await;
    world.stream(vec![], vec![], vec![mark("dev-1", late.time, Some(&sent[0]))]).await;
    let before = world.exact().await;
    world.settle().await;
    events.push(late);
    assert_same(&world.rows().await, &naive(&values(&events)));
    // The minute, the hour, the day, of the device and of its fleet: nothing else.
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (before.into_iter().collect(), world.exact().await.into_iter().collect());
    assert_eq!(after.difference(&before).count(), 6);
    assert_eq!(world.rollups.rebuild_backlog().await.unwrap().parked, 0);
    world.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_conflicts_are_as_the_contract_says_and_five_times_change_nothing() {
    let world = World::new().await;
    let mut events = hour_of_events();
    // Duplicates, in other files too; a copy with other bytes; an unknown metric.
    let mut copies: Vec<Event> = events.iter().step_by(5).cloned().collect();
    for (n, copy) in (0..).zip(&mut copies) {
        copy.gateway = "plant-1".into();
        copy.received_at += if n % 2 == 0 { SECOND } else { -SECOND };
        if n % 7 == 0 {
            copy.cpu_temp += 100.0;
        }
        if n % 5 == 0 {
            copy.extra_metric = Some("unheard_of");
        }
    }
    // A clock that was ahead, and the retry received once the time had come: it counts where the
    // first was received, hours earlier.
    let mut ahead = Event::new("dev-0", 1_800);
    ahead.received_at = ahead.time - 5 * HOUR;
    let mut retry = ahead.clone();
    (retry.received_at, retry.seq) = (ahead.time + SECOND, 77);
    copies.extend([ahead, retry]);
    let mut half = events.split_off(300);
    half.extend(copies);
    world.store(&events).await;
    world.store(&half).await;
    events.extend(half);
    let expected = naive(&values(&events));
    let first = world.request(T0 - 6 * HOUR, T0 + 2 * HOUR).await;
    world.settle().await;
    assert_same(&world.rows().await, &expected);
    let state = world.rollups.request_state(first).await.unwrap().unwrap();
    let minutes = expected[0].keys().filter(|(device, ..)| !device.is_empty()).count();
    assert_eq!((state.done, state.rows_changed), (true, minutes as i64));

    let before = world.exact().await;
    for _ in 0..5 {
        let request = world.request(T0 - 6 * HOUR, T0 + 2 * HOUR).await;
        world.settle().await;
        let state = world.rollups.request_state(request).await.unwrap().unwrap();
        assert!(state.done && state.marks > 0 && state.marks_left == 0, "{state:?}");
        assert_eq!((state.rows_changed, state.rows_deleted), (0, 0));
        assert_eq!(world.exact().await, before);
    }
    // So small a memory that devices have to be taken apart.
    let mut worker = world.worker();
    worker.config.events_max = 150;
    world.request(T0, T0 + HOUR).await;
    eventually("rebuilt in pieces", async || {
        worker.round().await.unwrap();
        worker.metrics.rebuilt.get() >= 3
    })
    .await;
    assert_eq!(world.exact().await, before);
    world.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_waits_until_raw_has_come_far_enough() {
    let mut world = World::new().await;
    let events = hour_of_events();
    let sent = world.store(&events).await;
    let last = sent.iter().rfind(|sent| sent.key == "dev-0").unwrap();
    let (partition, next) = (last.partition, last.offset + 1);
    let ahead = Sent { partition, offset: next, ..last.clone() };
    // The mark knows of an event that raw has not stored; the rows of dev-1 of others.
    let mut row = crate::rollup_store::row("dev-1", T0, &[1.0], 1_000_000);
    row.fleet = "press-line".into();
    let marks = vec![mark("dev-0", T0, Some(&ahead)), mark("dev-1", T0, None)];
    let of = |key: &str| sent.iter().find(|sent| sent.key == key).unwrap();
    let closes = vec![close(of("dev-0"), T0 + HOUR), close(of("dev-1"), T0 + HOUR)];
    world.stream(vec![row], closes, marks).await;
    let worker = world.worker();
    let before = world.exact().await;
    for _ in 0..3 {
        assert_eq!(worker.round().await.unwrap(), 0);
    }
    assert_eq!(world.exact().await, before);
    assert_eq!(world.rollups.rebuild_backlog().await.unwrap().waiting, 2);
    // More comes: the mark of dev-0 can be worked on.
    let late = Event::new("dev-0", 5);
    let sent = world.store(&[late]).await;
    assert!(sent[0].offset >= next);
    eventually("rebuilt", async || {
        worker.round().await.unwrap();
        world.rollups.rebuild_backlog().await.unwrap().waiting == 1
    })
    .await;
    world.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_minutes_are_the_streams() {
    let mut world = World::new().await;
    let events = hour_of_events();
    let sent = world.store(&events).await;
    let of = sent.iter().find(|sent| sent.key == "dev-0").unwrap();
    let mut open = crate::rollup_store::row("dev-0", T0 + 30 * MINUTE, &[1.0], 0);
    let mut wrong = crate::rollup_store::row("dev-0", T0 + 3 * MINUTE, &[1.0], 0);
    let mut none = crate::rollup_store::row("dev-0", T0 + 4 * MINUTE, &[1.0], 0);
    (open.fleet, wrong.fleet) = ("press-line".into(), "press-line".into());
    (none.fleet, none.metric) = ("press-line".into(), "humidity".into());
    let closed = T0 + 30 * MINUTE;
    let marks = vec![mark("dev-0", T0 + 10 * MINUTE, None), mark("dev-0", T0 + 40 * MINUTE, None)];
    world.stream(vec![open.clone(), wrong, none], vec![close(of, closed)], marks).await;
    world.settle().await;
    let [minutes, hours, _] = world.rows().await;
    let expected = values(&events)
        .into_iter()
        .filter(|((device, _, minute), _)| device == "dev-0" && minute + MINUTE <= closed);
    let mut expected: BTreeMap<_, _> = expected.collect();
    expected.insert(("dev-0".into(), "cpu_temp".into(), open.minute), vec![1.0]);
    let [expected_minutes, expected_hours, _] = naive(&expected);
    // The hour without humidity, too.
    assert_same(&[minutes, hours, Rows::new()], &[expected_minutes, expected_hours, Rows::new()]);
    // The later of the two marks waits for the device.
    let backlog = world.rollups.rebuild_backlog().await.unwrap();
    assert_eq!((backlog.waiting, backlog.parked), (0, 1));
    world.stream(vec![], vec![close(of, T0 + HOUR)], vec![]).await;
    let worker = world.worker();
    eventually("confirmed", async || {
        worker.round().await.unwrap();
        world.rollups.rebuild_backlog().await.unwrap().parked == 0
    })
    .await;
    merge_all(&world.rollups).await;
    let [minutes, ..] = world.rows().await;
    let hour = (T0..T0 + HOUR).step_by(MINUTE as usize);
    let found = hour.filter(|m| minutes.contains_key(&("dev-0".into(), "cpu_temp".into(), *m)));
    assert_eq!(found.count(), 60);
    world.running.stop().await;
}

/// A device that never comes back to close its minutes is rebuilt after a while all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_a_silent_device_is_not_put_off_for_ever() {
    let mut world = World::new().await;
    let events: Vec<Event> = hour_of_events().into_iter().filter(|e| e.device == "dev-0").collect();
    let sent = world.store(&events[..60]).await;
    let late = mark("dev-0", T0 + 19 * MINUTE, sent.last());
    world.stream(vec![], vec![close(&sent[0], T0 + 5 * MINUTE)], vec![late]).await;
    let mut worker = world.worker();
    assert_eq!(worker.round().await.unwrap(), 0);
    worker.config.settle_ms = 0;
    assert_eq!(worker.round().await.unwrap(), 1);
    assert_eq!(worker.round().await.unwrap(), 0, "parked until the device closes it");
    let [minutes, ..] = world.rows().await;
    assert_eq!(minutes.len(), 20);
    let backlog = world.rollups.rebuild_backlog().await.unwrap();
    assert_eq!((backlog.waiting, backlog.parked), (0, 1));
    world.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_left_out_and_old_hours_stay_as_they_are() {
    let world = World::new().await;
    let mut events = hour_of_events();
    let poison = events[10].clone();
    world.store(&events).await;
    let Event { gateway, epoch, seq, .. } = &poison;
    let (epoch, seq) = (epoch.cast_signed(), seq.cast_signed());
    world.rollups.remember_poison(gateway, epoch, seq, "stage_panic").await.unwrap();
    let request = world.request(T0, T0 + 2 * HOUR).await;
    world.settle().await;
    // The devices of this test share gateway, epoch and number.
    events.retain(|event| event.seq != poison.seq);
    assert_same(&world.rows().await, &naive(&values(&events)));
    assert!(world.rollups.request_state(request).await.unwrap().unwrap().done);

    let before = world.exact().await;
    let mut worker = world.worker();
    worker.clock = Arc::new(ManualClock::new(UnixMicros(T0 + 89 * DAY)));
    let request = world.request(T0 - 3 * HOUR, T0 + 2 * HOUR).await;
    world.rollups.mark(&[mark("dev-0", T0, None)]).await.unwrap();
    eventually("all refused", async || {
        worker.round().await.unwrap();
        world.rollups.request_state(request).await.unwrap().unwrap().done
    })
    .await;
    let state = world.rollups.request_state(request).await.unwrap().unwrap();
    assert_eq!((state.hours_refused, state.marks), (5, 0));
    assert_eq!(world.rollups.rebuild_backlog().await.unwrap().waiting, 0);
    assert_eq!(worker.metrics.refused.get(), 6);
    assert_eq!(world.exact().await, before);
    world.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_commit_of_a_rebuild_does_no_harm() {
    let world = World::new().await;
    let events = hour_of_events();
    world.store(&events).await;
    for point in ["rebuild_before_commit", "rebuild_after_commit"] {
        world.request(T0, T0 + 2 * HOUR).await;
        world.failpoints.arm(point, Action::Fail(1));
        let worker = world.worker();
        eventually(point, async || worker.round().await.is_err()).await;
        // Given back for a while; the test does not wait for that.
        let now = "UPDATE rollup.rebuild_mark SET not_before = now()";
        world.rig.database.client().await.execute(now, &[]).await.unwrap();
        world.settle().await;
        assert_same(&world.rows().await, &naive(&values(&events)));
    }
    world.running.stop().await;
}

/// `cloud-core rebuild --wait`, with a worker at work that then drains.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_asks_and_waits() {
    let world = World::new().await;
    let events = hour_of_events();
    world.store(&events).await;
    let (worker, stop) = (world.worker(), CancellationToken::new());
    let metrics = worker.metrics.clone();
    let running = tokio::spawn(worker.run(stop.clone()));
    let mut config = CoreConfig { rollup: impatient(), ..CoreConfig::default() };
    config.rollup.dsn = world.rig.database.dsn.clone();
    let asked = Rebuild {
        from: "2026-01-01T00:20:00Z".into(),
        to: "2026-01-01T01:00:00.000001Z".into(),
        fleet: Some("press-line".into()),
        device: Some("dev-1".into()),
        wait: true,
        config: ConfigArgs { config: None, set: vec![] },
    };
    cli::rebuild(config, asked).await.unwrap();
    stop.cancel();
    running.await.unwrap();
    assert_eq!(metrics.rebuilt.get(), 2, "two hours of one device");
    merge_all(&world.rollups).await;
    let of_device = values(&events).into_iter().filter(|((device, ..), _)| device == "dev-1");
    assert_same(&world.rows().await, &naive(&of_device.collect()));
    world.running.stop().await;
}
