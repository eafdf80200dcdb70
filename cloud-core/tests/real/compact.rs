//! Compaction: readers see the same before, during and after it.

use std::sync::Arc;

use cloud_core::compact::CompactConfig;
use cloud_core::compact::job::Compactor;
use cloud_core::compact::metrics::CompactMetrics;
use cloud_core::compact::stage::{Graveyard, look};
use cloud_core::failpoint::{Action, Failpoints};
use cloud_core::query::row::StoredEvent;
use cloud_core::query::{Queries, RawQuery};
use cloud_core::raw::RawConfig;
use cloud_core::raw::sweep::sweep;
use cloud_core::store::catalog::Catalog;
use cloud_core::store::postgres;
use penstock_common::clock::SystemClock;
use penstock_common::codec::decode_dead_letter;
use prometheus::Registry;

use crate::support::events::{Event, fleet};
use crate::support::{Rig, Store};

fn compactor(rig: &Rig, failpoints: &Failpoints, files_max: usize) -> Compactor {
    let pool = postgres::pool(&rig.catalog_config).unwrap();
    Compactor {
        catalog: Catalog::new(pool, failpoints.clone()),
        objects: rig.objects.clone(),
        graveyard: Arc::new(Graveyard {
            producer: rig.producer.clone(),
            topic: rig.dead_letter_topic(),
        }),
        config: CompactConfig { files_max, ..CompactConfig::default() },
        metrics: CompactMetrics::new(&Registry::new()).unwrap(),
        failpoints: failpoints.clone(),
    }
}

/// Two fleets in many small files, some events twice.
async fn staged(rig: &mut Rig) -> Vec<Event> {
    rig.raw.flush_events = 150;
    let running = rig.start();
    let mut events = fleet(20, 40);
    for (n, event) in events.iter_mut().enumerate() {
        event.fleet = ["press", "mill"][n % 2].into();
        event.device = format!("{}-{}", event.fleet, event.device);
        event.seq = n as u64;
    }
    let mut sent = rig.send(&events).await;
    let again: Vec<Event> = (10_000..)
        .zip(events.iter().step_by(3))
        .map(|(seq, event)| Event { received_at: event.received_at + 5, seq, ..event.clone() })
        .collect();
    sent.extend(rig.send(&again).await);
    rig.drained(&sent).await;
    running.stop().await;
    events
}

async fn query(rig: &Rig, event: &Event) -> Vec<StoredEvent> {
    let queries = Queries::new(rig.catalog.clone(), rig.objects.clone());
    let query = RawQuery {
        device: event.device.clone(),
        fleet: None,
        metric: None,
        from: i64::MIN,
        to: i64::MAX,
        limit: 10_000,
        cursor: None,
    };
    queries.raw(&query).await.unwrap().events
}

async fn public_files(rig: &Rig) -> i64 {
    let sql = "SELECT count(*) FROM raw_file WHERE state = 'published' AND compacted";
    rig.database.number(sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_files_become_one_public_file_a_fleet() {
    let mut rig = Rig::new(Store::S3).await;
    let events = staged(&mut rig).await;
    let before = query(&rig, &events[0]).await;
    let (totals, as_of) = (rig.catalog.totals().await.unwrap(), rig.catalog.head().await.unwrap());
    assert!(totals.files >= 5 && totals.rows > 1_000, "{totals:?}");

    // Open hours are compacted once they have enough files.
    let all = compactor(&rig, &Failpoints::default(), usize::try_from(totals.files).unwrap());
    assert_eq!(look(&all, &SystemClock).await.unwrap(), 1);
    let after = rig.catalog.totals().await.unwrap();
    assert_eq!((after.rows, public_files(&rig).await), (800, 2), "one copy of each identity");
    assert_eq!(all.metrics.duplicates.get(), 267);
    assert_eq!(query(&rig, &events[0]).await, before);
    for path in paths(&rig).await {
        let (date, rest) = path.strip_prefix("raw/date=").unwrap().split_at(10);
        assert!(date.starts_with("20") && rest.starts_with("/hour="), "{path}");
        assert!(rest.contains("/press-") || rest.contains("/mill-"), "{path}");
    }

    // Whoever began before still reads what it began with, until the old files are swept.
    let old = rig.catalog.files_for(i64::MIN, i64::MAX, as_of).await.unwrap();
    assert_eq!(old.len(), usize::try_from(totals.files).unwrap());
    assert!(rig.objects.exists(&old[0].path).await.unwrap());
    let keep = RawConfig { replaced_keep_ms: 3_600_000, ..RawConfig::default() };
    assert_eq!(sweep(&rig.catalog, &rig.objects, &keep).await.unwrap().deleted, 0);
    let gone = RawConfig { replaced_keep_ms: 0, ..RawConfig::default() };
    assert_eq!(sweep(&rig.catalog, &rig.objects, &gone).await.unwrap().deleted, old.len());
    assert!(!rig.objects.exists(&old[0].path).await.unwrap());
    assert_eq!(query(&rig, &events[0]).await, before);
    assert_eq!(look(&all, &SystemClock).await.unwrap(), 0, "nothing more to do");
}

async fn paths(rig: &Rig) -> Vec<String> {
    let client = rig.database.client().await;
    let sql = "SELECT path FROM raw_file WHERE state = 'published'";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compactor_may_die_anywhere() {
    let mut rig = Rig::new(Store::Directory).await;
    let events = staged(&mut rig).await;
    let before = query(&rig, &events[7]).await;
    let rows = rig.catalog.totals().await.unwrap().rows;
    for point in ["after_merge", "before_commit"] {
        let failpoints = Failpoints::default();
        failpoints.arm(point, Action::Fail(1));
        let dying = compactor(&rig, &failpoints, 3);
        assert!(look(&dying, &SystemClock).await.is_err(), "{point}");
        assert_eq!(rig.catalog.totals().await.unwrap().rows, rows, "{point}");
        assert_eq!(query(&rig, &events[7]).await, before, "{point}");
    }
    // The answer to a commit that got through is lost: the swap is asked again and is done.
    let failpoints = Failpoints::default();
    failpoints.arm("after_commit", Action::Fail(1));
    let dying = compactor(&rig, &failpoints, 3);
    assert!(look(&dying, &SystemClock).await.is_err());
    assert_eq!(query(&rig, &events[7]).await, before);
    assert!(public_files(&rig).await >= 2);
    assert!(look(&dying, &SystemClock).await.unwrap() >= 1);
    assert_eq!(query(&rig, &events[7]).await, before);
    let now = RawConfig { stale_pending_ms: 0, ..RawConfig::default() };
    assert!(sweep(&rig.catalog, &rig.objects, &now).await.unwrap().abandoned >= 4);
    assert_eq!(query(&rig, &events[7]).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_compactors_at_once_do_it_once() {
    let mut rig = Rig::new(Store::Directory).await;
    let events = staged(&mut rig).await;
    let before = query(&rig, &events[3]).await;
    let compactors = [0, 1].map(|_| compactor(&rig, &Failpoints::default(), 3));
    let [first, second] = &compactors;
    let (one, two) = tokio::join!(look(first, &SystemClock), look(second, &SystemClock));
    let merges = one.unwrap() + two.unwrap();
    assert!(merges >= 1);
    for _ in 0..10 {
        look(first, &SystemClock).await.unwrap();
    }
    assert_eq!(query(&rig, &events[3]).await, before);
    let stored = rig.stored().await;
    assert!(stored.len() >= events.len());
    for event in &events {
        assert!(stored.iter().any(|one| one.event_id == event.id), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_other_bytes_becomes_a_dead_letter() {
    let mut rig = Rig::new(Store::Directory).await;
    rig.raw.flush_events = 1;
    let running = rig.start();
    let first = Event::new("dev-1", 10);
    let other =
        Event { cpu_temp: 99.5, received_at: first.received_at + 9, seq: 77, ..first.clone() };
    let sent = rig.send(&[first.clone(), other.clone()]).await;
    rig.drained(&sent).await;
    running.stop().await;
    let compactor = compactor(&rig, &Failpoints::default(), 2);
    assert_eq!(look(&compactor, &SystemClock).await.unwrap(), 1);
    let stored = rig.stored().await;
    assert_eq!((stored.len(), stored[0].payload.as_str()), (1, first.payload().as_str()));
    let letters = rig.read_topic(&rig.dead_letter_topic(), 1).await;
    let meta = decode_dead_letter(letters[0].headers()).unwrap();
    assert_eq!((meta.stage.as_str(), meta.reason.as_str()), ("core.compact", "id_conflict"));
    assert_eq!((meta.provenance.seq, letters[0].payload()), (77, other.payload().as_bytes()));
}
