//! The least events of a window, one per identity, in bounded memory. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::row::{Identity, Key, Precedence, StoredEvent};

/// Keeps the least `count_max` canonical events, and at most about `bytes_max` bytes of them (but
/// always one).
#[derive(Debug)]
pub struct Keep {
    count_max: usize,
    bytes_max: usize,
    bytes: usize,
    by_key: BTreeMap<Key, StoredEvent>,
    by_identity: HashMap<Identity, Key>,
    overflowed: bool,
}

impl Keep {
    /// Nothing kept yet.
    pub fn new(count_max: usize, bytes_max: usize) -> Self {
        let (by_key, by_identity) = (BTreeMap::new(), HashMap::new());
        Self { count_max, bytes_max, bytes: 0, by_key, by_identity, overflowed: false }
    }

    /// Keeps the event, if it is among the least and not beaten by a copy that is kept.
    pub fn offer(&mut self, event: StoredEvent) {
        let key = event.key();
        let identity = (key.event_id, Arc::clone(&key.fleet));
        if let Some(known) = self.by_identity.get(&identity) {
            let known_is_better =
                self.by_key.get(known).is_some_and(|k| k.precedence() <= event.precedence());
            if known_is_better {
                return;
            }
            let known = known.clone();
            self.remove(&known);
        }
        self.bytes += event.size_bytes();
        self.by_identity.insert(identity, key.clone());
        self.by_key.insert(key, event);
        while self.is_over() {
            self.overflowed = true;
            if let Some(last) = self.by_key.keys().next_back().cloned() {
                self.remove(&last);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.by_key.len() > self.count_max || (self.bytes > self.bytes_max && self.by_key.len() > 1)
    }

    fn remove(&mut self, key: &Key) {
        if let Some(event) = self.by_key.remove(key) {
            self.bytes -= event.size_bytes();
            self.by_identity.remove(&(key.event_id, Arc::clone(&key.fleet)));
        }
    }

    /// Nothing above this can be kept, if anything is said.
    pub fn ceiling(&self) -> Option<&Key> {
        let full = self.overflowed || self.by_key.len() >= self.count_max;
        full.then(|| self.by_key.keys().next_back()).flatten()
    }

    /// Notes that an event was there that is not kept.
    pub const fn note_overflow(&mut self) {
        self.overflowed = true;
    }

    /// Whether there are more events than these.
    pub const fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// The kept events, in order.
    pub fn into_events(self) -> Vec<StoredEvent> {
        self.by_key.into_values().collect()
    }
}

/// Finds out which of some events are not canonical.
#[derive(Debug)]
pub struct Verifier {
    best: HashMap<Identity, Precedence>,
    beaten: HashSet<Identity>,
}

impl Verifier {
    /// For these events.
    pub fn new(events: &[StoredEvent]) -> Self {
        let identity = |event: &StoredEvent| (event.event_id.as_u128(), Arc::clone(&event.fleet));
        let best = events.iter().map(|event| (identity(event), event.precedence())).collect();
        Self { best, beaten: HashSet::new() }
    }

    /// Their ids.
    pub fn ids(&self) -> HashSet<u128> {
        self.best.keys().map(|(event_id, _)| *event_id).collect()
    }

    /// There is this copy somewhere.
    pub fn see(&mut self, identity: Identity, precedence: &Precedence) {
        if self.best.get(&identity).is_some_and(|best| precedence < best) {
            self.beaten.insert(identity);
        }
    }

    /// Leaves the canonical ones.
    pub fn canonical(&self, events: &mut Vec<StoredEvent>) {
        events.retain(|event| {
            !self.beaten.contains(&(event.event_id.as_u128(), Arc::clone(&event.fleet)))
        });
    }
}
