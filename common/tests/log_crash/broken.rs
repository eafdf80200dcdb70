//! The model test must be able to fail: disks that lie, and the checker that finds them out.

use std::io;
use std::sync::Arc;

use penstock_common::log::disk::{Disk, DiskFile};
use penstock_common::log::sim::SimDisk;

use super::model::run;

/// How a disk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// `sync` does nothing: acknowledged before it is durable.
    NoSync,
    /// `sync_dir` does nothing.
    NoSyncDir,
    /// A failed `sync` is repeated, and the second success believed.
    RetriedSync,
    /// Half of each write is dropped.
    HalfWrite,
    /// Two bytes of each large read are exchanged.
    AlteredRead,
}

struct Liar(SimDisk, Lie);

struct LyingFile(Box<dyn DiskFile>, Lie);

impl Disk for Liar {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LyingFile(self.0.create(name)?, self.1)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LyingFile(self.0.open(name)?, self.1)))
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.1 == Lie::NoSyncDir { Ok(()) } else { self.0.sync_dir() }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
}

impl DiskFile for LyingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let n = if self.1 == Lie::HalfWrite { bytes.len().div_ceil(2) } else { bytes.len() };
        self.0.write_at(offset, &bytes[..n])
    }

    fn sync(&self) -> io::Result<()> {
        match self.1 {
            Lie::NoSync => Ok(()),
            Lie::RetriedSync => self.0.sync().or_else(|_| self.0.sync()),
            _ => self.0.sync(),
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read_at(offset, buf)?;
        if self.1 == Lie::AlteredRead && n > 500 {
            buf.swap(100, 101);
        }
        Ok(n)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

/// The first seed that finds it out, and how.
fn find_out(lie: Lie) -> Option<(u64, String)> {
    (0..300).find_map(|seed| {
        run(seed, |disk| Arc::new(Liar(disk, lie))).err().map(|error| (seed, error))
    })
}

#[test]
fn a_disk_that_lies_is_found_out() {
    for lie in [Lie::NoSync, Lie::NoSyncDir, Lie::RetriedSync, Lie::HalfWrite, Lie::AlteredRead] {
        let found = find_out(lie);
        println!("{lie:?}: {found:?}");
        let (_, error) = found.unwrap_or_else(|| panic!("{lie:?} was not found in 300 runs"));
        let is_loss = ["lost", "damage", "read"].iter().any(|word| error.contains(word));
        assert!(is_loss, "{lie:?}: {error}");
    }
}
