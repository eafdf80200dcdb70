//! From a key to its fleet (spec I4).

use std::collections::HashMap;
use std::sync::Arc;

use penstock_common::event::UnixMicros;
use penstock_common::snapshot::{Fleet, FleetKey, KeyHash, Limits};

/// A fleet as the listener needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetEntry {
    /// Its name.
    pub name: Arc<str>,
    /// How much it may send.
    pub limits: Limits,
}

impl FleetEntry {
    /// A fleet without limits.
    pub fn unlimited(name: Arc<str>) -> Self {
        Self { name, limits: Limits::default() }
    }

    /// Whether it may send as much as the gateway takes.
    pub fn is_unlimited(&self) -> bool {
        self.limits == Limits::default()
    }
}

/// Why a key is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// No fleet has it.
    Unknown,
    /// It was good once.
    Expired,
}

/// The keys of all fleets.
///
/// They are found by the first half of their hash, and compared whole in constant time. The
/// finding takes a time of its own for each hash, but nobody can choose the hash of a key without
/// knowing the key, so that times tell nothing about another one's.
#[derive(Debug, Default)]
pub struct Keyring {
    by_half: HashMap<[u8; 16], Vec<Entry>>,
    fleets: HashMap<Arc<str>, Arc<FleetEntry>>,
}

#[derive(Debug)]
struct Entry {
    key: FleetKey,
    fleet: Arc<FleetEntry>,
}

impl Keyring {
    /// The keys of these fleets.
    pub(super) fn of(fleets: &[Fleet]) -> Self {
        let mut keyring = Self::default();
        for Fleet { name, limits, keys } in fleets {
            let name: Arc<str> = name.as_str().into();
            let fleet = Arc::new(FleetEntry { name: name.clone(), limits: *limits });
            keyring.fleets.insert(name, fleet.clone());
            for key in keys {
                let entry = Entry { key: key.clone(), fleet: fleet.clone() };
                keyring.by_half.entry(half(&key.sha256)).or_default().push(entry);
            }
        }
        keyring
    }

    /// Whose a key is.
    ///
    /// # Errors
    /// When it is nobody's, or not any more.
    pub fn fleet_of(&self, key: &[u8], now: UnixMicros) -> Result<&Arc<FleetEntry>, KeyFault> {
        let hash = KeyHash::of(key);
        let entries = self.by_half.get(&half(&hash)).map_or(&[][..], Vec::as_slice);
        // All are looked at: there is hardly ever more than one.
        let found = entries.iter().fold(None, |found, entry| match entry.key.sha256 == hash {
            true => Some(entry),
            false => found,
        });
        match found {
            None => Err(KeyFault::Unknown),
            Some(entry) if has_ended(&entry.key, now) => Err(KeyFault::Expired),
            Some(entry) => Ok(&entry.fleet),
        }
    }

    /// A fleet by its name.
    pub fn fleet(&self, name: &str) -> Option<&Arc<FleetEntry>> {
        self.fleets.get(name)
    }

    /// How many fleets there are.
    pub fn fleets(&self) -> usize {
        self.fleets.len()
    }

    /// How many keys are good.
    pub fn valid(&self, now: UnixMicros) -> usize {
        self.entries().filter(|entry| !has_ended(&entry.key, now)).count()
    }

    /// When the last key of a fleet ends: [`None`] if it has none now, `Some(None)` if never.
    pub fn end_of(&self, fleet: &str, now: UnixMicros) -> Option<Option<UnixMicros>> {
        let keys = self.entries().filter(|entry| entry.fleet.name.as_ref() == fleet);
        let ends = keys
            .filter(|entry| !has_ended(&entry.key, now))
            .map(|entry| entry.key.expires_at.map_or(i64::MAX, |end| end.as_microsecond()));
        ends.max().map(|end| (end < i64::MAX).then_some(UnixMicros(end)))
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_half.values().flatten()
    }
}

fn half(hash: &KeyHash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.bytes()[..16]);
    half
}

fn has_ended(key: &FleetKey, now: UnixMicros) -> bool {
    key.expires_at.is_some_and(|end| end.as_microsecond() <= now.0)
}
