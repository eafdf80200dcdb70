//! What the spool says about itself.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use penstock_common::event::{Epoch, UnixMicros};

use super::open::Shared;
use super::{DamagedRange, EpochStat, Position};

/// How many read but unretired groups are dated; with more, the oldest ones are.
const AGES_MAX: usize = 4096;

/// A moment's numbers. Totals count since the spool was opened.
#[derive(Clone, Debug)]
pub struct SpoolStat {
    /// Bytes of all segments on disk.
    pub disk_bytes: u64,
    /// The configured limit of those.
    pub bytes_max: u64,
    /// How many segments there are.
    pub segments: usize,
    /// Bytes that wait in memory for the disk, uncompressed.
    pub queue_bytes: u64,
    /// Entries that are synced and not retired.
    pub pending_entries: u64,
    /// The epoch that is being written.
    pub epoch: Epoch,
    /// The number after its last synced entry.
    pub next_seq: u64,
    /// Every epoch that the log still knows, oldest first; the last is [`Self::epoch`].
    pub epochs: Vec<EpochStat>,
    /// The last retired entry.
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

    fn oldest(&self) -> Option<UnixMicros> {
        self.lock().front().map(|(_, received_at)| *received_at)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Position, UnixMicros)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) fn stat(&self) -> SpoolStat {
        let log = self.log.stat();
        let counters = &self.counters;
        SpoolStat {
            disk_bytes: log.disk_bytes,
            bytes_max: self.config.bytes_max,
            segments: log.segments,
            queue_bytes: self.queue.bytes(),
            pending_entries: log.pending_entries,
            epoch: log.epoch,
            next_seq: log.next_seq,
            epochs: log.epochs,
            retired: log.retired,
            oldest_received_at: self.ages.oldest(),
            damaged: log.damaged,
            damaged_entries: log.damaged_entries,
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
