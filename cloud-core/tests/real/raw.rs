//! The raw writer from the bus to published files.

use std::collections::BTreeMap;

use penstock_common::codec::decode_dead_letter;
use penstock_common::event::UnixMicros;

use crate::support::events::{Event, fleet};
use crate::support::{PARTITIONS, Rig, Store, eventually};

async fn everything_sent_is_stored_once(store: Store) {
    let mut rig = Rig::new(store).await;
    rig.raw.flush_events = 700;
    let running = rig.start();
    let events = fleet(50, 60);
    let (first, second) = events.split_at(events.len() / 2);
    let mut sent = rig.send(first).await;
    rig.drained(&sent).await;
    sent.extend(rig.send(second).await);
    rig.drained(&sent).await;
    running.stop().await;

    rig.assert_stored_exactly(&sent).await;
    assert_eq!(sent.len(), 3_000);
    let totals = rig.catalog.totals().await.unwrap();
    assert_eq!((totals.rows, totals.as_of), (3_000, totals.files));
    assert!(totals.files >= 5, "a file holds at most 700 events: {totals:?}");

    // Every column is what was sent, not only the payload.
    let by_id: BTreeMap<_, _> = events.iter().map(|event| (event.id, event)).collect();
    for stored in rig.stored().await {
        let event = by_id[&stored.event_id];
        assert_eq!(stored.payload, event.payload());
        assert_eq!((&stored.device_id, &*stored.fleet), (&event.device, event.fleet.as_str()));
        assert_eq!((stored.firmware.as_str(), stored.schema_version), ("1.2.3", 1));
        assert_eq!(stored.event_time, UnixMicros(event.time));
        assert_eq!(stored.effective_time, UnixMicros(event.effective()));
        assert_eq!(stored.received_at, UnixMicros(event.received_at));
        assert!(stored.append_time > UnixMicros(0) && stored.append_time.0 % 1_000 == 0);
        assert_eq!((&*stored.gateway, stored.epoch.0), ("plant-7", 255));
        assert_eq!((stored.seq.unsigned_abs(), stored.flags), (event.seq, event.flags()));
        assert_eq!(stored.metrics, [("cpu_temp".to_owned(), 40.25)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_sent_is_stored_once_in_a_directory() {
    everything_sent_is_stored_once(Store::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_sent_is_stored_once_on_s3() {
    everything_sent_is_stored_once(Store::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_stored_before_the_writer_stops() {
    let mut rig = Rig::new(Store::Directory).await;
    rig.raw.flush_interval_ms = 3_600_000;
    let running = rig.start();
    let sent = rig.send(&fleet(8, 10)).await;
    let held = running.metrics.batch_bytes.clone();
    let payloads: usize = sent.iter().map(|one| one.payload.len()).sum();
    eventually("all is read", async || held.get() > i64::try_from(payloads).unwrap()).await;
    assert_eq!(rig.catalog.totals().await.unwrap().files, 0);
    running.stop().await;
    rig.assert_stored_exactly(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_dead_letters_and_stops_nothing() {
    let rig = Rig::new(Store::Directory).await;
    let good = fleet(8, 20);
    let mut records: Vec<_> = good
        .iter()
        .map(|event| (event.device.clone(), event.payload().into_bytes(), event.headers()))
        .collect();
    let odd = Event::new("dev-3", 5);
    let mut no_seq = odd.headers();
    no_seq.retain(|(name, _)| *name != "seq");
    let poison = [
        ("dev-3".to_owned(), b"\xff\x00 not an event".to_vec(), odd.headers()),
        ("dev-3".to_owned(), odd.payload().into_bytes(), no_seq),
        ("dev-4".to_owned(), b"{}".to_vec(), Vec::new()),
    ];
    for (at, one) in poison.iter().enumerate() {
        records.insert(at * 40, one.clone());
    }
    let running = rig.start();
    let sent = rig.send_raw(records).await;
    rig.drained(&sent).await;
    let is_poison = |payload: &[u8]| poison.iter().any(|(_, bytes, _)| bytes == payload);
    let (poisoned, kept): (Vec<_>, Vec<_>) =
        sent.into_iter().partition(|one| is_poison(&one.payload));
    let by_reason = |reason| running.metrics.poison.with_label_values(&[reason]).get();
    assert_eq!((by_reason("not_utf8"), by_reason("unreadable_headers")), (1, 2));

    // A batch of nothing but poison moves the position too.
    let only = rig.send_raw(vec![poison[0].clone()]).await;
    rig.drained(&only).await;
    running.stop().await;
    rig.assert_stored_exactly_rows(&kept).await;

    let letters = rig.read_topic(&rig.dead_letter_topic(), poison.len() + 1).await;
    assert_eq!(letters.len(), 4);
    for one in poisoned.iter().chain(&only) {
        let same = letters.iter().find(|letter| {
            let meta = decode_dead_letter(letter.headers()).unwrap();
            let source = meta.source.unwrap();
            (source.partition, source.offset) == (one.partition, one.offset)
        });
        let letter = same.expect("a dead letter for every poison record");
        let meta = decode_dead_letter(letter.headers()).unwrap();
        assert_eq!((letter.payload(), letter.key()), (&*one.payload, Some(one.key.as_bytes())));
        assert_eq!((meta.stage.as_str(), meta.attempts), ("core.raw", 1));
        assert_eq!(meta.source.unwrap().topic, rig.topic());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_may_come_and_go() {
    let mut rig = Rig::new(Store::Directory).await;
    rig.raw.flush_interval_ms = 100;
    let first = rig.start();
    let mut sent = rig.send(&fleet(20, 20)).await;
    rig.drained(&sent).await;
    // A second owner joins while events arrive; each has a part of the partitions then.
    let second = rig.start();
    let revocations = second.metrics.clone();
    eventually("both have partitions", async || {
        sent.extend(rig.send(&fleet(20, 2)).await);
        first.source.revocations.get() > 0 && revocations.files.get() > 0
    })
    .await;
    sent.extend(rig.send(&fleet(20, 20)).await);
    first.stop().await;
    sent.extend(rig.send(&fleet(20, 20)).await);
    rig.drained(&sent).await;
    second.stop().await;
    rig.assert_stored_exactly(&sent).await;
    assert!(sent.iter().map(|one| one.partition).max() == Some(PARTITIONS - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_at_a_rebalance_is_read_again_by_its_next_owner() {
    let mut rig = Rig::new(Store::Directory).await;
    rig.raw.flush_interval_ms = 3_600_000;
    let sent = rig.send(&fleet(20, 20)).await;
    let first = rig.start();
    let payloads: i64 = sent.iter().map(|one| one.payload.len() as i64).sum();
    let held = first.metrics.batch_bytes.clone();
    eventually("the first holds everything", async || held.get() > payloads).await;
    let second = rig.start();
    let other = second.metrics.batch_bytes.clone();
    eventually("both hold a part", async || {
        other.get() > 0 && held.get() > 0 && held.get() + other.get() > payloads
    })
    .await;
    assert!(first.source.revocations.get() >= 1);
    // Each stores its part when it is told to stop.
    first.stop.cancel();
    second.stop.cancel();
    first.task.await.unwrap().unwrap();
    second.task.await.unwrap().unwrap();
    rig.assert_stored_exactly_rows(&sent).await;
}
