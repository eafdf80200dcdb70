//! The log against damage, full disks and restarts. Crashes: `tests/log_crash`.

use std::sync::Arc;
use std::time::Duration;

use super::disk::Disk;
use super::record::Compression;
use super::sim::{Faults, SimDisk};
use super::*;

mod bounds;
mod files;
mod keys;
mod moves;

const NO_WAIT: Duration = Duration::ZERO;

fn config(segment_bytes: u64) -> LogConfig {
    LogConfig {
        segment_bytes,
        retired_segment_bytes_max: u64::MAX,
        compress: false,
        keys: Keys::none(),
        untold_bytes_max: 0,
    }
}

fn open_log(disk: &SimDisk, segment_bytes: u64) -> Opened {
    open(Arc::new(disk.clone()), config(segment_bytes), 0, Epoch::random).unwrap()
}

/// An entry of 100 bytes that says its number.
fn entry(n: u32) -> Vec<u8> {
    let mut entry = vec![b'.'; 100];
    entry[..4].copy_from_slice(&n.to_le_bytes());
    entry
}

fn append(writer: &mut Writer, numbers: std::ops::Range<u32>) -> Appended {
    try_append(writer, numbers).unwrap()
}

fn try_append(writer: &mut Writer, numbers: std::ops::Range<u32>) -> Result<Appended, LogError> {
    let mut group = Group::new();
    for n in numbers {
        group.push(&entry(n));
    }
    writer.append(&group)
}

fn read_all(reader: &mut Reader) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(batch) = reader.next(NO_WAIT).unwrap() {
        numbers.extend(batch.entries().map(|(_, bytes)| {
            let n = u32::from_le_bytes(*bytes.first_chunk().unwrap());
            assert_eq!(bytes, entry(n));
            n
        }));
    }
    numbers
}

fn range(n: std::ops::Range<u32>) -> Vec<u32> {
    n.collect()
}

/// Segments of 2 records of 2 entries each: 96 + 2 · (48 + 208) = 608 bytes.
const TWO_RECORDS: u64 = 620;
const RECORD_BYTES: u64 = 256;

/// 3 segments: entries 0..4, 4..8, 8..12.
fn three_segments(disk: &SimDisk) -> Epoch {
    let mut opened = open_log(disk, TWO_RECORDS);
    for n in 0..6 {
        append(&mut opened.writer, 2 * n..2 * n + 2);
    }
    assert_eq!(opened.log.stat().segments, 3);
    opened.writer.next().0
}

fn damage_of(ranges: &[DamagedRange]) -> Vec<(u64, u64, u64)> {
    ranges.iter().map(|range| (range.segment, range.first_seq, range.next_seq)).collect()
}

#[test]
fn entries_come_back_in_order_over_segments_and_openings() {
    let disk = SimDisk::new(1);
    let first = three_segments(&disk);
    let mut opened = open_log(&disk, TWO_RECORDS);
    assert_eq!((opened.report.segments, opened.report.entries), (3, 12));
    assert_eq!(opened.log.stat().pending_entries, 12);
    let appended = append(&mut opened.writer, 12..20);
    assert_eq!(appended.first, Position { segment: 4, epoch: opened.writer.next().0, seq: 0 });
    assert_ne!(appended.first.epoch, first);
    assert_eq!(read_all(&mut opened.log.reader(None)), range(0..20));
    for seq in 0..12_u64 {
        let after = Position { segment: 1 + seq / 4, epoch: first, seq };
        let rest = read_all(&mut opened.log.reader(Some(after)));
        assert_eq!(rest, range(seq as u32 + 1..20), "after {seq}");
    }
    let after = Position { seq: 3, ..appended.first };
    let batch = opened.log.reader(Some(after)).next(NO_WAIT).unwrap().unwrap();
    assert_eq!((batch.first.seq, batch.skipped), (4, 4));
}

#[test]
fn a_waiting_reader_is_woken_by_an_append() {
    let mut opened = open_log(&SimDisk::new(1), TWO_RECORDS);
    let mut reader = opened.log.reader(None);
    assert!(reader.next(NO_WAIT).unwrap().is_none());
    let thread = std::thread::spawn(move || reader.next(Duration::from_secs(60)).unwrap());
    append(&mut opened.writer, 0..3);
    assert_eq!(thread.join().unwrap().unwrap().entries().count(), 3);
}

#[test]
fn retired_segments_are_removed_oldest_first_and_the_newest_stays() {
    let disk = SimDisk::new(1);
    let epoch = three_segments(&disk);
    let log = open_log(&disk, TWO_RECORDS).log;
    log.retire(Position { segment: 1, epoch, seq: 2 }).unwrap();
    assert_eq!((log.stat().segments, log.stat().pending_entries), (3, 9));
    log.retire(Position { segment: 1, epoch, seq: 3 }).unwrap();
    assert_eq!((log.stat().segments, log.stat().pending_entries), (2, 8));
    log.retire(Position { segment: 3, epoch, seq: 11 }).unwrap();
    assert_eq!((log.stat().segments, log.stat().pending_entries), (1, 0));
    assert_eq!(log.stat().disk_bytes, 608);
    assert_eq!(disk.list().unwrap(), [segment::file_name(3)]);
    let mut opened = open_log(&disk, TWO_RECORDS);
    assert_eq!(append(&mut opened.writer, 12..14).first.segment, 4, "ordinals never go back");
    assert_eq!(opened.report.damaged, [], "what was retired is not missing");
}

#[test]
fn a_retired_segment_above_the_limit_is_left_for_a_new_one() {
    let disk = SimDisk::new(1);
    let config = LogConfig { retired_segment_bytes_max: 400, ..config(1 << 20) };
    let mut opened = open(Arc::new(disk.clone()), config, 0, Epoch::random).unwrap();
    let last = |appended: Appended| Position {
        seq: appended.first.seq + u64::from(appended.count) - 1,
        ..appended.first
    };
    let first = append(&mut opened.writer, 0..2);
    opened.log.retire(last(first)).unwrap();
    let second = append(&mut opened.writer, 2..4);
    assert_eq!(second.first.segment, 1, "still small");
    opened.log.retire(last(second)).unwrap();
    let third = append(&mut opened.writer, 4..6);
    assert_eq!((third.first.segment, third.first.seq), (2, 4), "same epoch, next segment");
    opened.log.reclaim().unwrap();
    assert_eq!(disk.list().unwrap(), [segment::file_name(2)]);
    assert_eq!(read_all(&mut opened.log.reader(None)), [4, 5]);
}

#[test]
fn a_flipped_bit_costs_its_record_and_is_reported() {
    for at in [segment::RECORDS_AT, segment::RECORDS_AT + 47, segment::RECORDS_AT + 100] {
        for (ordinal, record) in [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)] {
            let disk = SimDisk::new(1);
            three_segments(&disk);
            let offset = at + record * RECORD_BYTES;
            assert!(disk.flip_bit(&segment::file_name(ordinal), offset, 3));
            let log = open_log(&disk, TWO_RECORDS).log;
            let mut reader = log.reader(None);
            let from = (4 * (ordinal - 1) + 2 * record) as u32;
            let expected: Vec<u32> = (0..12).filter(|n| *n < from || *n >= from + 2).collect();
            assert_eq!(read_all(&mut reader), expected, "segment {ordinal}, offset {offset}");
            let lost = [(ordinal, u64::from(from), u64::from(from) + 2)];
            assert_eq!(damage_of(&log.stat().damaged), lost);
            assert_eq!(log.stat().damaged_entries, 2);
        }
    }
}

#[test]
fn the_last_record_of_the_last_segment_can_not_be_told_from_a_torn_write() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    disk.flip_bit(&segment::file_name(3), segment::RECORDS_AT + RECORD_BYTES + 60, 0);
    let opened = open_log(&disk, TWO_RECORDS);
    assert_eq!(read_all(&mut opened.log.reader(None)), range(0..10));
    assert_eq!((opened.report.torn_bytes, opened.report.damaged), (RECORD_BYTES, vec![]));
}

#[test]
fn a_damaged_header_costs_nothing_while_records_are_valid() {
    for ordinal in 1..=3 {
        let disk = SimDisk::new(1);
        three_segments(&disk);
        disk.damage(&segment::file_name(ordinal), 0, &[0; segment::HEADER_BYTES]);
        let mut opened = open_log(&disk, TWO_RECORDS);
        append(&mut opened.writer, 12..14);
        for _ in 0..2 {
            assert_eq!(read_all(&mut opened.log.reader(None)), range(0..14), "segment {ordinal}");
            assert_eq!(opened.log.stat().damaged, []);
            opened = open_log(&disk, TWO_RECORDS);
        }
    }
}

#[test]
fn a_file_of_garbage_is_set_aside_and_what_it_held_is_reported() {
    for ordinal in 1..=3 {
        let disk = SimDisk::new(1);
        three_segments(&disk);
        disk.damage(&segment::file_name(ordinal), 0, &[0xA5; 1000]);
        let mut opened = open_log(&disk, TWO_RECORDS);
        assert_eq!(opened.report.quarantined, [segment::damaged_name(ordinal)]);
        let appended = append(&mut opened.writer, 12..14);
        assert_eq!(appended.first.segment, 4, "its ordinal is not used again");
        let lost = 4 * (ordinal - 1)..4 * ordinal;
        let expected: Vec<u32> = (0..14).filter(|n| !lost.contains(&u64::from(*n))).collect();
        assert_eq!(read_all(&mut opened.log.reader(None)), expected, "segment {ordinal}");
        // Nobody but its successor knows what the last one held.
        let reported = if ordinal < 3 { vec![(ordinal, lost.start, lost.end)] } else { vec![] };
        assert_eq!(damage_of(&opened.report.damaged), reported);
    }
}

#[test]
fn a_missing_segment_is_reported() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    disk.remove(&segment::file_name(2)).unwrap();
    let opened = open_log(&disk, TWO_RECORDS);
    assert_eq!(damage_of(&opened.report.damaged), [(2, 4, 8)]);
    let expected: Vec<u32> = (0..4).chain(8..12).collect();
    assert_eq!(read_all(&mut opened.log.reader(None)), expected);
}

#[test]
fn a_segment_that_is_missing_behind_one_of_garbage_is_reported() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    disk.damage(&segment::file_name(1), 0, &[0xA5; 1000]);
    disk.remove(&segment::file_name(2)).unwrap();
    let opened = open_log(&disk, TWO_RECORDS);
    assert_eq!(opened.report.quarantined, [segment::damaged_name(1)]);
    assert_eq!(damage_of(&opened.report.damaged), [(2, 0, 8)]);
    assert_eq!(read_all(&mut opened.log.reader(None)), range(8..12));
}

#[test]
fn a_truncated_segment_is_reported() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    let name = segment::file_name(2);
    let mut bytes = vec![0; 400];
    disk.open(&name).unwrap().read_at(0, &mut bytes).unwrap();
    disk.remove(&name).unwrap();
    disk.create(&name).unwrap().write_at(0, &bytes).unwrap();
    let log = open_log(&disk, TWO_RECORDS).log;
    let expected: Vec<u32> = (0..6).chain(8..12).collect();
    assert_eq!(read_all(&mut log.reader(None)), expected);
    assert_eq!(damage_of(&log.stat().damaged), [(2, 6, 8)]);
}

#[test]
fn bytes_inside_an_entry_never_pass_for_a_record() {
    let disk = SimDisk::new(1);
    let mut opened = open_log(&disk, 1 << 20);
    let mut forged = Group::new();
    forged.push(&entry(666));
    // A whole valid record of an epoch that is not this one, inside an entry.
    let inner = record::Encoder::new(Compression::None, None).encode(&forged, Epoch(1), 1).to_vec();
    let mut group = Group::new();
    group.push(&inner);
    opened.writer.append(&group).unwrap();
    append(&mut opened.writer, 1..3);
    disk.flip_bit(&segment::file_name(1), segment::RECORDS_AT + 1, 1);
    let log = open_log(&disk, 1 << 20).log;
    assert_eq!(read_all(&mut log.reader(None)), [1, 2]);
    assert_eq!(damage_of(&log.stat().damaged), [(1, 0, 1)]);
}

#[test]
fn a_failed_sync_ends_the_epoch_where_it_was_acknowledged() {
    let disk = SimDisk::new(1);
    let mut opened = open_log(&disk, 1 << 20);
    let before = append(&mut opened.writer, 0..5);
    disk.set_faults(Faults { sync: 1.0, ..Faults::default() });
    assert!(try_append(&mut opened.writer, 100..105).is_err());
    disk.set_faults(Faults::default());
    let after = append(&mut opened.writer, 5..7);
    assert_ne!(after.first.epoch, before.first.epoch);
    assert_eq!((after.first.segment, after.first.seq), (2, 0));
    assert_eq!(read_all(&mut opened.log.reader(None)), range(0..7));
    for _ in 0..2 {
        disk.power_cut();
        let opened = open_log(&disk, 1 << 20);
        assert_eq!(read_all(&mut opened.log.reader(None)), range(0..7));
        assert_eq!(opened.report.damaged, []);
    }
}

#[test]
fn a_full_disk_refuses_leaves_no_litter_and_recovers() {
    let disk = SimDisk::new(1);
    let mut opened = open_log(&disk, TWO_RECORDS);
    disk.set_space_bytes(1000);
    let mut done = 0;
    while try_append(&mut opened.writer, done..done + 2).is_ok() {
        done += 2;
    }
    for _ in 0..100 {
        assert!(try_append(&mut opened.writer, 900..902).is_err());
    }
    assert!(disk.list().unwrap().len() <= 3, "{:?}", disk.list());
    let last = opened.log.stat();
    assert_eq!(last.pending_entries, u64::from(done));
    // A full disk can be opened and drained.
    disk.kill();
    let mut opened = open_log(&disk, TWO_RECORDS);
    assert_eq!(read_all(&mut opened.log.reader(None)), range(0..done));
    disk.set_space_bytes(u64::MAX);
    append(&mut opened.writer, done..done + 2);
    assert_eq!(read_all(&mut opened.log.reader(None)), range(0..done + 2));
}

#[test]
fn a_place_that_can_not_be_read_is_an_error_first_and_damage_later() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    let log = open_log(&disk, TWO_RECORDS).log;
    let mut reader = log.reader(None);
    disk.set_faults(Faults { read: 1.0, ..Faults::default() });
    assert!(reader.next(NO_WAIT).is_err());
    disk.set_faults(Faults::default());
    assert_eq!(reader.next(NO_WAIT).unwrap().unwrap().entries().count(), 2, "it passed");
    disk.set_faults(Faults { read: 1.0, ..Faults::default() });
    let errors = (0..).take_while(|_| reader.next(NO_WAIT).is_err()).count();
    assert!((3..20).contains(&errors), "{errors} errors");
    assert_eq!(log.stat().damaged_entries, 10, "nothing was readable");
}

#[test]
fn an_empty_or_too_large_group_is_refused_without_harm() {
    let mut opened = open_log(&SimDisk::new(1), TWO_RECORDS);
    assert!(matches!(opened.writer.append(&Group::new()), Err(LogError::GroupSize { .. })));
    let mut group = Group::new();
    group.push(&vec![0; record::GROUP_BYTES_MAX]);
    assert!(matches!(opened.writer.append(&group), Err(LogError::GroupSize { .. })));
    assert_eq!(append(&mut opened.writer, 0..2).first.seq, 0);
}

#[test]
fn foreign_files_are_left_alone() {
    let disk = SimDisk::new(1);
    for name in ["LOCK", "0000000000000001.seg.bak", "1.seg"] {
        disk.create(name).unwrap();
    }
    three_segments(&disk);
    open_log(&disk, TWO_RECORDS);
    assert_eq!(disk.list().unwrap().len(), 6);
}
