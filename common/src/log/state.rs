//! What the writer, the readers and retirement share: which segments there are, how far each is
//! synced, and what is known to be damaged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::event::Epoch;

use super::disk::Disk;
use super::{DamagedRange, Position};

/// How many damaged ranges are remembered; later ones are only counted.
const DAMAGED_MAX: usize = 1024;

pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    state: Mutex<State>,
    /// Notified when synced records were added.
    pub(super) grown: Condvar,
    /// Held while files are removed, so that they go oldest first.
    pub(super) removing: Mutex<()>,
}

pub(super) struct State {
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) retired: Option<Position>,
    /// The greatest ordinal ever seen, whether its file is still there or not.
    pub(super) ordinal_max: u64,
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) damaged: VecDeque<DamagedRange>,
    pub(super) damaged_entries: u64,
}

/// A segment with at least one synced record, or what is left of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) epoch: Epoch,
    pub(super) first_seq: u64,
    /// The number after its last synced entry.
    pub(super) next_seq: u64,
    /// How much of it is synced and counts.
    pub(super) valid_bytes: u64,
    /// What it takes on the disk.
    pub(super) file_bytes: u64,
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, state: State) -> Self {
        Self { disk, state: Mutex::new(state), grown: Condvar::new(), removing: Mutex::new(()) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete in itself, so a panic elsewhere leaves no half.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether every entry of the segment is retired.
    pub(super) fn is_retired(&self, ordinal: u64, segment: &Segment) -> bool {
        self.retired.is_some_and(|retired| {
            retired.segment > ordinal
                || retired.segment == ordinal && retired.seq.saturating_add(1) >= segment.next_seq
        })
    }

    /// The oldest segment, if it can be removed: all of it is retired and it is not the newest.
    pub(super) fn removable(&self) -> Option<u64> {
        let (ordinal, segment) = self.segments.first_key_value()?;
        (self.segments.len() > 1 && self.is_retired(*ordinal, segment)).then_some(*ordinal)
    }

    /// Whether something of the segment is known to be damaged.
    pub(super) fn is_damaged(&self, ordinal: u64) -> bool {
        self.damaged.iter().any(|range| range.segment == ordinal)
    }

    /// Entries that are not retired, damaged ones included.
    pub(super) fn pending_entries(&self) -> u64 {
        let count = |(ordinal, segment): (&u64, &Segment)| {
            let all = segment.next_seq - segment.first_seq;
            match self.retired {
                Some(retired) if retired.segment > *ordinal => 0,
                Some(retired) if retired.segment == *ordinal => {
                    all.min(segment.next_seq.saturating_sub(retired.seq.saturating_add(1)))
                }
                _ => all,
            }
        };
        self.segments.iter().map(count).sum()
    }

    /// Remembers a damaged range once. Returns whether it was new.
    pub(super) fn note_damage(&mut self, range: DamagedRange) -> bool {
        let known = |old: &DamagedRange| {
            old.segment == range.segment
                && old.epoch == range.epoch
                && old.first_seq <= range.first_seq
                && range.next_seq <= old.next_seq
        };
        if self.damaged.iter().any(known) {
            return false;
        }
        self.damaged_entries = self.damaged_entries.saturating_add(range.entries());
        if self.damaged.len() < DAMAGED_MAX {
            self.damaged.push_back(range);
        }
        true
    }
}
