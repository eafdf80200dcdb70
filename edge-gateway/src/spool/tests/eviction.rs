//! The hard limit: the oldest give way, arrive as dead letters under their own numbers, and what
//! can't give way is refused (spec I9, N1).

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::spool::evicted;

/// Hard limit 64 KiB, refused above 80 KiB, dead lane 48 KiB. Entries take about 256 bytes.
fn small(dir: &Path) -> SpoolConfig {
    SpoolConfig {
        bytes_max: 96 << 10,
        dead_bytes_max: Some(48 << 10),
        group_bytes_max: 4 << 10,
        ..config(dir)
    }
}

/// Nothing that could be compressed, so that a copy is as large as its segment.
fn event(n: usize) -> Entry {
    let mut payload = format!("{n:08}").into_bytes();
    let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
    payload.extend((0..192).map(|_| rng.random::<u8>()));
    let Entry::Event(event) = super::event(0, n) else { panic!() };
    Entry::Event(EventEntry { payload: payload.into(), ..event })
}

fn events(numbers: std::ops::Range<usize>) -> Vec<Entry> {
    numbers.map(event).collect()
}

fn number(payload: &[u8]) -> usize {
    std::str::from_utf8(&payload[..8]).unwrap().parse().unwrap()
}

fn numbers(entries: &[SpooledEntry]) -> Vec<usize> {
    let number = |spooled: &SpooledEntry| match &spooled.entry {
        Entry::Event(event) => number(&event.payload),
        Entry::DeadLetter(letter) => panic!("{letter:?}"),
    };
    entries.iter().map(number).collect()
}

/// By number, what arrived and whether as a dead letter of this spool.
type Arrived = BTreeMap<u64, (usize, bool)>;

fn drain(handle: &SpoolHandle, reader: &mut SpoolReader) -> Arrived {
    let mut arrived = Arrived::new();
    while let Some(spooled) = reader.next(NO_WAIT).unwrap() {
        let (n, is_dead) = match &spooled.entry {
            Entry::Event(event) => (number(&event.payload), false),
            Entry::DeadLetter(letter) => {
                assert_eq!(
                    (&*letter.stage, &*letter.reason),
                    (evicted::STAGE, evicted::SPOOL_FULL)
                );
                assert_eq!(letter.device_id.as_deref(), Some("device-0"));
                assert_eq!((letter.schema_version, &*letter.fleet), (Some(1), "f"));
                let detail: serde_json::Value = serde_json::from_str(&letter.detail).unwrap();
                assert!(detail["moved_at"].is_string(), "{detail}");
                let n = number(&letter.payload);
                assert_eq!(letter.first_seen, UnixMicros(n as i64));
                (n, true)
            }
        };
        assert!(arrived.insert(spooled.seq, (n, is_dead)).is_none(), "{} twice", spooled.seq);
        handle.retire(spooled.position);
    }
    arrived
}

/// Fills the spool until it refuses; how many it took.
async fn fill(handle: &SpoolHandle, from: usize) -> usize {
    let mut taken = from;
    let mut refusals = 0;
    loop {
        match handle.submit(events(taken..taken + 10)).await {
            Ok(()) => (taken, refusals) = (taken + 10, 0),
            Err(SpoolError::Full { .. }) if handle.stat().is_dead_full => return taken,
            Err(SpoolError::Full { .. }) => {
                refusals += 1;
                assert!(refusals < 1000, "{:?}", handle.stat());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn the_oldest_give_way_until_the_dead_lane_is_full_and_all_are_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&small(dir.path())).unwrap();
    let taken = fill(&handle, 0).await;
    let stat = handle.stat();
    let evicted = stat.evicted_entries_total;
    assert!(evicted > 100 && stat.dead_pending_entries == evicted, "{stat:?}");
    assert_eq!(stat.pending_entries, taken as u64);
    assert!(stat.disk_bytes <= 96 << 10 && stat.usage.dead_bytes <= 48 << 10, "{stat:?}");
    assert_eq!(
        stat.epochs,
        [EpochStat { epoch: stat.epoch, next_seq: taken as u64, retired_seq: 0 }]
    );

    let arrived = drain(&handle, &mut reader);
    let expected: Arrived = (0..taken).map(|n| (n as u64, (n, (n as u64) < evicted))).collect();
    assert_eq!(arrived, expected);
    until("all files but one are gone", || handle.stat().segments == 1).await;
    let stat = handle.stat();
    assert_eq!((stat.pending_entries, stat.epochs[0].retired_seq), (0, taken as u64));
    assert!(!stat.is_dead_full);
    // And it goes on.
    handle.submit(events(taken..taken + 10)).await.unwrap();
    assert_eq!(drain(&handle, &mut reader).len(), 10);
}

/// A number that waits in the dead lane is not retired, however far the main lane is.
#[tokio::test]
async fn an_evicted_number_is_not_retired_before_the_dead_lane_handed_it_over() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
    for n in 0..20 {
        handle.submit(events(10 * n..10 * n + 10)).await.unwrap();
    }
    handle.evict_oldest();
    until("moved", || handle.stat().evicted_segments_total == 1).await;
    let evicted = handle.stat().evicted_entries_total;
    let mut letters = Vec::new();
    let mut last = None;
    while let Some(spooled) = reader.next(NO_WAIT).unwrap() {
        match &spooled.entry {
            Entry::DeadLetter(_) => letters.push(spooled),
            Entry::Event(_) if letters.is_empty() => {
                handle.retire(spooled.position);
                last = Some(spooled.seq);
            }
            Entry::Event(_) => {}
        }
    }
    // Some of the main lane's are retired, none of the dead lane's.
    assert!(last.unwrap() > evicted && letters.len() as u64 == evicted);
    let stat = handle.stat();
    assert_eq!((stat.epochs[0].retired_seq, stat.dead_pending_entries), (0, evicted));
    handle.retire(letters[4].position);
    assert_eq!(handle.stat().epochs[0].retired_seq, 5);
}

/// What the forwarder had taken when its segment was moved arrives once: by the way it was on.
#[tokio::test]
async fn what_was_on_its_way_when_it_gave_way_does_not_arrive_twice() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
    for n in 0..20 {
        handle.submit(events(10 * n..10 * n + 10)).await.unwrap();
    }
    let taken: Vec<_> = (0..25).map(|_| reader.next(NO_WAIT).unwrap().unwrap()).collect();
    handle.evict_oldest();
    until("moved", || handle.stat().evicted_segments_total == 1).await;
    let evicted = handle.stat().evicted_entries_total as usize;
    assert!(evicted > 30 && evicted < 200);
    // The rest of the main lane follows; the dead lane waits for the bus's word.
    let rest = read_all(&mut reader);
    assert_eq!(numbers(&rest), range(evicted..200));
    handle.retire(taken[9].position);
    assert!(read_all(&mut reader).is_empty(), "15 are still on their way");
    handle.retire(rest[rest.len() - 1].position);
    let letters = read_all(&mut reader);
    let seqs: Vec<u64> = letters.iter().map(|letter| letter.seq).collect();
    assert_eq!(seqs, (25..evicted as u64).collect::<Vec<_>>());
    assert!(letters.iter().all(|letter| matches!(letter.entry, Entry::DeadLetter(_))));
    assert_eq!(handle.stat().evicted_arrived_total, 25);
    handle.retire(letters[letters.len() - 1].position);
    assert_eq!(handle.stat().epochs[0].retired_seq, 200);
}

/// With its producer what was on its way is gone: then the dead lane has it.
#[tokio::test]
async fn what_was_on_its_way_with_a_lost_producer_is_handed_over_by_the_dead_lane() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
    for n in 0..20 {
        handle.submit(events(10 * n..10 * n + 10)).await.unwrap();
    }
    let taken: Vec<_> = (0..25).map(|_| reader.next(NO_WAIT).unwrap().unwrap()).collect();
    handle.retire(taken[9].position);
    handle.evict_oldest();
    until("moved", || handle.stat().evicted_segments_total == 1).await;
    reader.rewind();
    let arrived = drain(&handle, &mut reader);
    assert_eq!(*arrived.first_key_value().unwrap().0, 10);
    assert_eq!(arrived.len(), 190);
    assert!(arrived[&10].1 && arrived[&24].1 && !arrived[&199].1);
}

#[tokio::test]
async fn the_dead_lane_survives_restarts_and_a_new_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    let OpenSpool { handle, reader, .. } = open(&config).unwrap();
    let taken = fill(&handle, 0).await;
    let (evicted, epoch) = (handle.stat().evicted_entries_total, handle.stat().epoch);
    handle.close().await;
    drop((handle, reader));
    keys::add(&config.key_file()).unwrap();
    let OpenSpool { handle, mut reader, dead_report, .. } = open(&config).unwrap();
    assert_eq!((dead_report.entries, handle.stat().dead_pending_entries), (evicted, evicted));
    assert_eq!(
        handle.stat().epochs[0],
        EpochStat { epoch, next_seq: taken as u64, retired_seq: 0 }
    );
    let arrived = drain(&handle, &mut reader);
    let dead = arrived.values().filter(|(_, is_dead)| *is_dead).count() as u64;
    assert_eq!((arrived.len(), dead), (taken, evicted));
    handle.close().await;
    drop((handle, reader));
    let OpenSpool { handle, mut reader, .. } = open(&config).unwrap();
    assert!(
        drain(&handle, &mut reader).is_empty(),
        "what was handed over is not handed over again"
    );
}

/// A move needs space; without any, nothing gives way, and nothing is lost.
#[tokio::test]
async fn on_a_full_disk_nothing_gives_way_and_nothing_is_lost() {
    use penstock_common::log::sim::SimDisk;
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(3);
    let OpenSpool { handle, mut reader, .. } =
        open_on(Arc::new(disk.clone()), &small(dir.path())).unwrap();
    let mut taken = 0;
    while handle.usage().used_bytes <= handle.usage().hard_bytes - (8 << 10) {
        handle.submit(events(taken..taken + 10)).await.unwrap();
        taken += 10;
    }
    disk.set_space_bytes(disk.used_bytes() + 500);
    handle.evict_oldest();
    until("tried", || handle.stat().eviction_errors_total > 0).await;
    assert!(handle.submit(events(900..910)).await.is_err());
    disk.set_space_bytes(u64::MAX);
    handle.evict_oldest();
    until("moved", || handle.stat().evicted_segments_total > 0).await;
    let arrived = drain(&handle, &mut reader);
    assert_eq!(arrived.values().map(|(n, _)| *n).collect::<Vec<_>>(), range(0..taken));
}
