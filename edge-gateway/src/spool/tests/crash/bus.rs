//! The bus as the spool sees it, and what it has.

use std::collections::{HashMap, HashSet, VecDeque};

use penstock_common::event::Epoch;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::spool::{Position, SpooledEntry};

use super::entries::identify;

pub(super) type Number = (Epoch, u64);

/// Records between the spool and the acknowledgement, and everything that arrived.
#[derive(Default)]
pub(super) struct Bus {
    in_flight: VecDeque<(Position, Number, u64, bool)>,
    pub(super) arrived: HashSet<Number>,
    /// Handed out since the producer was built, or acknowledged in this life of the process.
    taken: HashSet<Number>,
    acknowledged: HashSet<Number>,
    /// The id of the last event that arrived for the first time, by device.
    last_first: HashMap<u64, u64>,
    /// Whether events must arrive in order: not where a key was missing for a while.
    pub(super) is_ordered: bool,
    pub(super) dead_letters: u64,
}

impl Bus {
    /// Takes an entry; returns its number and id.
    pub(super) fn take(&mut self, spooled: &SpooledEntry) -> Result<(Number, u64), String> {
        let number = (spooled.epoch, spooled.seq);
        let (id, is_evicted) = identify(&spooled.entry)?;
        if !self.taken.insert(number) || self.acknowledged.contains(&number) {
            return Err(format!("entry {id} at {number:?} is handed out twice by one producer"));
        }
        self.in_flight.push_back((spooled.position, number, id, is_evicted));
        Ok((number, id))
    }

    /// Some of what is in flight arrives and is acknowledged: up to where the spool may retire.
    pub(super) fn acknowledge(&mut self, rng: &mut ChaCha8Rng) -> Result<Option<Position>, String> {
        let count = rng.random_range(0..=self.in_flight.len());
        let mut retired = None;
        for _ in 0..count {
            let Some((position, number, id, is_evicted)) = self.in_flight.pop_front() else {
                break;
            };
            self.arrive(number, id, is_evicted)?;
            self.acknowledged.insert(number);
            retired = Some(position);
        }
        Ok(retired)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The producer is given up: some of what was in flight arrived all the same.
    pub(super) fn lose_producer(&mut self, rng: &mut ChaCha8Rng) -> Result<(), String> {
        let count = rng.random_range(0..=self.in_flight.len());
        for _ in 0..count {
            let Some((_, number, id, is_evicted)) = self.in_flight.pop_front() else { break };
            self.arrive(number, id, is_evicted)?;
        }
        self.in_flight.clear();
        self.taken.clear();
        Ok(())
    }

    /// The process dies.
    pub(super) fn restart(&mut self, rng: &mut ChaCha8Rng) -> Result<(), String> {
        self.lose_producer(rng)?;
        self.acknowledged.clear();
        Ok(())
    }

    fn arrive(&mut self, number: Number, id: u64, is_evicted: bool) -> Result<(), String> {
        let is_first = self.arrived.insert(number);
        self.dead_letters += u64::from(is_evicted);
        if is_evicted || !is_first || !self.is_ordered {
            return Ok(());
        }
        match self.last_first.insert(id % 3, id) {
            Some(last) if last > id => Err(format!("event {id} arrives after {last}")),
            _ => Ok(()),
        }
    }
}
