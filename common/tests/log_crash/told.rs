//! Somebody outside who is told, now and then, what the log knows of its epochs: whatever happens
//! in between, they learn in the end where each epoch ended.

use std::collections::{BTreeMap, HashMap};

use penstock_common::event::Epoch;
use penstock_common::log::{Log, LogConfig, Position};

/// What was acknowledged, and what somebody outside knows.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By epoch: the number after the last acknowledged one.
    acknowledged: HashMap<Epoch, u64>,
    /// Where epochs ended that were told to be complete.
    ended: HashMap<Epoch, u64>,
}

impl Told {
    pub(crate) fn acknowledged(&mut self, position: Position) {
        let next = self.acknowledged.entry(position.epoch).or_default();
        *next = (*next).max(position.seq + 1);
    }

    pub(crate) fn tell(&mut self, log: &Log) {
        let stat = log.stat();
        let ended = stat.epochs.iter().filter(|epoch| epoch.epoch != stat.epoch);
        for epoch in ended.filter(|epoch| epoch.is_complete()) {
            let end = self.ended.entry(epoch.epoch).or_default();
            *end = (*end).max(epoch.next_seq);
        }
        log.note_told(&stat.epochs, &stat.damaged);
        let _ = log.reclaim();
    }

    /// Every acknowledged number is below where its epoch is told to stand, now or earlier; and
    /// nothing is told to be retired that is not.
    pub(crate) fn check(
        &self,
        log: &Log,
        config: &LogConfig,
        required: &BTreeMap<Position, u64>,
    ) -> Result<(), String> {
        let stat = log.stat();
        if stat.epochs.last().map(|last| last.epoch) != Some(stat.epoch) {
            return Err(format!("{:?} does not end with {}", stat.epochs, stat.epoch));
        }
        for position in required.keys() {
            let listed = stat.epochs.iter().find(|listed| listed.epoch == position.epoch);
            if listed.is_none_or(|listed| position.seq < listed.retired_seq) {
                return Err(format!("{position:?} is told to be retired: {listed:?}"));
            }
        }
        if config.untold_bytes_max == 0 {
            return Ok(());
        }
        for (epoch, next) in &self.acknowledged {
            let listed = stat.epochs.iter().find(|listed| listed.epoch == *epoch);
            let known = listed.map_or(0, |listed| listed.next_seq);
            let ended = self.ended.get(epoch).copied().unwrap_or(0);
            if known.max(ended) < *next {
                return Err(format!("{epoch} went up to {next}; known are {known} and {ended}"));
            }
        }
        Ok(())
    }
}
