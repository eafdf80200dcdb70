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

fn drain(opened: &mut OpenSpool) -> Arrived {
    let mut arrived = Arrived::new();
    while let Some(spooled) = opened.reader.next(NO_WAIT).unwrap() {
        let Entry::Event(event) = &spooled.entry else { panic!("{spooled:?}") };
        arrived.insert(spooled.seq, (number(&event.payload), false));
        opened.handle.retire(spooled.position);
    }
    while let Some(spooled) = opened.dead_reader.next(NO_WAIT).unwrap() {
        let Entry::DeadLetter(letter) = &spooled.entry else { panic!("{spooled:?}") };
        assert_eq!((&*letter.stage, &*letter.reason), (evicted::STAGE, evicted::SPOOL_FULL));
        assert_eq!(letter.device_id.as_deref(), Some("device-0"));
        assert_eq!((letter.schema_version, &*letter.fleet), (Some(1), "f"));
        let detail: serde_json::Value = serde_json::from_str(&letter.detail).unwrap();
        assert!(detail["moved_at"].is_string(), "{detail}");
        let n = number(&letter.payload);
        assert_eq!(letter.first_seen, UnixMicros(n as i64));
        assert!(arrived.insert(spooled.seq, (n, true)).is_none(), "{} twice", spooled.seq);
        opened.handle.retire_dead(spooled.position);
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

async fn evict(handle: &SpoolHandle) -> u64 {
    let before = handle.stat().evicted_segments_total;
    handle.evict_oldest();
    until("moved", || handle.stat().evicted_segments_total == before + 1).await;
    handle.stat().evicted_entries_total
}

async fn with_200(dir: &Path) -> OpenSpool {
    let opened = open(&config(dir)).unwrap();
    for n in 0..20 {
        opened.handle.submit(events(10 * n..10 * n + 10)).await.unwrap();
    }
    opened
}

#[tokio::test]
async fn the_oldest_give_way_until_the_dead_lane_is_full_and_all_are_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&small(dir.path())).unwrap();
    let handle = opened.handle.clone();
    let taken = fill(&handle, 0).await;
    let stat = handle.stat();
    let evicted = stat.evicted_entries_total;
    assert!(evicted > 100 && stat.dead_pending_entries == evicted, "{stat:?}");
    assert_eq!(stat.pending_entries, taken as u64);
    assert!(stat.disk_bytes <= 96 << 10 && stat.usage.dead_bytes <= 48 << 10, "{stat:?}");
    let all_wait = EpochStat { epoch: stat.epoch, next_seq: taken as u64, retired_seq: 0 };
    assert_eq!(stat.epochs, [all_wait]);

    let arrived = drain(&mut opened);
    let expected: Arrived = (0..taken).map(|n| (n as u64, (n, (n as u64) < evicted))).collect();
    assert_eq!(arrived, expected);
    until("all files but one are gone", || handle.stat().segments == 1).await;
    let stat = handle.stat();
    assert_eq!((stat.pending_entries, stat.epochs[0].retired_seq), (0, taken as u64));
    until("the dead lane has room", || !handle.stat().is_dead_full).await;
    // And it goes on.
    handle.submit(events(taken..taken + 10)).await.unwrap();
    assert_eq!(drain(&mut opened).len(), 10);
}

/// A number that waits in the dead lane is not retired, however far the main lane is.
#[tokio::test]
async fn an_evicted_number_is_not_retired_before_the_dead_lane_handed_it_over() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, mut dead_reader, .. } = with_200(dir.path()).await;
    let evicted = evict(&handle).await;
    let rest = read_all(&mut reader);
    assert_eq!(numbers(&rest), range(evicted as usize..200));
    handle.retire(rest[rest.len() - 1].position);
    let stat = handle.stat();
    assert_eq!((stat.epochs[0].retired_seq, stat.pending_entries), (0, evicted));
    let letters = read_all(&mut dead_reader);
    assert_eq!(letters.len() as u64, evicted);
    handle.retire_dead(letters[4].position);
    assert_eq!(handle.stat().epochs[0].retired_seq, 5);
    handle.retire_dead(letters[letters.len() - 1].position);
    assert_eq!(handle.stat().epochs[0].retired_seq, 200);
}

/// What was acknowledged stays out of the dead lane; what a reader has not handed out yet comes
/// out of the dead lane alone; what it has, and nobody acknowledged, by both.
#[tokio::test]
async fn a_reader_in_the_middle_of_a_segment_goes_on_behind_it_when_it_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, mut dead_reader, .. } = with_200(dir.path()).await;
    let taken: Vec<_> = (0..25).map(|_| reader.next(NO_WAIT).unwrap().unwrap()).collect();
    handle.retire(taken[9].position);
    let evicted = evict(&handle).await as usize + 10;
    assert!(evicted > 30 && evicted < 200);
    let rest = read_all(&mut reader);
    assert_eq!(numbers(&rest), range(evicted..200));
    let seqs: Vec<u64> = read_all(&mut dead_reader).iter().map(|letter| letter.seq).collect();
    assert_eq!(seqs, (10..evicted as u64).collect::<Vec<_>>());
    // A late acknowledgement of what was moved changes nothing.
    handle.retire(taken[24].position);
    assert_eq!(handle.stat().epochs[0].retired_seq, 10);
    reader.rewind();
    assert_eq!(numbers(&read_all(&mut reader)), range(evicted..200));
    let mut another = reader.another();
    another.seek(rest[7].position);
    assert_eq!(numbers(&read_all(&mut another)), range(evicted + 7..200));
}

#[tokio::test]
async fn the_dead_lane_survives_restarts_and_a_new_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    let opened = open(&config).unwrap();
    let taken = fill(&opened.handle, 0).await;
    let stat = opened.handle.stat();
    let (evicted, epoch) = (stat.evicted_entries_total, stat.epoch);
    opened.handle.close().await;
    drop(opened);
    keys::add(&config.key_file()).unwrap();
    let mut opened = open(&config).unwrap();
    let stat = opened.handle.stat();
    assert_eq!((opened.dead_report.entries, stat.dead_pending_entries), (evicted, evicted));
    assert_eq!(stat.epochs[0], EpochStat { epoch, next_seq: taken as u64, retired_seq: 0 });
    let arrived = drain(&mut opened);
    let dead = arrived.values().filter(|(_, is_dead)| *is_dead).count() as u64;
    assert_eq!((arrived.len(), dead), (taken, evicted));
    opened.handle.close().await;
    drop(opened);
    let mut opened = open(&config).unwrap();
    assert!(drain(&mut opened).is_empty(), "what was handed over is not handed over again");
}

/// A move needs space; without any, nothing gives way, and nothing is lost.
#[tokio::test]
async fn on_a_full_disk_nothing_gives_way_and_nothing_is_lost() {
    use penstock_common::log::sim::SimDisk;
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(3);
    let mut opened = open_on(Arc::new(disk.clone()), &small(dir.path())).unwrap();
    let handle = opened.handle.clone();
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
    let arrived = drain(&mut opened);
    assert_eq!(arrived.values().map(|(n, _)| *n).collect::<Vec<_>>(), range(0..taken));
}
