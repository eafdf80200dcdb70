//! The spool on a real disk in a temporary directory.

mod crash;
mod eviction;
mod faults;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_common::event::{Flags, UnixMicros};
use tempfile::TempDir;

use super::entry::{DeadLetterEntry, EventEntry};
use super::*;

const NO_WAIT: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(30);

fn config(dir: &Path) -> SpoolConfig {
    SpoolConfig {
        dir: dir.to_owned(),
        bytes_max: 1 << 20,
        segment_bytes: 16 << 10,
        queue_bytes_max: 64 << 10,
        group_bytes_max: 16 << 10,
        compress: false,
        ..SpoolConfig::default()
    }
}

fn event(device: usize, n: usize) -> Entry {
    Entry::Event(EventEntry {
        device_id: format!("device-{device}"),
        schema_version: 1,
        fleet: "f".into(),
        received_at: UnixMicros(n as i64),
        flags: Flags::NONE,
        traceparent: None,
        payload: Bytes::from(format!("{n:0200}")),
    })
}

fn events(numbers: std::ops::Range<usize>) -> Vec<Entry> {
    numbers.map(|n| event(0, n)).collect()
}

fn key(entry: &Entry) -> (usize, usize) {
    match entry {
        Entry::Event(event) => {
            let device = event.device_id.strip_prefix("device-").unwrap().parse().unwrap();
            let n = std::str::from_utf8(&event.payload).unwrap().parse().unwrap();
            (device, n)
        }
        Entry::DeadLetter(letter) => panic!("{letter:?}"),
    }
}

fn read_all(reader: &mut SpoolReader) -> Vec<SpooledEntry> {
    std::iter::from_fn(|| reader.next(NO_WAIT).unwrap()).collect()
}

fn numbers(entries: &[SpooledEntry]) -> Vec<usize> {
    entries.iter().map(|spooled| key(&spooled.entry).1).collect()
}

fn range(n: std::ops::Range<usize>) -> Vec<usize> {
    n.collect()
}

/// Awaits a condition that another thread brings about.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What another process would find if this one were killed now.
fn copy_as_killed(from: &Path) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(from, dir.path());
    dir
}

#[tokio::test]
async fn what_was_submitted_is_read_in_order_and_retired_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
    handle.submit(vec![]).await.unwrap();
    assert!(reader.next(NO_WAIT).unwrap().is_none());
    for n in 0..20 {
        handle.submit(events(10 * n..10 * n + 10)).await.unwrap();
    }
    let read = read_all(&mut reader);
    assert_eq!(numbers(&read), range(0..200));
    assert_eq!(
        read.iter().map(|spooled| spooled.seq).collect::<Vec<_>>(),
        (0..200).collect::<Vec<_>>()
    );
    assert!(read.iter().all(|spooled| spooled.epoch == handle.stat().epoch));
    assert_eq!(handle.stat().oldest_received_at, Some(UnixMicros(0)));

    handle.retire(read[149].position);
    assert_eq!(handle.stat().pending_entries, 50);
    assert_eq!(handle.stat().oldest_received_at, Some(UnixMicros(150)));
    reader.rewind();
    assert_eq!(numbers(&read_all(&mut reader)), range(150..200));
    let segments = handle.stat().segments;
    until("retired segments are removed", || handle.stat().segments < segments).await;
    handle.close().await;
    assert!(matches!(handle.submit(events(0..1)).await, Err(SpoolError::Closed)));
    drop((handle, reader));

    let OpenSpool { handle, mut reader, report, .. } = open(&config(dir.path())).unwrap();
    assert_eq!(report.damaged, []);
    handle.submit(events(200..210)).await.unwrap();
    let read = read_all(&mut reader);
    assert_eq!(numbers(&read), range(150..210));
    assert_ne!(read[0].epoch, read[59].epoch);
    assert_eq!(read[59].seq, 9);
    handle.close().await;
}

#[tokio::test]
async fn dead_letters_go_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
    let letter = Entry::DeadLetter(DeadLetterEntry {
        device_id: None,
        stage: "gateway.admit".into(),
        reason: "not_json".into(),
        detail: "{}".into(),
        schema_version: None,
        fleet: "f".into(),
        first_seen: UnixMicros(7),
        traceparent: Some("00-1-2-03".into()),
        payload: Bytes::from_static(b"{not json"),
    });
    handle.submit(vec![event(0, 1), letter.clone()]).await.unwrap();
    let read = read_all(&mut reader);
    assert_eq!(read[1].entry, letter);
    assert_eq!((read[0].seq, read[1].seq), (0, 1));
}

#[tokio::test]
async fn a_killed_process_loses_nothing_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
    for n in 0..30 {
        handle.submit(events(10 * n..10 * n + 10)).await.unwrap();
    }
    let read = read_all(&mut reader);
    handle.retire(read[99].position);
    let killed = copy_as_killed(dir.path());
    let OpenSpool { mut reader, .. } = open(&config(killed.path())).unwrap();
    let read = numbers(&read_all(&mut reader));
    // Where retirement stood may be forgotten, never be too far.
    assert!(read[0] <= 100, "begins at {}", read[0]);
    assert_eq!(read, range(read[0]..300));
}

#[tokio::test]
async fn a_handle_that_is_dropped_without_close_frees_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, reader, .. } = open(&config(dir.path())).unwrap();
    handle.submit(events(0..10)).await.unwrap();
    drop((handle, reader));
    let mut opened = None;
    until("the directory is free", || {
        opened = open(&config(dir.path())).ok();
        opened.is_some()
    })
    .await;
    assert_eq!(numbers(&read_all(&mut opened.unwrap().reader)), range(0..10));
}

#[tokio::test]
async fn a_second_gateway_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(&config(dir.path())).unwrap();
    let error = format!("{:#}", open(&config(dir.path())).err().unwrap());
    assert!(error.contains("in use by another gateway"), "{error}");
    assert!(error.contains(&std::process::id().to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_submitters_each_find_their_entries_once_and_in_order() {
    const SUBMITTERS: usize = 40;
    const ROUNDS: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    let config = SpoolConfig { bytes_max: 64 << 20, compress: true, ..config(dir.path()) };
    let OpenSpool { handle, mut reader, .. } = open(&config).unwrap();
    let tasks: Vec<_> = (0..SUBMITTERS)
        .map(|device| {
            let handle = handle.clone();
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let entries = (4 * round..4 * round + 4).map(|n| event(device, n)).collect();
                    handle.submit(entries).await.unwrap();
                }
            })
        })
        .collect();
    let total = SUBMITTERS * ROUNDS * 4;
    let retiring = handle.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut read = Vec::new();
        while read.len() < total {
            let spooled = reader.next(LONG).unwrap().expect("an entry within the time");
            if read.len() % 97 == 0 {
                retiring.retire(spooled.position);
            }
            read.push(spooled);
        }
        assert!(reader.next(NO_WAIT).unwrap().is_none());
        read
    });
    for task in tasks {
        task.await.unwrap();
    }
    let read = read.await.unwrap();
    let mut next: HashMap<usize, usize> = HashMap::new();
    let mut before: Option<(usize, usize)> = None;
    for (seq, spooled) in read.iter().enumerate() {
        let (device, n) = key(&spooled.entry);
        let expected = next.entry(device).or_default();
        assert_eq!((n, spooled.seq), (*expected, seq as u64), "device {device}");
        *expected += 1;
        if n % 4 != 0 {
            assert_eq!(before, Some((device, n - 1)), "entries of one submit stay together");
        }
        before = Some((device, n));
    }
    let stat = handle.stat();
    assert_eq!(stat.committed_entries_total, total as u64);
    assert!(stat.committed_groups_total < (SUBMITTERS * ROUNDS) as u64, "commits are grouped");
    handle.close().await;
}

#[tokio::test]
async fn a_submission_larger_than_a_record_or_the_queue_goes_through() {
    let dir = tempfile::tempdir().unwrap();
    let config = SpoolConfig { bytes_max: 256 << 20, ..config(dir.path()) };
    let OpenSpool { handle, mut reader, .. } = open(&config).unwrap();
    let large = |n: usize| match event(0, n) {
        Entry::Event(event) => {
            Entry::Event(EventEntry { payload: vec![n as u8; 9 << 20].into(), ..event })
        }
        letter @ Entry::DeadLetter(_) => letter,
    };
    handle.submit((0..4).map(large).collect()).await.unwrap();
    let read = read_all(&mut reader);
    assert_eq!(read.iter().map(|spooled| spooled.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!((0..4).all(|n| read[n].entry == large(n)));
    let Entry::Event(event) = event(0, 0) else { panic!() };
    let huge = Entry::Event(EventEntry { payload: vec![0; 17 << 20].into(), ..event });
    assert!(matches!(handle.submit(vec![huge]).await, Err(SpoolError::Disk(_))));
}

#[tokio::test]
async fn close_answers_everybody_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.submit(vec![event(n, 0)]).await })
        })
        .collect();
    tokio::task::yield_now().await;
    handle.close().await;
    let mut accepted = Vec::new();
    for (n, task) in tasks.into_iter().enumerate() {
        match task.await.unwrap() {
            Ok(()) => accepted.push((n, 0)),
            Err(error) => assert!(matches!(error, SpoolError::Closed), "{error}"),
        }
    }
    let read: Vec<_> = read_all(&mut reader).iter().map(|spooled| key(&spooled.entry)).collect();
    assert_eq!(read, accepted);
}

#[test]
fn a_bad_configuration_is_explained() {
    let problems = |config: SpoolConfig| {
        let mut problems = Vec::new();
        config.validate(&mut problems);
        problems
    };
    assert_eq!(problems(SpoolConfig::default()), Vec::<String>::new());
    let config = SpoolConfig {
        dir: "".into(),
        bytes_max: 100 << 20,
        segment_bytes: 64 << 20,
        queue_bytes_max: 1,
        group_bytes_max: 0,
        ..SpoolConfig::default()
    };
    assert_eq!(problems(config).len(), 5);
}
