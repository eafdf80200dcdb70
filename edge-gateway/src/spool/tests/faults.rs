//! The spool with a destroyed index, a full or failing disk, and damaged segments.

use penstock_common::log::disk::Disk;
use penstock_common::log::segment;
use penstock_common::log::sim::{Faults, SimDisk};

use super::*;

async fn spool_with_100_of_which_40_are_retired(dir: &Path) {
    let config = SpoolConfig { segment_bytes: 64 << 10, ..config(dir) };
    let OpenSpool { handle, mut reader, .. } = open(&config).unwrap();
    handle.submit(events(0..100)).await.unwrap();
    handle.retire(read_all(&mut reader)[39].position);
    handle.close().await;
}

#[tokio::test]
async fn a_destroyed_index_costs_duplicates_and_nothing_else() {
    type Destroy = fn(&Path);
    let ways: [(&str, Destroy); 5] = [
        ("removed", |index| fs::remove_dir_all(index).unwrap()),
        ("garbage", |index| {
            for entry in fs::read_dir(index).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::write(path, [0xA5; 5000]).unwrap();
                }
            }
        }),
        ("empty files", |index| {
            for name in ["db", "conf"] {
                fs::write(index.join(name), b"").unwrap();
            }
        }),
        ("a file in its place", |index| {
            fs::remove_dir_all(index).unwrap();
            fs::write(index, b"?").unwrap();
        }),
        ("an opening that never came back", |index| {
            fs::write(index.with_file_name("index.opening"), b"").unwrap();
        }),
    ];
    for (way, destroy) in ways {
        let dir = tempfile::tempdir().unwrap();
        spool_with_100_of_which_40_are_retired(dir.path()).await;
        destroy(&dir.path().join("index"));
        let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
        let read = read_all(&mut reader);
        assert_eq!(numbers(&read), range(0..100), "{way}");
        // The new index works.
        handle.retire(read[59].position);
        handle.close().await;
        drop((handle, reader));
        let OpenSpool { mut reader, .. } = open(&config(dir.path())).unwrap();
        assert_eq!(numbers(&read_all(&mut reader)), range(60..100), "{way}");
    }
}

#[tokio::test]
async fn an_index_that_outlived_its_segments_retires_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    spool_with_100_of_which_40_are_retired(dir.path()).await;
    fs::remove_dir_all(dir.path().join("segments")).unwrap();
    let OpenSpool { handle, mut reader, .. } = open(&config(dir.path())).unwrap();
    handle.submit(events(0..10)).await.unwrap();
    assert_eq!(numbers(&read_all(&mut reader)), range(0..10));
    handle.close().await;
    drop((handle, reader));
    let OpenSpool { mut reader, .. } = open(&config(dir.path())).unwrap();
    assert_eq!(numbers(&read_all(&mut reader)), range(0..10));
}

#[tokio::test]
async fn only_a_few_indexes_that_were_set_aside_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..6 {
        fs::write(dir.path().join("index.opening"), b"").unwrap();
        fs::create_dir_all(dir.path().join("index")).unwrap();
        drop(index::Index::open(dir.path()));
    }
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let aside = names.filter(|name| name.to_string_lossy().contains("damaged")).count();
    assert_eq!(aside, 3);
}

#[tokio::test]
async fn a_full_spool_refuses_until_it_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        SpoolConfig { bytes_max: 100 << 10, dead_bytes_max: Some(0), ..config(dir.path()) };
    let OpenSpool { handle, mut reader, .. } = open(&config).unwrap();
    let mut accepted = 0;
    let error = loop {
        match handle.submit(events(accepted..accepted + 10)).await {
            Ok(()) => accepted += 10,
            Err(error) => break error,
        }
    };
    let SpoolError::Full { bytes_used, bytes_max } = error else { panic!("{error}") };
    assert!(bytes_used > bytes_max && accepted > 300, "{bytes_used}, {accepted}");
    assert!(handle.stat().disk_bytes <= bytes_max);
    assert_eq!((handle.stat().refused_full_total, handle.stat().queue_bytes), (1, 0));
    let read = read_all(&mut reader);
    assert_eq!(numbers(&read), range(0..accepted));
    handle.retire(read[accepted / 2].position);
    until("there is room", || handle.stat().disk_bytes < bytes_max / 2 + (16 << 10)).await;
    handle.submit(events(accepted..accepted + 10)).await.unwrap();
    assert_eq!(numbers(&read_all(&mut reader)), range(accepted..accepted + 10));
}

#[tokio::test]
async fn a_failing_disk_refuses_and_the_spool_recovers_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(5);
    let OpenSpool { handle, mut reader, .. } =
        open_on(Arc::new(disk.clone()), &config(dir.path())).unwrap();
    handle.submit(events(0..10)).await.unwrap();
    let first_epoch = handle.stat().epoch;
    for faults in [
        Faults { sync: 1.0, ..Faults::default() },
        Faults { write: 1.0, ..Faults::default() },
        Faults { create: 1.0, ..Faults::default() },
    ] {
        disk.set_faults(faults);
        let error = handle.submit(events(900..910)).await.unwrap_err();
        assert!(matches!(error, SpoolError::Disk(_)), "{error}");
        assert!(handle.stat().is_failing);
    }
    disk.set_faults(Faults::default());
    disk.set_space_bytes(0);
    assert!(handle.submit(events(900..910)).await.is_err());
    assert_eq!(handle.stat().disk_errors_total, 4);
    disk.set_space_bytes(u64::MAX);
    handle.submit(events(10..20)).await.unwrap();
    let read = read_all(&mut reader);
    assert_eq!(numbers(&read), range(0..20), "nothing that was refused is forwarded");
    assert_eq!((read[9].epoch, read[10].seq), (first_epoch, 0));
    assert!(!handle.stat().is_failing);
}

#[tokio::test]
async fn damage_is_passed_over_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(5);
    let OpenSpool { handle, mut reader, .. } =
        open_on(Arc::new(disk.clone()), &config(dir.path())).unwrap();
    for n in 0..3 {
        handle.submit(events(10 * n..10 * n + 10)).await.unwrap();
    }
    let name = disk.list().unwrap().remove(0);
    assert_eq!(name, segment::file_name(1));
    disk.flip_bit(&name, segment::RECORDS_AT + 500, 2);
    assert_eq!(numbers(&read_all(&mut reader)), range(10..30));
    assert_eq!(handle.stat().damaged_entries, 10);
    assert_eq!((handle.stat().damaged[0].first_seq, handle.stat().damaged[0].next_seq), (0, 10));
}
