//! One contract suite for every disk, and what only the simulated one can show.

use std::io::ErrorKind;

use super::super::real::RealDisk;
use super::super::sim::{Faults, SimDisk};
use super::*;

fn on_every_disk(contract: impl Fn(&dyn Disk)) {
    contract(&SimDisk::new(1));
    let dir = tempfile::tempdir().unwrap();
    contract(&RealDisk::open(&dir.path().join("a/b")).unwrap());
}

fn read_all(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.length().unwrap() as usize + 7];
    let n = file.read_at(0, &mut bytes).unwrap();
    bytes.truncate(n);
    bytes
}

#[test]
fn writes_are_read_back_at_their_place() {
    on_every_disk(|disk| {
        let file = disk.create("a").unwrap();
        file.write_at(0, b"hello").unwrap();
        file.write_at(5, b" world").unwrap();
        file.write_at(0, b"J").unwrap();
        file.sync().unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(read_all(&*file), b"Jello world");
        let again = disk.open("a").unwrap();
        assert_eq!((again.length().unwrap(), read_all(&*again)), (11, b"Jello world".to_vec()));
        let mut middle = [0; 4];
        assert_eq!(again.read_at(9, &mut middle).unwrap(), 2);
        assert_eq!(&middle[..2], b"ld");
        assert_eq!(again.read_at(11, &mut middle).unwrap(), 0);
        assert_eq!(again.read_at(1000, &mut middle).unwrap(), 0);
        again.write_at(20, b"x").unwrap();
        assert_eq!(read_all(&*file)[11..], *b"\0\0\0\0\0\0\0\0\0x");
    });
}

#[test]
fn names_are_created_renamed_and_removed() {
    on_every_disk(|disk| {
        disk.create("a").unwrap().write_at(0, b"1").unwrap();
        assert_eq!(disk.create("a").err().unwrap().kind(), ErrorKind::AlreadyExists);
        assert_eq!(disk.open("b").err().unwrap().kind(), ErrorKind::NotFound);
        assert_eq!(disk.remove("b").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.rename("b", "c").unwrap_err().kind(), ErrorKind::NotFound);
        disk.create("b").unwrap().write_at(0, b"22").unwrap();
        disk.rename("b", "c").unwrap();
        let mut names = disk.list().unwrap();
        names.sort();
        assert_eq!(names, ["a", "c"]);
        disk.rename("a", "c").unwrap();
        assert_eq!(read_all(&*disk.open("c").unwrap()), b"1");
        let open = disk.open("c").unwrap();
        disk.remove("c").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), Vec::<String>::new());
        assert_eq!(read_all(&*open), b"1", "an open handle goes on reading");
        assert!(disk.free_bytes().unwrap() > 0);
    });
}

/// The piece a byte of value `n` at 512 · n stands for.
fn pieces(bytes: &[u8]) -> Vec<bool> {
    (0..8).map(|n| bytes.get(512 * n) == Some(&(n as u8 + 1))).collect()
}

fn write_pieces(file: &dyn DiskFile) {
    let bytes: Vec<u8> = (0..8).flat_map(|n| [n + 1; 512]).collect();
    file.write_at(0, &bytes).unwrap();
}

#[test]
fn what_was_synced_survives_power_cuts_and_the_rest_may_not() {
    let (mut torn, mut reordered, mut lost, mut kept, mut nameless) = (0, 0, 0, 0, 0);
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let (synced, unsynced) = (disk.create("synced").unwrap(), disk.create("unsynced").unwrap());
        write_pieces(&*synced);
        synced.sync().unwrap();
        disk.sync_dir().unwrap();
        write_pieces(&*unsynced);
        disk.create("new").unwrap().sync().unwrap();
        disk.power_cut();
        assert!(synced.length().is_err(), "handles die with the process");
        assert_eq!(pieces(&read_all(&*disk.open("synced").unwrap())), [true; 8], "seed {seed}");
        let pieces = pieces(&read_all(&*disk.open("unsynced").unwrap()));
        let count = pieces.iter().filter(|kept| **kept).count();
        kept += u32::from(count == 8);
        lost += u32::from(count == 0);
        torn += u32::from(count > 0 && count < 8);
        reordered += u32::from(pieces.windows(2).any(|pair| !pair[0] && pair[1]));
        nameless += u32::from(disk.open("new").is_err());
    }
    println!("torn {torn}, reordered {reordered}, lost {lost}, kept {kept}, nameless {nameless}");
    assert!([torn, reordered, lost, kept, nameless].iter().all(|n| *n > 20));
}

#[test]
fn a_sync_after_a_failed_sync_says_nothing_about_what_failed() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        write_pieces(&*file);
        disk.set_faults(Faults { sync: 1.0, ..Faults::default() });
        assert!(file.sync().is_err());
        disk.set_faults(Faults::default());
        file.sync().unwrap();
        assert_eq!(pieces(&read_all(&*file)), [true; 8], "the cache shows it all the same");
        disk.kill();
        let again = disk.open("a").unwrap();
        assert_eq!(pieces(&read_all(&*again)), [true; 8], "also to the next process");
        disk.power_cut();
        lost += u32::from(pieces(&read_all(&*disk.open("a").unwrap())) != [true; 8]);
    }
    assert!(lost > 20, "lost {lost}");
}

#[test]
fn a_full_disk_cuts_writes_short_and_removal_makes_room() {
    let disk = SimDisk::new(3);
    let (a, b) = (disk.create("a").unwrap(), disk.create("b").unwrap());
    disk.set_space_bytes(1000);
    a.write_at(0, &[1; 700]).unwrap();
    let error = b.write_at(0, &[2; 700]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!((b.length().unwrap(), disk.free_bytes().unwrap()), (300, 0));
    a.write_at(0, &[3; 700]).unwrap();
    disk.remove("a").unwrap();
    b.write_at(300, &[2; 700]).unwrap();
}

#[test]
fn a_power_cut_falls_into_any_operation() {
    let disk = SimDisk::new(4);
    let file = disk.create("a").unwrap();
    disk.cut_after(1);
    file.write_at(0, b"1").unwrap();
    assert!(file.write_at(1, b"2").is_err() && !disk.is_powered());
    assert!(file.sync().is_err() && disk.list().is_err() && disk.sync_dir().is_err());
    disk.power_cut();
    assert!(disk.is_powered() && disk.list().is_ok());
}

#[test]
fn only_errors_of_the_data_count_toward_damage() {
    let counts = |code| speaks_of_the_data(&io::Error::from_raw_os_error(code));
    // EIO, ENOENT, EUCLEAN, EBADMSG
    assert!([5, 2, 117, 74].into_iter().all(counts));
    // EMFILE, ENFILE, ENOMEM, EACCES, EINTR
    assert!(![24, 23, 12, 13, 4].into_iter().any(counts));
}
