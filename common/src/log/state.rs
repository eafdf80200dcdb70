//! What the writer, the readers and retirement share: which segments there are, how far each is
//! synced, and what is known to be damaged.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::event::Epoch;

use super::disk::Disk;
use super::seal::{KeyId, Keys};
use super::segment::{self, FileKind, Lane, Moved};
use super::{DamagedRange, EpochStat, Position};

/// How many damaged ranges are remembered; later ones are only counted.
const DAMAGED_MAX: usize = 1024;
/// How many epochs are remembered of which nothing is left on the disk and nobody was told.
const RELEASED_MAX: usize = 256;

pub(super) struct Shared {
    pub(super) lane: Lane,
    pub(super) disk: Arc<dyn Disk>,
    /// What opens sealed records.
    pub(super) keys: Keys,
    state: Mutex<State>,
    /// Notified when synced records were added.
    pub(super) grown: Condvar,
    /// Held while files are removed, so that they go oldest first.
    pub(super) removing: Mutex<()>,
}

pub(super) struct State {
    pub(super) lane: Lane,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) retired: Option<Position>,
    /// The greatest ordinal ever seen, whether its file is still there or not.
    pub(super) ordinal_max: u64,
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    pub(super) damaged: VecDeque<Damage>,
    pub(super) damaged_entries: u64,
    /// A segment whose file is there counts as not there.
    pub(super) has_forgotten: bool,
    /// See [`super::LogConfig::untold_bytes_max`].
    pub(super) untold_bytes_max: u64,
    /// Where ended epochs ended, as somebody outside has noted.
    pub(super) told: HashMap<Epoch, u64>,
    /// Epochs that another lane tells of, so that this one need not be kept for them.
    pub(super) listed: Vec<Epoch>,
    /// Epochs whose last segment had to go before somebody was told.
    pub(super) released: VecDeque<EpochStat>,
}

/// A damaged range, and whether somebody outside has noted it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damage {
    pub(super) range: DamagedRange,
    pub(super) told: bool,
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
    /// What its file's name says; a locked one that can be read now keeps it until it is removed.
    pub(super) kind: FileKind,
    /// Why and when it was moved to this lane, if it was.
    pub(super) moved: Option<Moved>,
    /// What its records are sealed with.
    pub(super) key: KeyId,
}

impl Segment {
    /// Whether it goes on from the segment before it.
    pub(super) fn is_in_line(&self) -> bool {
        self.kind == FileKind::Segment && self.moved.is_none()
    }
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, keys: Keys, state: State) -> Self {
        let lane = state.lane;
        let (state, grown, removing) = (Mutex::new(state), Condvar::new(), Mutex::new(()));
        Self { lane, disk, keys, state, grown, removing }
    }

    /// The name of a segment's file.
    pub(super) fn file_name(&self, ordinal: u64, segment: &Segment) -> String {
        segment::name_of(self.lane, ordinal, segment.kind)
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

    /// Everything up to and including `position` is done with.
    pub(super) fn mark_retired(&mut self, position: Position) {
        self.retired = self.retired.max(Some(position));
        self.retire_damage();
    }

    /// What is damaged and comes next is done with as well: where nothing follows it, nobody would
    /// ever acknowledge more.
    fn retire_damage(&mut self) {
        while let Some((ordinal, segment)) =
            self.segments.iter().find(|(at, one)| !self.is_retired(**at, one))
        {
            let next = match self.retired {
                Some(retired) if retired.segment == *ordinal => retired.seq.saturating_add(1),
                _ => segment.first_seq,
            };
            // As its own reader found it: what others say of its numbers is a guess.
            let of_next = |range: &&DamagedRange| {
                range.segment == *ordinal
                    && range.epoch == segment.epoch
                    && (range.first_seq..range.next_seq).contains(&next)
            };
            let ranges = self.damaged.iter().map(|damage| &damage.range).filter(of_next);
            let end = ranges.map(|range| range.next_seq.min(segment.next_seq)).max();
            let Some(last) = end.filter(|end| *end > next).map(|end| end - 1) else { return };
            self.retired = Some(Position { segment: *ordinal, epoch: segment.epoch, seq: last });
        }
    }

    /// The oldest segment, if it can be removed: all of it is retired, it is not the newest of the
    /// main lane, and what only it can tell is told.
    pub(super) fn removable(&self) -> Option<u64> {
        let (ordinal, segment) = self.segments.first_key_value()?;
        let is_newest = self.segments.len() == 1 && self.lane == Lane::Main;
        let is_done = !is_newest && self.is_retired(*ordinal, segment);
        (is_done && (self.is_told(*ordinal, segment) || !self.may_hold())).then_some(*ordinal)
    }

    /// Whether there is room for segments that wait only for somebody to be told.
    fn may_hold(&self) -> bool {
        self.untold_bytes_max > 0 && self.disk_bytes() <= self.untold_bytes_max
    }

    /// Whether the segment can go without anything being forgotten: where its epoch ended, or
    /// damage that is found nowhere else after a restart.
    fn is_told(&self, ordinal: u64, segment: &Segment) -> bool {
        let told = self.told.get(&segment.epoch).copied();
        let is_end_told = || told.is_some_and(|end| end >= segment.next_seq);
        let untold = |damage: &Damage| damage.range.segment == ordinal && !damage.told;
        let is_needed =
            self.is_last_of_epoch(ordinal, segment.epoch) && !self.listed.contains(&segment.epoch);
        (!is_needed || is_end_told()) && !self.damaged.iter().any(untold)
    }

    fn is_last_of_epoch(&self, ordinal: u64, epoch: Epoch) -> bool {
        let next = self.segments.range(ordinal + 1..).next();
        next.is_none_or(|(_, next)| next.epoch != epoch)
    }

    /// Whether where retirement stands must not be written down: damage waits to be told, and is
    /// to be found again after a restart; or a segment counts as not there until then, and must
    /// not count as retired because later ones are.
    pub(super) fn holds_position(&self) -> bool {
        self.has_forgotten || self.may_hold() && self.damaged.iter().any(|damage| !damage.told)
    }

    /// Takes a segment away whose file is about to be removed.
    pub(super) fn release(&mut self, ordinal: u64) -> Option<Segment> {
        let segment = self.segments.get(&ordinal).copied()?;
        if self.is_last_of_epoch(ordinal, segment.epoch) {
            let told = self.told.remove(&segment.epoch);
            let Segment { epoch, next_seq, .. } = segment;
            if self.untold_bytes_max > 0 && told.is_none_or(|end| end < next_seq) {
                self.released.push_back(EpochStat { epoch, next_seq, retired_seq: next_seq });
                if self.released.len() > RELEASED_MAX {
                    self.released.pop_front();
                }
            }
        }
        self.segments.remove(&ordinal)
    }

    /// Puts a segment there: its file could not be removed, or came from another lane.
    pub(super) fn restore(&mut self, ordinal: u64, segment: Segment) {
        self.released.retain(|old| old.epoch != segment.epoch);
        self.segments.insert(ordinal, segment);
    }

    /// What is known of each epoch, oldest first; the last one of the main lane is being written.
    pub(super) fn epochs(&self) -> Vec<EpochStat> {
        let mut epochs: Vec<EpochStat> = self.released.iter().copied().collect();
        let has_segment = |epoch| self.segments.values().any(|segment| segment.epoch == epoch);
        for DamagedRange { epoch, next_seq, .. } in self.damaged.iter().map(|damage| damage.range) {
            // Nothing but the damage is left of it.
            match epochs.iter_mut().find(|known| known.epoch == epoch) {
                Some(known) => {
                    known.next_seq = known.next_seq.max(next_seq);
                    known.retired_seq = known.next_seq;
                }
                None if has_segment(epoch) || epoch == self.epoch => {}
                None => epochs.push(EpochStat { epoch, next_seq, retired_seq: next_seq }),
            }
        }
        let mut is_open = false;
        for (ordinal, segment) in &self.segments {
            if epochs.last().is_none_or(|last| last.epoch != segment.epoch) {
                // What came before the oldest segment was removed, so it was retired.
                let (epoch, first) = (segment.epoch, segment.first_seq);
                epochs.push(EpochStat { epoch, next_seq: first, retired_seq: first });
                is_open = false;
            }
            let Some(last) = epochs.last_mut() else { continue };
            last.next_seq = segment.next_seq;
            if is_open {
                continue;
            }
            is_open = !self.is_retired(*ordinal, segment);
            last.retired_seq = match self.retired {
                _ if !is_open => segment.next_seq,
                Some(retired) if retired.segment == *ordinal => {
                    retired.seq.saturating_add(1).clamp(segment.first_seq, segment.next_seq)
                }
                _ => segment.first_seq,
            };
        }
        if self.lane == Lane::Main && epochs.last().is_none_or(|last| last.epoch != self.epoch) {
            epochs.push(EpochStat { epoch: self.epoch, next_seq: 0, retired_seq: 0 });
        }
        epochs
    }

    /// Somebody outside has noted these epochs, the last of which is being written, and ranges.
    pub(super) fn note_told(&mut self, epochs: &[EpochStat], damaged: &[DamagedRange]) {
        let ended = epochs.split_last().map_or(&[][..], |(_, ended)| ended);
        for epoch in ended.iter().filter(|epoch| epoch.is_complete()) {
            self.released.retain(|old| old.epoch != epoch.epoch);
            if self.segments.values().any(|segment| segment.epoch == epoch.epoch) {
                let end = self.told.entry(epoch.epoch).or_default();
                *end = epoch.next_seq.max(*end);
            }
        }
        for damage in &mut self.damaged {
            damage.told |= damaged.contains(&damage.range);
        }
    }

    /// Bytes of all segments.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.file_bytes).sum()
    }

    /// Whether something of the segment is known to be damaged.
    pub(super) fn is_damaged(&self, ordinal: u64) -> bool {
        self.damaged.iter().any(|damage| damage.range.segment == ordinal)
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
        if self.damaged.iter().any(|damage| damage.range.covers(&range)) {
            return false;
        }
        self.damaged_entries = self.damaged_entries.saturating_add(range.entries());
        if self.damaged.len() >= DAMAGED_MAX {
            let segments = &self.segments;
            self.damaged.retain(|old| !old.told || segments.contains_key(&old.range.segment));
        }
        if self.damaged.len() < DAMAGED_MAX {
            self.damaged.push_back(Damage { range, told: false });
        }
        self.retire_damage();
        true
    }
}
