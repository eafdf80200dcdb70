//! The rollups from the bus to rows: what was sent, computed naively.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloud_core::bus::kafka::KafkaConsumer;
use cloud_core::failpoint::Failpoints;
use cloud_core::rollup::counted::CountedMetrics;
use cloud_core::rollup::merge_worker::{MergeMetrics, MergeWorker};
use cloud_core::rollup::metrics::RollupMetrics;
use cloud_core::rollup::stage::{RollupParts, RollupSink};
use cloud_core::rollup::{ROLE, RollupConfig};
use cloud_core::source::metrics::SourceMetrics;
use cloud_core::source::poison::PoisonMemory;
use cloud_core::source::runner::Runner;
use cloud_core::store::rollup::RollupStore;
use penstock_common::clock::SystemClock;
use penstock_common::schema::SchemaSet;
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::events::{Event, fleet};
use crate::support::{Rig, Store, eventually};

fn config(rig: &Rig) -> RollupConfig {
    RollupConfig {
        dsn: rig.database.dsn.clone(),
        flush_interval_ms: 100,
        provisional_delay_ms: 0,
        merge_delay_ms: 0,
        day_delay_ms: 0,
        fleet_delay_ms: 0,
        ..RollupConfig::default()
    }
}

fn store(rig: &Rig) -> RollupStore {
    RollupStore::open(&config(rig), "", Failpoints::default()).unwrap()
}

struct Member {
    task: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

fn start(rig: &Rig) -> Member {
    let registry = Registry::new();
    let store = store(rig);
    let parts = RollupParts {
        store: store.clone(),
        counted: CountedMetrics::new(&SchemaSet::baked().unwrap()),
        config: config(rig),
        late_days_max: 3_650,
        producer: rig.producer.clone(),
        topic: rig.topic(),
        dead_letter_topic: rig.dead_letter_topic(),
        clock: Arc::new(SystemClock),
        metrics: RollupMetrics::new(&registry).unwrap(),
    };
    let group = format!("{}rollup", rig.kafka.topic_prefix);
    let stop = CancellationToken::new();
    let runner = Runner {
        role: ROLE,
        consumer: Box::new(KafkaConsumer::open(&rig.kafka, &group, &rig.topic()).unwrap()),
        sink: RollupSink::new(parts),
        positions: store.positions(),
        config: config(rig).runner(),
        counters: SourceMetrics::new(&registry).unwrap().of(ROLE, "raw-events"),
        poison: PoisonMemory::default(),
        stop: stop.clone(),
    };
    Member { task: tokio::spawn(runner.run()), stop }
}

impl Member {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// (device, window begin in s) → (count, sum) of `cpu_temp`; the empty device is the fleet.
type Table = BTreeMap<(String, i64), (i64, f64)>;

fn naive(events: &[Event], width_s: i64) -> Table {
    let mut rows = Table::new();
    for event in events {
        let bucket = event.effective().div_euclid(width_s * 1_000_000) * width_s;
        for device in [event.device.as_str(), ""] {
            let row = rows.entry((device.to_owned(), bucket)).or_default();
            row.0 += 1;
            // Quarters: exact.
            row.1 += event.cpu_temp;
        }
    }
    rows
}

async fn table(rig: &Rig, name: &str) -> Table {
    let sql = format!(
        "SELECT device, extract(epoch FROM bucket)::int8, count, sum \
         FROM rollup.{name} JOIN rollup.series USING (series_id) WHERE metric = 'cpu_temp'"
    );
    let rows = rig.database.client().await.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3)))).collect()
}

/// Merges what is marked until all tables are as computed naively.
async fn assert_tables(rig: &Rig, events: &[Event]) {
    let metrics = MergeMetrics::new(&Registry::new()).unwrap();
    let worker = MergeWorker { store: store(rig), metrics };
    for (name, width_s) in [("rollup_1m", 60), ("rollup_1h", 3_600), ("rollup_1d", 86_400)] {
        let expected = naive(events, width_s);
        eventually(name, async || {
            worker.round().await.unwrap();
            table(rig, name).await == expected
        })
        .await;
    }
}

fn varied(devices: usize, each: i64) -> Vec<Event> {
    let mut events = fleet(devices, each);
    for (n, event) in events.iter_mut().enumerate() {
        event.cpu_temp = 40.0 + f64::from(u32::try_from(n % 97).unwrap()) / 4.0;
        event.seq = n as u64;
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_all_widths_are_those_of_the_events() {
    let rig = Rig::new(Store::Directory).await;
    store(&rig).migrate().await.unwrap();
    let member = start(&rig);
    let events = varied(12, 400);
    rig.send(&events).await;
    // Retries change nothing.
    rig.send(&events[..1_000]).await;
    assert_tables(&rig, &events).await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_may_die_and_come_at_any_time() {
    let rig = Rig::new(Store::Directory).await;
    store(&rig).migrate().await.unwrap();
    let events = varied(12, 300);
    let first = start(&rig);
    let mut member = start(&rig);
    for part in events.chunks(450) {
        rig.send(part).await;
        member.crash().await;
        member = start(&rig);
    }
    first.stop().await;
    assert_tables(&rig, &events).await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_other_bytes_is_a_dead_letter_and_marks_its_hour() {
    let rig = Rig::new(Store::Directory).await;
    store(&rig).migrate().await.unwrap();
    let member = start(&rig);
    let first = Event::new("dev-1", 1_800);
    let other = Event { cpu_temp: 99.5, received_at: first.received_at + 9, ..first.clone() };
    rig.send(&[first, other.clone()]).await;
    let letters = rig.read_topic(&rig.dead_letter_topic(), 1).await;
    assert_eq!(letters[0].payload(), other.payload().as_bytes());
    let sql = "SELECT count(*) FROM rollup.rebuild_mark WHERE device = 'dev-1'";
    eventually("the mark", async || rig.database.number(sql).await == 1).await;
    member.stop().await;
}
