//! Errors that say nothing of the data: too many open files, no permission.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::*;
use crate::log::disk::DiskFile;

/// EMFILE and EACCES.
const TOO_MANY: i32 = 24;
const NO_RIGHT: i32 = 13;

/// A disk on which a process may have so many files open, and may be without the right to open any.
struct Narrow {
    inner: SimDisk,
    open: Arc<AtomicUsize>,
    open_max: usize,
    /// What opening any file is answered with; 0: nothing.
    error: AtomicI32,
}

struct Counted {
    inner: Box<dyn DiskFile>,
    open: Arc<AtomicUsize>,
}

impl Narrow {
    fn new(inner: SimDisk, open_max: usize) -> Arc<Self> {
        let (open, error) = (Arc::default(), AtomicI32::new(0));
        Arc::new(Self { inner, open, open_max, error })
    }

    fn count(
        &self,
        open: impl FnOnce() -> io::Result<Box<dyn DiskFile>>,
    ) -> io::Result<Box<dyn DiskFile>> {
        let error = self.error.load(Ordering::SeqCst);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        if self.open.load(Ordering::SeqCst) >= self.open_max {
            return Err(io::Error::from_raw_os_error(TOO_MANY));
        }
        let inner = open()?;
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Counted { inner, open: self.open.clone() }))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Disk for Narrow {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.count(|| self.inner.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.count(|| self.inner.open(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

impl DiskFile for Counted {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
}

/// 20 segments of 4 entries.
fn many_segments() -> SimDisk {
    let disk = SimDisk::new(7);
    let mut writer = open_log(&disk, TWO_RECORDS).writer;
    for n in 0..40 {
        append(&mut writer, 2 * n..2 * n + 2);
    }
    disk
}

fn narrow(disk: &Arc<Narrow>) -> Result<Opened, LogError> {
    open(disk.clone(), config(TWO_RECORDS), 0, Epoch::random)
}

/// N1: a backlog of more segments than a process may have files open is not damage.
#[test]
fn more_segments_than_files_may_be_open() {
    let disk = Narrow::new(many_segments(), 2);
    let Opened { mut writer, log, report } = narrow(&disk).unwrap();
    assert_eq!((report.segments, report.entries), (20, 80));
    assert_eq!((report.quarantined, report.damaged), (vec![], vec![]));
    append(&mut writer, 80..82);
    assert_eq!(read_all(&mut log.reader(None)), range(0..82));
}

/// N1: what could not be opened is not set aside: the opening fails, and the next one has it all.
#[test]
fn an_opening_that_may_not_open_files_changes_nothing() {
    for error in [TOO_MANY, NO_RIGHT] {
        let disk = Narrow::new(many_segments(), 2);
        let names = || {
            let mut names = disk.inner.list().unwrap();
            names.sort();
            names
        };
        let before = names();
        disk.error.store(error, Ordering::SeqCst);
        let Err(LogError::Disk { source, .. }) = narrow(&disk) else { panic!("it was opened") };
        assert_eq!((source.raw_os_error(), names()), (Some(error), before));
        disk.error.store(0, Ordering::SeqCst);
        let Opened { log, report, .. } = narrow(&disk).unwrap();
        assert_eq!((report.segments, report.quarantined), (20, vec![]));
        assert_eq!(read_all(&mut log.reader(None)), range(0..80));
    }
}
