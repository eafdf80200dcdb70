//! The simulated machine: caches, platters, and what a power cut does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Faults;

/// Bytes that are kept or lost together at the finest.
const PIECE_BYTES: u64 = 512;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

pub(super) struct Sim {
    pub(super) rng: ChaCha8Rng,
    pub(super) files: BTreeMap<u64, File>,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) names_durable: BTreeMap<String, u64>,
    pub(super) names_pending: Vec<NameChange>,
    pub(super) next_id: u64,
    /// Handles of an earlier boot are dead, like those of a killed process.
    pub(super) boot: u64,
    pub(super) operations_until_cut: Option<u64>,
    pub(super) powered: bool,
    pub(super) space_bytes: u64,
    pub(super) faults: Faults,
}

#[derive(Default)]
pub(super) struct File {
    pub(super) cache: Vec<u8>,
    pub(super) platter: Vec<u8>,
    pub(super) dirty: BTreeSet<u64>,
}

pub(super) enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename(String, String, u64),
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        Self {
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
        }
    }

    /// Counts an operation down to the power cut. `Ok(true)`: the cut falls into this one.
    pub(super) fn begin(&mut self) -> io::Result<bool> {
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
    pub(super) fn operation(&mut self, probability: impl Fn(&Faults) -> f64) -> io::Result<()> {
        let fails = probability(&self.faults);
        if self.begin()? || self.fails(fails) { Err(error(EIO)) } else { Ok(()) }
    }

    pub(super) fn fails(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names.values().map(|id| self.files[id].cache.len() as u64).sum()
    }

    pub(super) fn write(&mut self, id: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
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
            // A hole before the bytes needs room as well.
            n = n.saturating_sub((growth - room) as usize);
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

    pub(super) fn sync(&mut self, id: u64) -> io::Result<()> {
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

    pub(super) fn sync_dir(&mut self) -> io::Result<()> {
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
    pub(super) fn settle_names(&mut self, kept: f64) {
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

    pub(super) fn power_cut(&mut self) {
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
    pub(super) fn persist(&mut self, piece: u64) {
        let from = (piece * PIECE_BYTES) as usize;
        let to = (from + PIECE_BYTES as usize).min(self.cache.len());
        if self.platter.len() < to {
            self.platter.resize(to, 0);
        }
        self.platter[from..to].copy_from_slice(&self.cache[from..to]);
    }
}
