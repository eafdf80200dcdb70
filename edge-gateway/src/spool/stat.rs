//! What the spool says about itself.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use penstock_common::event::{Epoch, UnixMicros};
use penstock_common::log::Position;

use super::lanes::{LanesStat, Usage};
use super::open::{Locked, Shared};
use super::{DamagedRange, EpochStat};

/// How many read but unretired groups are dated; with more, the oldest ones are.
const AGES_MAX: usize = 4096;

/// A moment's numbers. Totals count since the spool was opened.
#[derive(Clone, Debug)]
pub struct SpoolStat {
    /// Bytes of all segments on disk, of both lanes.
    pub disk_bytes: u64,
    /// How these compare with the limits.
    pub usage: Usage,
    /// The configured limit of those.
    pub bytes_max: u64,
    /// How many segments there are.
    pub segments: usize,
    /// Bytes that wait in memory for the disk, uncompressed.
    pub queue_bytes: u64,
    /// Entries that are synced and not retired, in both lanes.
    pub pending_entries: u64,
    /// Of these, those in the dead lane.
    pub dead_pending_entries: u64,
    /// Entries moved to the dead lane.
    pub evicted_entries_total: u64,
    /// Segments moved to the dead lane.
    pub evicted_segments_total: u64,
    /// Moves that the disk refused.
    pub eviction_errors_total: u64,
    /// Whether the spool is at its hard limit and the dead lane is full as well.
    pub is_dead_full: bool,
    /// Segments that can't be read yet, because their key is missing or their format is later.
    pub locked_segments: u64,
    /// What these take on disk; not part of [`Self::disk_bytes`].
    pub locked_bytes: u64,
    /// Entries in them.
    pub locked_entries: u64,
    /// The epoch that is being written.
    pub epoch: Epoch,
    /// The number after its last synced entry.
    pub next_seq: u64,
    /// Every epoch that the log still knows, oldest first; the last is [`Self::epoch`]. What waits
    /// in the dead lane is not retired.
    pub epochs: Vec<EpochStat>,
    /// The last entry of the main lane that is retired, or was moved to the dead lane with
    /// everything before it.
    pub retired: Option<Position>,
    /// When the oldest entry that is read and not retired was received.
    pub oldest_received_at: Option<UnixMicros>,
    /// Numbers known to be lost to damage, the first 1,024 ranges.
    pub damaged: Vec<DamagedRange>,
    /// How many entries are known to be lost to damage.
    pub damaged_entries: u64,
    /// Whether the last write failed.
    pub is_failing: bool,
    /// Entries made durable.
    pub committed_entries_total: u64,
    /// Groups made durable, each with one sync.
    pub committed_groups_total: u64,
    /// Their bytes before compression.
    pub committed_plain_bytes_total: u64,
    /// Their bytes on disk.
    pub committed_record_bytes_total: u64,
    /// Time spent compressing, writing and syncing them.
    pub commit_micros_total: u64,
    /// The longest of these.
    pub commit_micros_max: u64,
    /// Groups that the disk refused.
    pub disk_errors_total: u64,
    /// Submissions refused because the spool was full.
    pub refused_full_total: u64,
}

/// Counters behind [`SpoolStat`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) groups: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) plain_bytes: AtomicU64,
    pub(super) record_bytes: AtomicU64,
    pub(super) commit_micros: AtomicU64,
    pub(super) commit_micros_max: AtomicU64,
    pub(super) disk_errors: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) is_failing: AtomicBool,
    pub(super) is_dead_full: AtomicBool,
}

/// When the groups that are read and not retired were received.
#[derive(Default)]
pub(super) struct Ages(Mutex<VecDeque<(Position, UnixMicros)>>);

impl Ages {
    /// A group was read: its last place, and when its first entry was received.
    pub(super) fn note(&self, last: Position, received_at: UnixMicros) {
        let mut ages = self.lock();
        if ages.len() < AGES_MAX && ages.back().is_none_or(|(newest, _)| *newest < last) {
            ages.push_back((last, received_at));
        }
    }

    pub(super) fn retire(&self, position: Position) {
        let mut ages = self.lock();
        while ages.front().is_some_and(|(last, _)| *last <= position) {
            ages.pop_front();
        }
    }

    pub(super) fn oldest(&self) -> Option<UnixMicros> {
        self.lock().front().map(|(_, received_at)| *received_at)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Position, UnixMicros)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) fn stat(&self) -> SpoolStat {
        let lanes = &self.lanes;
        let LanesStat { main, dead, epochs, damaged, damaged_entries } = lanes.stat();
        let Locked { segments: locked_segments, bytes: locked_bytes, entries: locked_entries } =
            self.locked;
        let counters = &self.counters;
        SpoolStat {
            disk_bytes: main.disk_bytes + dead.disk_bytes,
            usage: lanes.usage(),
            bytes_max: self.config.bytes_max,
            segments: main.segments + dead.segments,
            queue_bytes: self.queue.bytes(),
            pending_entries: main.pending_entries + dead.pending_entries,
            dead_pending_entries: dead.pending_entries,
            evicted_entries_total: lanes.evicted_entries.load(Relaxed),
            evicted_segments_total: lanes.evicted_segments.load(Relaxed),
            eviction_errors_total: lanes.eviction_errors.load(Relaxed),
            is_dead_full: counters.is_dead_full.load(Relaxed),
            locked_segments,
            locked_bytes,
            locked_entries,
            epoch: main.epoch,
            next_seq: main.next_seq,
            epochs,
            retired: main.retired,
            oldest_received_at: lanes.ages.oldest(),
            damaged,
            damaged_entries,
            is_failing: counters.is_failing.load(Relaxed),
            committed_entries_total: counters.entries.load(Relaxed),
            committed_groups_total: counters.groups.load(Relaxed),
            committed_plain_bytes_total: counters.plain_bytes.load(Relaxed),
            committed_record_bytes_total: counters.record_bytes.load(Relaxed),
            commit_micros_total: counters.commit_micros.load(Relaxed),
            commit_micros_max: counters.commit_micros_max.load(Relaxed),
            disk_errors_total: counters.disk_errors.load(Relaxed),
            refused_full_total: counters.refused_full.load(Relaxed),
        }
    }
}
