//! Moving segments to the dead lane: numbers, gaps, crashes and damage. Random crashes of both
//! lanes: the gateway's spool tests.

use super::*;
use crate::event::UnixMicros;
use crate::log::segment::{FileKind, Lane, Moved, file_name, name_of};

const MOVED: Moved = Moved { reason: 7, at: UnixMicros(5) };

fn dead_name(ordinal: u64) -> String {
    name_of(Lane::Dead, ordinal, FileKind::Segment)
}

struct Both {
    main: Opened,
    dead: Log,
    dead_report: RecoveryReport,
    transfer: Transfer,
}

fn open_both(disk: &SimDisk) -> Both {
    let main = open_log(disk, TWO_RECORDS);
    let (dead, dead_report) = open_dead(Arc::new(disk.clone()), config(TWO_RECORDS)).unwrap();
    let transfer = Transfer::new(main.log.clone(), dead.clone());
    Both { main, dead, dead_report, transfer }
}

impl Both {
    fn move_oldest(&mut self) -> Option<Transferred> {
        let moved = self.transfer.move_oldest(MOVED).unwrap();
        if let Some(moved) = &moved {
            self.main.log.retire(moved.last).unwrap();
        }
        moved
    }
}

#[test]
fn a_moved_segment_has_the_same_numbers_and_says_why_it_is_there() {
    let disk = SimDisk::new(1);
    let epoch = three_segments(&disk);
    let mut both = open_both(&disk);
    for segment in 1..=2 {
        let moved = both.move_oldest().unwrap();
        let last = Position { segment, epoch, seq: 4 * segment - 1 };
        assert_eq!((moved.last, moved.entries, moved.bytes_before), (last, 4, 608));
        assert!(moved.bytes_after < 608, "zstd");
    }
    assert_eq!(both.move_oldest(), None, "the newest stays");
    assert_eq!(disk.list().unwrap(), [dead_name(1), dead_name(2), file_name(3)]);
    for _ in 0..2 {
        assert_eq!(read_all(&mut both.main.log.reader(None)), range(8..12));
        assert_eq!(read_all(&mut both.dead.reader(None)), range(0..8));
        let batch = both.dead.reader(None).next(NO_WAIT).unwrap().unwrap();
        assert_eq!(
            (batch.first, batch.moved),
            (Position { segment: 1, epoch, seq: 0 }, Some(MOVED))
        );
        assert_eq!(both.dead.stat().epochs, [EpochStat { epoch, next_seq: 8, retired_seq: 0 }]);
        both = open_both(&disk);
        assert_eq!((both.main.report.damaged, both.dead_report.damaged), (vec![], vec![]));
        both = open_both(&disk);
    }
    // Retired, the lane may become empty; what else knows the epoch is there.
    both.dead.note_listed(both.main.log.segment_epochs());
    both.dead.retire(Position { segment: 2, epoch, seq: 7 }).unwrap();
    assert_eq!(disk.list().unwrap(), [file_name(3)]);
}

#[test]
fn what_is_retired_is_not_moved_and_what_is_damaged_is_named_in_both_lanes() {
    let disk = SimDisk::new(1);
    let epoch = three_segments(&disk);
    disk.flip_bit(&file_name(1), segment::RECORDS_AT + RECORD_BYTES + 100, 1);
    let mut both = open_both(&disk);
    both.main.log.retire(Position { segment: 1, epoch, seq: 0 }).unwrap();
    assert_eq!(both.move_oldest().unwrap().entries, 1);
    assert_eq!(damage_of(&both.main.log.stat().damaged), [(1, 2, 4)]);
    assert_eq!(read_all(&mut both.dead.reader(None)), [1]);
    for _ in 0..2 {
        assert_eq!(read_all(&mut both.dead.reader(None)), [1]);
        assert_eq!(damage_of(&both.dead.stat().damaged), [(1, 2, 4)]);
        assert_eq!(both.dead.stat().epochs, [EpochStat { epoch, next_seq: 4, retired_seq: 1 }]);
        both = open_both(&disk);
    }
    // A segment of which nothing can be read is given up without a copy.
    disk.damage(&file_name(2), segment::RECORDS_AT, &[0; 2000]);
    assert_eq!(both.move_oldest(), None);
    assert_eq!(both.main.log.retired(), Some(Position { segment: 2, epoch, seq: 7 }));
    assert_eq!(damage_of(&both.main.log.stat().damaged), [(2, 4, 8)]);
    assert!(!disk.list().unwrap().contains(&dead_name(2)));
}

/// The power goes off in each single operation of a move: the segment is in one lane or in both.
#[test]
fn a_move_that_is_cut_short_anywhere_leaves_everything_and_is_finished_later() {
    for cut in 0..40 {
        let disk = SimDisk::new(cut);
        let epoch = three_segments(&disk);
        disk.power_cut();
        let mut both = open_both(&disk);
        disk.cut_after(cut);
        let moved = both.transfer.move_oldest(MOVED);
        let is_over = moved.is_ok() && disk.is_powered();
        disk.power_cut();
        let mut both = open_both(&disk);
        assert_eq!((&both.main.report.damaged, &both.dead_report.damaged), (&vec![], &vec![]));
        assert_eq!(read_all(&mut both.main.log.reader(None)), range(0..12), "cut {cut}");
        let dead = read_all(&mut both.dead.reader(None));
        assert!(dead.is_empty() || dead == range(0..4), "cut {cut}: {dead:?}");
        assert!(!is_over || !dead.is_empty(), "cut {cut}: durable once it is said to be");
        assert_eq!(both.transfer.is_unfinished(), !dead.is_empty());
        assert!(!disk.list().unwrap().iter().any(|name| name.ends_with(".part")));
        assert_eq!(both.move_oldest().unwrap().last, Position { segment: 1, epoch, seq: 3 });
        assert_eq!(read_all(&mut both.main.log.reader(None)), range(4..12));
        assert_eq!(read_all(&mut both.dead.reader(None)), range(0..4));
        if is_over {
            return;
        }
    }
    panic!("no move came to its end");
}

/// A copy that is not sound is not relied upon.
#[test]
fn a_damaged_copy_of_a_segment_that_is_still_there_does_not_count() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    let mut both = open_both(&disk);
    both.transfer.move_oldest(MOVED).unwrap().unwrap();
    disk.flip_bit(&dead_name(1), segment::RECORDS_AT + 60, 1);
    let mut both = open_both(&disk);
    assert!(both.transfer.is_unfinished());
    assert_eq!(both.move_oldest(), None);
    assert_eq!(read_all(&mut both.main.log.reader(None)), range(0..12));
}

#[test]
fn a_full_disk_refuses_a_move_and_leaves_no_litter() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    let mut both = open_both(&disk);
    disk.set_space_bytes(disk.used_bytes() + 150);
    for _ in 0..10 {
        assert!(both.transfer.move_oldest(MOVED).is_err());
        assert_eq!(disk.list().unwrap().len(), 3);
    }
    disk.set_space_bytes(u64::MAX);
    assert_eq!(both.move_oldest().unwrap().entries, 4);
    assert_eq!(read_all(&mut both.main.log.reader(None)), range(4..12));
}

/// A place that can't be read now is tried again where the move was; in the end it is damage.
#[test]
fn a_move_goes_on_after_a_passing_error_and_past_a_lasting_one() {
    let disk = SimDisk::new(1);
    three_segments(&disk);
    let mut both = open_both(&disk);
    disk.set_faults(Faults { read: 1.0, ..Faults::default() });
    assert!(both.transfer.move_oldest(MOVED).is_err());
    disk.set_faults(Faults::default());
    assert_eq!(both.move_oldest().unwrap().entries, 4);
    disk.set_faults(Faults { read: 1.0, ..Faults::default() });
    let errors = (0..).take_while(|_| both.transfer.move_oldest(MOVED).is_err()).count();
    assert!((3..20).contains(&errors), "{errors}");
    assert_eq!(both.main.log.stat().damaged_entries, 4);
}

/// Damage in the dead lane costs what it covers, whatever it hits.
#[test]
fn damage_in_the_dead_lane_is_named() {
    for at in [10, 90, segment::RECORDS_AT, segment::RECORDS_AT + 60] {
        let disk = SimDisk::new(1);
        let epoch = three_segments(&disk);
        let mut both = open_both(&disk);
        both.move_oldest().unwrap();
        both.move_oldest().unwrap();
        disk.flip_bit(&dead_name(2), at, 4);
        let both = open_both(&disk);
        let is_header = at < segment::RECORDS_AT;
        let expected = if is_header { range(0..8) } else { range(0..4) };
        assert_eq!(read_all(&mut both.dead.reader(None)), expected, "at {at}");
        let lost = if is_header { vec![] } else { vec![(2, 4, 8)] };
        assert_eq!(damage_of(&both.dead.stat().damaged), lost);
        assert!(both.dead.stat().epochs.iter().all(|one| one.epoch == epoch));
    }
    // A file without a header or a record is set aside; an empty one is damage as well.
    let disk = SimDisk::new(1);
    three_segments(&disk);
    open_both(&disk).move_oldest().unwrap();
    disk.remove(&dead_name(1)).unwrap();
    disk.create(&dead_name(1)).unwrap();
    let report = open_both(&disk).dead_report;
    assert_eq!(report.quarantined, [name_of(Lane::Dead, 1, FileKind::Damaged)]);
}

/// Places in the dead lane only go up: what comes back late stays where it is.
#[test]
fn a_segment_older_than_what_the_dead_lane_handed_over_is_not_moved() {
    let disk = SimDisk::new(1);
    let epoch = three_segments(&disk);
    let mut both = open_both(&disk);
    both.dead.mark_retired(Position { segment: 1, epoch, seq: 3 });
    assert_eq!(both.move_oldest(), None);
    assert_eq!(both.transfer.next_bytes(), None);
    both.main.log.retire(Position { segment: 1, epoch, seq: 3 }).unwrap();
    assert_eq!(both.move_oldest().unwrap().last.segment, 2);
}
