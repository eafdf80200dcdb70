//! The log as everybody but its writer sees it: reading, retiring, counting.

use std::sync::{Arc, PoisonError};

use crate::event::Epoch;

use super::seal::KeyId;
use super::segment::{self, FileKind};
use super::state::{Segment, Shared};
use super::{DamagedRange, EpochStat, LogError, Position, Reader};

/// How many damaged segments are kept for people to look at; what was lost in later ones is
/// only told.
const SET_ASIDE_MAX: usize = 8;

/// A handle on an open log; cheap to clone.
#[derive(Clone)]
pub struct Log {
    pub(super) shared: Arc<Shared>,
}

/// A moment's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStat {
    /// Bytes of all segments.
    pub disk_bytes: u64,
    /// How many segments there are.
    pub segments: usize,
    /// Entries that are synced and not retired.
    pub pending_entries: u64,
    /// The epoch that is being written, or will be by the next append.
    pub epoch: Epoch,
    /// The number after its last synced entry.
    pub next_seq: u64,
    /// The last entry that is retired.
    pub retired: Option<Position>,
    /// What is known of each epoch, oldest first: those that still have segments, or had to give
    /// them up before [`Log::note_told`]; the last one is [`Self::epoch`].
    pub epochs: Vec<EpochStat>,
    /// What is known to be damaged, the first 1,024 ranges.
    pub damaged: Vec<DamagedRange>,
    /// How many entries are known to be damaged, in all ranges.
    pub damaged_entries: u64,
}

/// A segment as it stands on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its ordinal.
    pub ordinal: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// The number of its first entry.
    pub first_seq: u64,
    /// The number after its last entry's.
    pub next_seq: u64,
    /// What it takes.
    pub file_bytes: u64,
    /// What it is sealed with.
    pub key: KeyId,
}

impl Log {
    /// A reader of the synced entries after `after`, or of all.
    pub fn reader(&self, after: Option<Position>) -> Reader {
        Reader::new(self.shared.clone(), after)
    }

    /// Takes every entry up to and including `position` as done with, and removes the segments
    /// of which nothing is left, or sets them aside where they are damaged. The newest stays.
    ///
    /// # Errors
    /// When the disk refuses a removal; the position is retired nevertheless, and the next call
    /// tries again.
    pub fn retire(&self, position: Position) -> Result<(), LogError> {
        self.mark_retired(position);
        self.reclaim()
    }

    /// Takes every entry up to and including `position` as done with, without touching the disk.
    pub fn mark_retired(&self, position: Position) {
        self.shared.state().mark_retired(position);
    }

    /// The last entry that is retired.
    pub fn retired(&self) -> Option<Position> {
        self.shared.state().retired
    }

    /// Remembers numbers that a consumer found unreadable though their checksum holds.
    pub fn note_damage(&self, range: DamagedRange) {
        self.shared.state().note_damage(range);
    }

    /// Somebody outside has durably noted what [`LogStat::epochs`] and [`LogStat::damaged`] said:
    /// the log may forget where ended epochs ended, and what was damaged. Call
    /// [`Self::reclaim`] afterwards.
    pub fn note_told(&self, epochs: &[EpochStat], damaged: &[DamagedRange]) {
        self.shared.state().note_told(epochs, damaged);
    }

    /// Another lane tells of these epochs: what is kept in this one for that can go.
    pub fn note_listed(&self, epochs: impl IntoIterator<Item = Epoch>) {
        let listed = epochs.into_iter().collect();
        self.shared.state().listed = listed;
    }

    /// Whether where retirement stands should not be written down for now: damage waits to be told,
    /// and read again after a restart it is found again; or a segment was left out of this life.
    pub fn holds_position(&self) -> bool {
        self.shared.state().holds_position()
    }

    /// Removes the segments of which everything is retired and told. One that is known to be damaged is
    /// set aside instead, because an expert may still read what was passed over.
    ///
    /// # Errors
    /// When the disk refuses; the next call tries again.
    pub fn reclaim(&self) -> Result<(), LogError> {
        let _removing = self.shared.removing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut state = self.shared.state();
            let Some((ordinal, removed)) =
                state.removable().and_then(|ordinal| Some((ordinal, state.release(ordinal)?)))
            else {
                return Ok(());
            };
            let is_damaged = state.is_damaged(ordinal);
            drop(state);
            let name = self.shared.file_name(ordinal, &removed);
            match self.give_back(ordinal, &name, is_damaged) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    self.shared.state().restore(ordinal, removed);
                    return Err(LogError::disk("remove a segment")(error));
                }
                _ => {}
            }
            // In order even after a crash: the next removal waits for this one to be durable.
            self.shared.disk.sync_dir().map_err(LogError::disk("sync the log's directory"))?;
        }
    }

    fn give_back(&self, ordinal: u64, name: &str, is_damaged: bool) -> std::io::Result<()> {
        let disk = &self.shared.disk;
        if !is_damaged {
            return disk.remove(name);
        }
        let names = disk.list()?;
        let kinds = names.iter().filter_map(|name| segment::parse_name(name));
        if kinds.filter(|(.., kind)| *kind == FileKind::Damaged).count() >= SET_ASIDE_MAX {
            tracing::warn!(segment = ordinal, "a damaged segment is removed: enough are set aside");
            return disk.remove(name);
        }
        let aside = self.name_of(ordinal, FileKind::Damaged);
        tracing::warn!(file = aside, "a damaged segment is set aside; it can be removed by hand");
        disk.rename(name, &aside)
    }

    /// Bytes of all segments; cheaper than [`Self::stat`].
    pub fn disk_bytes(&self) -> u64 {
        self.shared.state().disk_bytes()
    }

    /// A moment's numbers.
    pub fn stat(&self) -> LogStat {
        let state = self.shared.state();
        LogStat {
            disk_bytes: state.disk_bytes(),
            segments: state.segments.len(),
            pending_entries: state.pending_entries(),
            epoch: state.epoch,
            next_seq: state.next_seq,
            retired: state.retired,
            epochs: state.epochs(),
            damaged: state.damaged.iter().map(|damage| damage.range).collect(),
            damaged_entries: state.damaged_entries,
        }
    }

    /// The epoch of a segment that is still there.
    pub fn epoch_of(&self, segment: u64) -> Option<Epoch> {
        self.segment(segment).map(|segment| segment.epoch)
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared.state();
        let info = |(&ordinal, segment): (&u64, &Segment)| {
            let Segment { epoch, first_seq, next_seq, file_bytes, key, .. } = *segment;
            SegmentInfo { ordinal, epoch, first_seq, next_seq, file_bytes, key }
        };
        state.segments.iter().map(info).collect()
    }

    /// The epochs of its segments, oldest first.
    pub fn segment_epochs(&self) -> Vec<Epoch> {
        let state = self.shared.state();
        let mut epochs: Vec<Epoch> = state.segments.values().map(|one| one.epoch).collect();
        epochs.dedup();
        epochs
    }

    pub(super) fn segment(&self, ordinal: u64) -> Option<Segment> {
        self.shared.state().segments.get(&ordinal).copied()
    }

    /// Takes a segment up that stands whole and durable in this lane.
    pub(super) fn adopt(&self, ordinal: u64, segment: Segment) {
        // Its epoch may have been released with the last segment before it.
        self.shared.state().restore(ordinal, segment);
        self.shared.grown.notify_all();
    }

    /// Whether a segment at or after this one is there, or was retired.
    pub(super) fn is_beyond(&self, ordinal: u64) -> bool {
        let state = self.shared.state();
        state.segments.last_key_value().is_some_and(|(last, _)| *last >= ordinal)
            || state.retired.is_some_and(|retired| retired.segment >= ordinal)
    }

    /// Takes a segment for not there; its file is left as it is.
    pub(super) fn forget(&self, ordinal: u64) {
        let mut state = self.shared.state();
        state.segments.remove(&ordinal);
        state.has_forgotten = true;
    }

    pub(super) fn name_of(&self, ordinal: u64, kind: FileKind) -> String {
        segment::name_of(self.shared.lane, ordinal, kind)
    }
}
