//! The bus as the spool sees it, and what it has.

use std::collections::{HashMap, HashSet, VecDeque};

use penstock_common::event::Epoch;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::spool::entry::Entry;
use crate::spool::{Lane, Position, SpooledEntry};

use super::entries::identify;

pub(super) type Number = (Epoch, u64);

struct Record {
    position: Position,
    number: Number,
    id: u64,
    is_evicted: bool,
    /// Acknowledged, and no dead letter, neither from the start nor because it gave way.
    is_event: bool,
}

/// Records between the spool and the acknowledgement, and everything that arrived.
#[derive(Default)]
pub(super) struct Bus {
    in_flight: [VecDeque<Record>; 2],
    pub(super) arrived: HashSet<Number>,
    /// Handed out by each lane since the producer was built, or acknowledged in this life of the
    /// process.
    taken: [HashSet<Number>; 2],
    acknowledged: [HashSet<Number>; 2],
    /// The id of the last event that arrived for the first time, by device.
    last_first: HashMap<u64, u64>,
    /// Whether events must arrive in order: not where a key was missing for a while.
    pub(super) is_ordered: bool,
    pub(super) dead_letters: u64,
}

impl Bus {
    pub(super) fn new(is_ordered: bool) -> Self {
        Self { is_ordered, ..Self::default() }
    }

    /// Takes an entry of a lane; returns its number and id.
    pub(super) fn take(
        &mut self,
        lane: Lane,
        spooled: &SpooledEntry,
        acknowledged: &HashSet<u64>,
    ) -> Result<(Number, u64), String> {
        let at = lane as usize;
        let (position, number) = (spooled.position, (spooled.epoch, spooled.seq));
        let (id, is_evicted) = identify(&spooled.entry)?;
        if !self.taken[at].insert(number) || self.acknowledged[at].contains(&number) {
            return Err(format!("entry {id} at {number:?} comes twice out of {lane:?}"));
        }
        if is_evicted && lane == Lane::Main {
            return Err(format!("entry {id} at {number:?} gave way, and comes out of {lane:?}"));
        }
        // What was refused may come back after a crash, and has no place among the others.
        let is_event = matches!(spooled.entry, Entry::Event(_)) && acknowledged.contains(&id);
        self.in_flight[at].push_back(Record { position, number, id, is_evicted, is_event });
        Ok((number, id))
    }

    /// Some of what is in flight arrives and is acknowledged: up to where the lane may retire.
    pub(super) fn acknowledge(
        &mut self,
        lane: Lane,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Position>, String> {
        let at = lane as usize;
        let mut retired = None;
        for _ in 0..rng.random_range(0..=self.in_flight[at].len()) {
            let Some(record) = self.in_flight[at].pop_front() else { break };
            retired = Some(record.position);
            self.acknowledged[at].insert(record.number);
            self.arrive(&record)?;
        }
        Ok(retired)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.iter().all(VecDeque::is_empty)
    }

    /// The producer is given up: some of what was in flight arrived all the same.
    pub(super) fn lose_producer(&mut self, rng: &mut ChaCha8Rng) -> Result<(), String> {
        for at in 0..2 {
            for _ in 0..rng.random_range(0..=self.in_flight[at].len()) {
                let Some(record) = self.in_flight[at].pop_front() else { break };
                self.arrive(&record)?;
            }
            self.in_flight[at].clear();
            self.taken[at].clear();
        }
        Ok(())
    }

    /// The process dies.
    pub(super) fn restart(&mut self, rng: &mut ChaCha8Rng) -> Result<(), String> {
        self.lose_producer(rng)?;
        self.acknowledged.iter_mut().for_each(HashSet::clear);
        Ok(())
    }

    fn arrive(&mut self, record: &Record) -> Result<(), String> {
        let is_first = self.arrived.insert(record.number);
        self.dead_letters += u64::from(record.is_evicted);
        if !record.is_event || !is_first || !self.is_ordered {
            return Ok(());
        }
        let (device, id) = (record.id % 3, record.id);
        match self.last_first.insert(device, id) {
            Some(last) if last > id => Err(format!("event {id} arrives after {last}")),
            _ => Ok(()),
        }
    }
}
