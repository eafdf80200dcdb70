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

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::disk::{Disk, DiskFile};

/// Bytes that are kept or lost together at the finest.
const PIECE_BYTES: u64 = 512;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

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

struct Sim {
    rng: ChaCha8Rng,
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    names_pending: Vec<NameChange>,
    next_id: u64,
    /// Handles of an earlier boot are dead, like those of a killed process.
    boot: u64,
    operations_until_cut: Option<u64>,
    powered: bool,
    space_bytes: u64,
    faults: Faults,
}

#[derive(Default)]
struct File {
    cache: Vec<u8>,
    platter: Vec<u8>,
    dirty: BTreeSet<u64>,
}

enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename(String, String, u64),
}

impl SimDisk {
    /// An empty disk without faults and with unlimited space.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Sim {
            rng: ChaCha8Rng::seed_from_u64(seed),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            names_pending: Vec::new(),
            next_id: 0,
            boot: 0,
            operations_until_cut: None,
            powered: true,
            space_bytes: u64::MAX,
            faults: Faults::default(),
        })))
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

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Sim {
    /// Counts an operation down to the power cut. `Ok(true)`: the cut falls into this one.
    fn begin(&mut self) -> io::Result<bool> {
        if !self.powered {
            return Err(error(EIO));
        }
        if let Some(left) = &mut self.operations_until_cut {
            if *left == 0 {
                self.powered = false;
                return Ok(true);
            }
            *left -= 1;
        }
        Ok(false)
    }

    /// An operation that happens whole or not at all.
    fn operation(&mut self, probability: impl Fn(&Faults) -> f64) -> io::Result<()> {
        let fails = probability(&self.faults);
        if self.begin()? || self.fails(fails) { Err(error(EIO)) } else { Ok(()) }
    }

    fn fails(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability)
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|id| self.files[id].cache.len() as u64).sum()
    }

    fn write(&mut self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let cut = self.begin()?;
        let mut n = bytes.len();
        let mut result = Ok(());
        if cut || self.fails(self.faults.write) {
            n = self.rng.random_range(0..=n);
            result = Err(error(EIO));
        }
        let length = self.files[&id].cache.len() as u64;
        let growth = (offset + n as u64).saturating_sub(length);
        let room = self.space_bytes.saturating_sub(self.used_bytes());
        if growth > room {
            n -= (growth - room) as usize;
            result = Err(error(ENOSPC));
        }
        let file = self.files.entry(id).or_default();
        let end = offset + n as u64;
        if n > 0 {
            if file.cache.len() < end as usize {
                file.cache.resize(end as usize, 0);
            }
            file.cache[offset as usize..end as usize].copy_from_slice(&bytes[..n]);
            file.dirty.extend(offset / PIECE_BYTES..=(end - 1) / PIECE_BYTES);
        }
        result
    }

    fn sync(&mut self, id: u64) -> io::Result<()> {
        if self.begin()? {
            return Err(error(EIO));
        }
        let fails = self.fails(self.faults.sync);
        let Self { rng, files, .. } = self;
        let file = files.entry(id).or_default();
        for piece in std::mem::take(&mut file.dirty) {
            if !fails || rng.random_bool(0.5) {
                file.persist(piece);
            }
        }
        if fails { Err(error(EIO)) } else { Ok(()) }
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        if self.begin()? {
            return Err(error(EIO));
        }
        if self.fails(self.faults.sync_dir) {
            self.settle_names(0.5);
            return Err(error(EIO));
        }
        self.settle_names(1.0);
        Ok(())
    }

    /// Each pending change of a name reaches the platter with this probability, or never does.
    fn settle_names(&mut self, kept: f64) {
        for change in std::mem::take(&mut self.names_pending) {
            if !self.rng.random_bool(kept) {
                continue;
            }
            match change {
                NameChange::Link(name, id) => {
                    self.names_durable.insert(name, id);
                }
                NameChange::Unlink(name) => {
                    self.names_durable.remove(&name);
                }
                NameChange::Rename(from, to, id) => {
                    self.names_durable.remove(&from);
                    self.names_durable.insert(to, id);
                }
            }
        }
    }

    fn power_cut(&mut self) {
        let kept = [0.0, 1.0, 0.5, 0.9, 0.1][self.rng.random_range(0..5)];
        self.settle_names(kept);
        let unit = if self.rng.random_bool(0.5) { 1 } else { 4096 / PIECE_BYTES };
        let Self { rng, files, .. } = self;
        for file in files.values_mut() {
            let mut last = None;
            for piece in std::mem::take(&mut file.dirty) {
                let keep = match last {
                    Some((at, keep)) if at == piece / unit => keep,
                    _ => rng.random_bool(kept),
                };
                last = Some((piece / unit, keep));
                if keep {
                    file.persist(piece);
                }
            }
            if file.platter.len() < file.cache.len() && rng.random_bool(0.25) {
                file.platter.resize(file.cache.len(), 0);
            }
            file.cache.clone_from(&file.platter);
        }
        self.names = self.names_durable.clone();
        let alive: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| alive.contains(id));
        self.boot += 1;
        self.powered = true;
        self.operations_until_cut = None;
    }
}

impl File {
    fn persist(&mut self, piece: u64) {
        let from = (piece * PIECE_BYTES) as usize;
        let to = (from + PIECE_BYTES as usize).min(self.cache.len());
        if self.platter.len() < to {
            self.platter.resize(to, 0);
        }
        self.platter[from..to].copy_from_slice(&self.cache[from..to]);
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
