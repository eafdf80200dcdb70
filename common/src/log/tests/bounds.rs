//! What an opening reads and holds does not grow with the backlog (but for one head a segment).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::log::disk::DiskFile;
use crate::log::segment::Moved;

/// Counts the bytes that are read.
struct Counting {
    disk: SimDisk,
    read_bytes: Arc<AtomicU64>,
}

struct CountingFile {
    file: Box<dyn DiskFile>,
    read_bytes: Arc<AtomicU64>,
}

impl Disk for Counting {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let (file, read_bytes) = (self.disk.open(name)?, self.read_bytes.clone());
        Ok(Box::new(CountingFile { file, read_bytes }))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

impl DiskFile for CountingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(offset, buf)?;
        self.read_bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

#[test]
fn opening_reads_heads_and_the_newest_segment_only() {
    const SEGMENT_BYTES: u64 = 20_000;
    for segments in [20_u64, 80] {
        let disk = SimDisk::new(1);
        let mut opened = open_log(&disk, SEGMENT_BYTES);
        let mut n = 0;
        while opened.log.stat().segments < segments as usize {
            append(&mut opened.writer, n..n + 10);
            n += 10;
        }
        // A quarter of them gives way.
        let (dead, _) = open_dead(Arc::new(disk.clone()), config(SEGMENT_BYTES)).unwrap();
        let mut transfer = Transfer::new(opened.log.clone(), dead);
        for _ in 0..segments / 4 {
            let moved = transfer.move_oldest(Moved::UNKNOWN).unwrap().unwrap();
            opened.log.retire(moved.last).unwrap();
        }
        let read_bytes = Arc::new(AtomicU64::new(0));
        let counting = Counting { disk: disk.clone(), read_bytes: read_bytes.clone() };
        let counting: Arc<dyn Disk> = Arc::new(counting);
        let main = open(counting.clone(), config(SEGMENT_BYTES), 0, Epoch::random).unwrap();
        let (dead, report) = open_dead(counting, config(SEGMENT_BYTES)).unwrap();
        assert_eq!(
            (main.report.segments as u64, report.segments as u64),
            (segments - segments / 4, segments / 4)
        );
        assert_eq!(main.report.entries + report.entries, u64::from(n));
        assert_eq!(dead.stat().pending_entries, report.entries);
        let heads = segments * segment::HEADER_BYTES as u64;
        // The newest is read, and its last record written again.
        let newest = SEGMENT_BYTES + 2 * 2_000;
        let read = read_bytes.load(Ordering::Relaxed);
        assert!(read <= heads + newest, "{read} bytes of {segments} segments");
    }
}
