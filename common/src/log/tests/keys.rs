//! Keys: rotation, a missing key, a wrong one, and segments of other versions.

use super::*;
use crate::log::seal::{KEY_BYTES, Key, KeyId};
use crate::log::segment::{FileKind, Lane, damaged_name, file_name};

/// Segments of one sealed record of 2 entries: 96 + 48 + 24 + 208 = 376 bytes.
const ONE_RECORD: u64 = 400;

fn locked_name(ordinal: u64) -> String {
    segment::name_of(Lane::Main, ordinal, FileKind::Locked)
}

fn key(id: u32) -> Key {
    Key::new(KeyId(id), &[id as u8; KEY_BYTES])
}

fn open_with(disk: &SimDisk, keys: &[u32]) -> Opened {
    let keys = Keys::new(keys.iter().map(|id| key(*id)).collect());
    let config = LogConfig { keys, ..config(ONE_RECORD) };
    open(Arc::new(disk.clone()), config, 0, Epoch::random).unwrap()
}

fn content(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; file.length().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Entries 0..8 in segments 1 to 4 under key 1, then 8..12 in 5 and 6 under key 2.
fn two_keys(disk: &SimDisk) -> [Epoch; 2] {
    let mut epochs = [Epoch(0); 2];
    for (at, keys, numbers) in [(0, &[1][..], 0..4), (1, &[1, 2][..], 4..6)] {
        let mut opened = open_with(disk, keys);
        epochs[at] = opened.writer.next().0;
        for n in numbers {
            append(&mut opened.writer, 2 * n..2 * n + 2);
        }
    }
    epochs
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list().unwrap()
}

fn header_version(disk: &SimDisk, name: &str, version: u16) {
    let mut header = content(disk, name)[..segment::HEADER_BYTES].to_vec();
    header[8..10].copy_from_slice(&version.to_le_bytes());
    let crc = crc32c::crc32c(&header[..92]);
    header[92..].copy_from_slice(&crc.to_le_bytes());
    disk.damage(name, 0, &header);
}

#[test]
fn what_is_sealed_is_on_no_disk_and_comes_back_under_every_key() {
    let disk = SimDisk::new(1);
    two_keys(&disk);
    for name in names(&disk) {
        assert!(!content(&disk, &name).windows(5).any(|window| window == b"....."), "{name}");
    }
    let opened = open_with(&disk, &[1, 2, 3]);
    assert_eq!(read_all(&mut opened.log.reader(None)), range(0..12));
    assert_eq!((opened.report.damaged, opened.report.locked), (vec![], vec![]));
}

#[test]
fn a_missing_key_is_named_costs_its_segments_and_nothing_is_removed() {
    let disk = SimDisk::new(1);
    let [first, _] = two_keys(&disk);
    for _ in 0..2 {
        let opened = open_with(&disk, &[2]);
        let reasons: Vec<_> = opened.report.locked.iter().map(|locked| locked.reason).collect();
        assert_eq!(reasons, [LockReason::Key(KeyId(1)); 4]);
        let told = opened.report.locked[0].to_string();
        assert!(told.contains("the key 00000001 is missing"), "{told}");
        assert_eq!(read_all(&mut opened.log.reader(None)), range(8..12));
        let stat = opened.log.stat();
        assert_eq!(damage_of(&stat.damaged), [(1, 0, 2), (2, 2, 4), (3, 4, 6), (4, 6, 8)]);
        assert!(stat.damaged.iter().all(|range| range.epoch == first));
        assert_eq!(opened.report.unlocked, None);
    }
    // Whatever else is retired, they stay.
    let log = open_with(&disk, &[2]).log;
    let epoch = log.epoch_of(6).unwrap();
    log.retire(Position { segment: 6, epoch, seq: 3 }).unwrap();
    let left: Vec<_> = (1..=4).map(locked_name).chain([file_name(6)]).collect();
    assert_eq!(names(&disk), left);
}

#[test]
fn a_key_that_is_back_brings_its_segments_back() {
    let disk = SimDisk::new(1);
    two_keys(&disk);
    let mut opened = open_with(&disk, &[2, 3]);
    for n in 6..9 {
        append(&mut opened.writer, 2 * n..2 * n + 2);
    }
    // All that could be read is retired and removed, but for the newest: 16 and 17.
    let epoch = opened.writer.next().0;
    opened.log.retire(Position { segment: 8, epoch, seq: 3 }).unwrap();
    assert_eq!(opened.log.stat().segments, 1);
    for _ in 0..2 {
        let opened = open_with(&disk, &[1, 2, 3]);
        assert_eq!(opened.report.unlocked, Some(1), "no crash between makes it forget");
        assert_eq!((opened.report.damaged, opened.report.locked), (vec![], vec![]));
        let expected: Vec<u32> = (0..8).chain(16..18).collect();
        assert_eq!(read_all(&mut opened.log.reader(None)), expected);
        assert_eq!(opened.log.stat().pending_entries, 10);
    }
    // Retired at last, they go.
    let log = open_with(&disk, &[1, 2, 3]).log;
    log.retire(Position { segment: 9, epoch, seq: 5 }).unwrap();
    assert!(!names(&disk).iter().any(|name| name.ends_with(".locked")));
    assert_eq!(open_with(&disk, &[3]).report.unlocked, None);
}

#[test]
fn another_key_under_the_same_id_is_damage_and_told() {
    let disk = SimDisk::new(1);
    two_keys(&disk);
    let wrong = Key::new(KeyId(1), &[9; KEY_BYTES]);
    let config = LogConfig { keys: Keys::new(vec![wrong, key(2)]), ..config(ONE_RECORD) };
    let opened = open(Arc::new(disk.clone()), config, 0, Epoch::random).unwrap();
    assert_eq!(read_all(&mut opened.log.reader(None)), range(8..12));
    assert_eq!(opened.log.stat().damaged_entries, 8);
    let (segment, epoch) = (5, opened.log.epoch_of(5).unwrap());
    opened.log.retire(Position { segment, epoch, seq: 1 }).unwrap();
    assert!((1..=4).all(|ordinal| names(&disk).contains(&damaged_name(ordinal))));
}

#[test]
fn without_a_header_the_records_say_which_key_is_missing() {
    let disk = SimDisk::new(1);
    two_keys(&disk);
    disk.damage(&file_name(2), 0, &[0; segment::HEADER_BYTES]);
    let opened = open_with(&disk, &[2]);
    assert_eq!(opened.report.quarantined, Vec::<String>::new());
    assert!(damage_of(&opened.report.damaged).contains(&(2, 2, 4)));
    let opened = open_with(&disk, &[1, 2]);
    assert_eq!(read_all(&mut opened.log.reader(None)), range(0..12));
    assert_eq!(opened.report.damaged, []);
}

#[test]
fn segments_of_version_1_are_read_and_of_a_later_one_set_aside_until_it_is_known() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    header_version(&disk, &file_name(1), 1);
    header_version(&disk, &file_name(2), 3);
    let opened = open_log(&disk, TWO_RECORDS);
    assert_eq!(read_all(&mut opened.log.reader(None)), [0, 1, 2, 3, 8, 9, 10, 11]);
    assert_eq!(opened.report.locked[0].reason, LockReason::Version(3));
    assert_eq!(damage_of(&opened.report.damaged), [(2, 4, 8)]);
    header_version(&disk, &locked_name(2), 2);
    let opened = open_log(&disk, TWO_RECORDS);
    assert_eq!(read_all(&mut opened.log.reader(None)), range(0..12));
    assert_eq!((opened.report.damaged, opened.report.unlocked), (vec![], Some(2)));
}
