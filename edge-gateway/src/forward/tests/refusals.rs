//! What the bus refuses, for a while or for ever, holds up nothing else and is never lost (N1, N5).

use penstock_common::codec;
use penstock_common::event::DeadLetterMeta;

use super::*;

fn meta(record: &OutboundRecord) -> DeadLetterMeta {
    let headers = record.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
    codec::decode_dead_letter(headers).unwrap()
}

impl Running {
    async fn drained(&self) {
        self.until("all retired", || self.spool.stat().pending_entries == 0).await;
    }

    async fn put(&self, entries: Vec<Entry>) {
        self.spool.submit(entries).await.unwrap();
    }
}

/// A record that the topic will never take becomes a dead letter under its own number; its
/// neighbours in the batch, and all that follows, arrive in order and once.
#[tokio::test]
async fn a_record_that_is_too_large_becomes_a_dead_letter() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let bus = Bus::default();
    bus.change(|state| _ = state.bytes_max.insert("raw-events", 3_000));
    let running = start_on(&disk, dir.path(), bus);
    running.submit(0..50).await;
    running.put(vec![event("d", vec![b'x'; 4_000])]).await;
    running.submit(50..100).await;
    running.put(vec![event("other", vec![b'y'; 5_000])]).await;
    running.submit(100..150).await;
    running.drained().await;
    assert_eq!(running.delivered(), range(0..150));
    let mut letters = running.bus.log(Topic::DeadLetter);
    letters.sort_by_key(|letter| meta(letter).provenance.seq);
    assert_eq!(letters.len(), 2);
    for (letter, (seq, bytes)) in letters.iter().zip([(50, 4_000), (101, 5_000)]) {
        let meta = meta(letter);
        assert_eq!((meta.provenance.seq, letter.payload.len()), (seq, bytes));
        assert_eq!((&*meta.stage, &*meta.reason), ("gateway.forward", "refused_by_bus"));
        assert!(meta.detail.contains("too large"), "{}", meta.detail);
    }
    running.until("told", || running.view.get().redirected_total == 2).await;
    // The like go alone from now on: no more producers are spent on them.
    let before = running.bus.state.lock().unwrap().connections;
    for _ in 0..20 {
        running.put(vec![event("d", vec![b'z'; 4_500])]).await;
        running.submit(150..160).await;
    }
    running.drained().await;
    assert_eq!(running.bus.log(Topic::DeadLetter).len(), 22);
    assert_eq!(running.bus.state.lock().unwrap().connections, before);
    running.end().await;
}

/// A dead letter that is too large is sent in parts, and none of its bytes is lost.
#[tokio::test]
async fn a_dead_letter_that_is_too_large_arrives_in_parts() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let bus = Bus::default();
    bus.change(|state| {
        state.bytes_max.insert("raw-events", 3_000);
        state.bytes_max.insert("dead-letter", 3_000);
    });
    let running = start_on(&disk, dir.path(), bus);
    let whole: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    running.put(vec![letter(None, whole.clone()), letter(Some("d"), vec![1, 2, 3])]).await;
    running.put(vec![event("d", whole.clone())]).await;
    running.submit(0..20).await;
    running.drained().await;
    assert_eq!(running.delivered(), range(0..20));
    for (seq, reason) in [(0, "malformed_json"), (2, "refused_by_bus")] {
        let mut parts: Vec<(usize, usize, Bytes)> = Vec::new();
        for record in running.bus.log(Topic::DeadLetter) {
            let meta = meta(&record);
            if meta.provenance.seq == seq {
                assert_eq!(meta.reason, reason);
                let detail: serde_json::Value = serde_json::from_str(&meta.detail).unwrap();
                let number = |field: &str| detail[field].as_u64().unwrap() as usize;
                parts.push((number("from"), number("parts"), record.payload));
            }
        }
        parts.sort();
        // 10,000 → 5,000 → 2,500
        assert_eq!(parts.iter().map(|(_, of, _)| *of).collect::<Vec<_>>(), [4; 4]);
        let joined: Vec<u8> = parts.iter().flat_map(|(_, _, bytes)| bytes.to_vec()).collect();
        assert_eq!(joined, whole, "number {seq}");
    }
    running.end().await;
}

/// Access to a topic is lost and given back: its records wait, others go on, and it says so.
#[tokio::test]
async fn a_topic_that_may_not_be_written_to_waits_for_it() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start(&disk, dir.path());
    running.submit(0..10).await;
    running.drained().await;
    running.bus.change(|state| _ = state.forbidden.insert("raw-events"));
    running.submit(10..20).await;
    running.put(vec![letter(Some("d"), b"not json".to_vec())]).await;
    running.until("told", || !running.view.get().blocked_topics.is_empty()).await;
    running.until("letters go on", || running.bus.log(Topic::DeadLetter).len() == 1).await;
    let blocked = running.view.get().blocked_topics;
    assert_eq!(blocked, [(Topic::RawEvents, "not allowed".to_owned())]);
    assert_eq!((running.delivered(), running.spool.stat().pending_entries), (range(0..10), 11));
    running.bus.change(|state| _ = state.forbidden.remove("raw-events"));
    running.drained().await;
    assert_eq!(running.delivered(), range(0..20));
    running.until("told", || running.view.get().blocked_topics.is_empty()).await;
    running.end().await;
}

/// A topic that is not there yet costs the others nothing.
#[tokio::test]
async fn a_topic_that_is_not_there_is_waited_for() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let bus = Bus::default();
    bus.change(|state| _ = state.absent.insert("dead-letter"));
    let running = start_on(&disk, dir.path(), bus);
    running.put(vec![letter(None, vec![1]), letter(Some("d"), vec![2])]).await;
    running.submit(0..30).await;
    running.until("events go on", || running.delivered() == range(0..30)).await;
    assert_eq!(running.spool.stat().pending_entries, 32);
    running.bus.change(|state| state.absent.clear());
    running.drained().await;
    assert_eq!(running.bus.log(Topic::DeadLetter).len(), 2);
    running.end().await;
}

/// A fatal error costs a producer, and nothing else.
#[tokio::test]
async fn after_a_fatal_error_a_new_producer_goes_on_in_order() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start(&disk, dir.path());
    for n in 0..5 {
        let place = ("raw-events", partition::of_hash(partition::hash(b"d"), PARTITIONS));
        running.bus.change(|state| _ = state.leaderless.insert(place));
        running.submit(20 * n..20 * n + 20).await;
        running.bus.change(|state| state.fatal = true);
        running.until("a new one", || !running.bus.state.lock().unwrap().fatal).await;
        running.bus.change(|state| state.leaderless.clear());
        running.drained().await;
        assert_eq!(running.delivered(), range(0..20 * n + 20));
    }
    running.end().await;
}

/// One partition without a leader is passed over; the others go on, and it catches up in order.
#[tokio::test]
async fn a_partition_without_a_leader_does_not_stop_the_others() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start(&disk, dir.path());
    let partition = |key: &str| partition::of_hash(partition::hash(key.as_bytes()), PARTITIONS);
    let keys: Vec<String> = (0..60).map(|n| format!("device-{n}")).collect();
    let (stuck, free): (Vec<_>, Vec<_>) = keys.iter().partition(|key| partition(key) == 0);
    assert!(stuck.len() > 3 && free.len() > 20);
    running.bus.change(|state| _ = state.leaderless.insert(("raw-events", 0)));
    let payload = |key: &str, n: usize| format!("{key}/{n:0300}").into_bytes();
    for n in 0..40 {
        running.put(keys.iter().map(|key| event(key, payload(key, n))).collect()).await;
    }
    let of = |keys: &[&String]| {
        let delivered = running.bus.delivered.lock().unwrap();
        delivered
            .iter()
            .filter(|text| keys.iter().any(|key| text.starts_with(&format!("{key}/"))))
            .count()
    };
    running.until("the others go on", || of(&free) == 40 * free.len()).await;
    assert_eq!(of(&stuck), 0);
    running.until("told", || running.view.get().stalled_partitions == 1).await;
    // What comes later goes on too, without the first one's being retired.
    running.put(keys.iter().map(|key| event(key, payload(key, 40))).collect()).await;
    running.until("later ones", || of(&free) == 41 * free.len()).await;
    let first_stuck = keys.iter().position(|key| partition(key) == 0).unwrap() as u64;
    let retired = running.spool.stat().retired;
    assert!(retired.is_none_or(|retired| retired.seq < first_stuck), "{retired:?}");
    running.bus.change(|state| state.leaderless.clear());
    running.drained().await;
    for key in &keys {
        let expected: Vec<String> =
            (0..=40).map(|n| String::from_utf8(payload(key, n)).unwrap()).collect();
        let delivered = running.bus.delivered.lock().unwrap().clone();
        let own = delivered.iter().filter(|text| text.starts_with(&format!("{key}/")));
        assert!(own.eq(expected.iter()), "{key} is out of order, or twice");
    }
    running.end().await;
}

/// A partition whose waiting records are far apart catches up too.
#[tokio::test]
async fn a_partition_with_few_records_catches_up_over_many_others() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start(&disk, dir.path());
    let partition = |key: &str| partition::of_hash(partition::hash(key.as_bytes()), PARTITIONS);
    let other = (0..60).map(|n| format!("device-{n}")).find(|key| partition(key) != partition("d"));
    let other = other.unwrap();
    running.bus.change(|state| _ = state.leaderless.insert(("raw-events", partition("d"))));
    running.submit(0..1).await;
    running.until("passed over", || running.view.get().stalled_partitions == 1).await;
    for n in 0..3 {
        running.submit(1 + n..2 + n).await;
        for m in 0..10 {
            let many = (0..100).map(|k| event(&other, format!("{}", 100 * m + k).into_bytes()));
            running.put(many.collect()).await;
        }
    }
    running.until("the others go on", || running.delivered().len() == 3_000).await;
    running.bus.change(|state| state.leaderless.clear());
    running.drained().await;
    // Its numbers are 200 digits long.
    let delivered = running.bus.delivered.lock().unwrap().clone();
    let own = delivered.iter().filter(|text| text.len() == 200);
    assert_eq!(own.map(|text| text.parse().unwrap()).collect::<Vec<usize>>(), range(0..4));
    running.end().await;
}

/// In hold events stay on disk, and statuses go on.
#[tokio::test]
async fn what_is_held_stays_on_disk_and_statuses_go_on() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start(&disk, dir.path());
    running.submit(0..10).await;
    running.drained().await;
    running.hold.send(true).unwrap();
    running.until("held", || running.view.get().is_held).await;
    running.submit(10..20).await;
    let told = || running.bus.statuses.lock().unwrap().last().map(|status| status.spool.pending);
    running.until("statuses go on", || told() == Some(10)).await;
    assert_eq!(running.delivered(), range(0..10));
    running.hold.send(false).unwrap();
    running.drained().await;
    assert_eq!(running.delivered(), range(0..20));
    running.end().await;
}
