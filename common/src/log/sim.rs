//! The simulated twin of a disk: it forgets, tears and reorders what was not synced.
//!
//! Every file has two contents: what the running process sees (the page cache) and what would be
//! there after a power cut (the platter). A write marks its 512-byte pieces dirty; a sync copies
//! the dirty pieces to the platter. At a power cut each dirty piece is kept or lost on its own, in
//! units of 512 B or 4 KiB, and the file may grow to its cached length with zeros where the data
//! was lost. Names (creations, removals, renames) behave the same way toward the directory.
//!
//! After a failed sync each piece may or may not have reached the platter, and it is clean
//! either way: no later sync writes it (as Linux does). The cache goes on showing it.
//!
//! Everything is drawn from one seed. Faults and the moment of the power cut are set by the test.

mod machine;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::machine::{File, NameChange, Sim};
use super::disk::{Disk, DiskFile};

/// How likely each operation is to fail with EIO, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Writes; a random part of the bytes is written first.
    pub write: f64,
    /// Syncs of files.
    pub sync: f64,
    /// Syncs of the directory.
    pub sync_dir: f64,
    /// Creations.
    pub create: f64,
    /// Removals and renames.
    pub remove: f64,
    /// Reads.
    pub read: f64,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Sim>>);

impl SimDisk {
    /// An empty disk without faults and with unlimited space.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Sim::new(seed))))
    }

    /// Sets the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.sim().faults = faults;
    }

    /// Sets the size of the disk: writes beyond it are cut short with ENOSPC.
    pub fn set_space_bytes(&self, bytes: u64) {
        self.sim().space_bytes = bytes;
    }

    /// The power goes off in the middle of the `operations`-th operation from now; everything
    /// fails from then on, until [`Self::power_cut`] brings it back.
    pub fn cut_after(&self, operations: u64) {
        self.sim().operations_until_cut = Some(operations);
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.sim().powered
    }

    /// The power is cut and comes back: what was not synced is kept, lost or torn.
    pub fn power_cut(&self) {
        self.sim().power_cut();
    }

    /// The process is killed: its handles are dead, the page cache survives.
    pub fn kill(&self) {
        let mut sim = self.sim();
        sim.boot += 1;
        sim.operations_until_cut = None;
    }

    /// What all files take.
    pub fn used_bytes(&self) -> u64 {
        self.sim().used_bytes()
    }

    /// Flips one bit of a file, on the platter and in the cache. Returns false if the file is
    /// shorter or not there.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        let mut sim = self.sim();
        let Some(file) = sim.names.get(name).copied().and_then(|id| sim.files.get_mut(&id)) else {
            return false;
        };
        let offset = offset as usize;
        for content in [&mut file.cache, &mut file.platter] {
            match content.get_mut(offset) {
                Some(byte) => *byte ^= 1 << (bit % 8),
                None => return false,
            }
        }
        true
    }

    /// Overwrites a file's bytes from `offset`, on the platter and in the cache, as damage.
    pub fn damage(&self, name: &str, offset: u64, bytes: &[u8]) {
        let mut sim = self.sim();
        if let Some(file) = sim.names.get(name).copied().and_then(|id| sim.files.get_mut(&id)) {
            for content in [&mut file.cache, &mut file.platter] {
                let from = (offset as usize).min(content.len());
                let n = bytes.len().min(content.len() - from);
                content[from..from + n].copy_from_slice(&bytes[..n]);
            }
        }
    }

    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
    boot: u64,
}

impl SimDisk {
    fn handle(&self, sim: &Sim, id: u64) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), id, boot: sim.boot })
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut sim = self.sim();
        sim.operation(|faults| faults.create)?;
        if sim.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = sim.next_id;
        sim.next_id += 1;
        sim.files.insert(id, File::default());
        sim.names.insert(name.to_owned(), id);
        sim.names_pending.push(NameChange::Link(name.to_owned(), id));
        Ok(self.handle(&sim, id))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut sim = self.sim();
        sim.operation(|faults| faults.read)?;
        let id = *sim.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&sim, id))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.sim().sync_dir()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut sim = self.sim();
        sim.operation(|_| 0.0)?;
        Ok(sim.names.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut sim = self.sim();
        sim.operation(|faults| faults.remove)?;
        sim.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        sim.names_pending.push(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut sim = self.sim();
        sim.operation(|faults| faults.remove)?;
        let id = sim.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        sim.names.insert(to.to_owned(), id);
        sim.names_pending.push(NameChange::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut sim = self.sim();
        sim.operation(|_| 0.0)?;
        Ok(sim.space_bytes.saturating_sub(sim.used_bytes()))
    }
}

impl SimFile {
    fn sim(&self) -> io::Result<MutexGuard<'_, Sim>> {
        let sim = self.disk.sim();
        if sim.boot == self.boot && sim.files.contains_key(&self.id) {
            Ok(sim)
        } else {
            Err(io::Error::other("a handle of before the crash"))
        }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.sim()?.write(self.id, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sim()?.sync(self.id)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut sim = self.sim()?;
        sim.operation(|faults| faults.read)?;
        let cache = &sim.files[&self.id].cache;
        let from = (offset as usize).min(cache.len());
        let n = buf.len().min(cache.len() - from);
        buf[..n].copy_from_slice(&cache[from..from + n]);
        Ok(n)
    }

    fn length(&self) -> io::Result<u64> {
        let mut sim = self.sim()?;
        sim.operation(|_| 0.0)?;
        Ok(sim.files[&self.id].cache.len() as u64)
    }
}
