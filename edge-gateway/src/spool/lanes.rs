//! The two lanes of the spool: events to forward, and what had to give way to newer ones.
//!
//! Entries are written to the main lane (`*.seg`). When the spool comes to its hard limit, whole
//! segments are moved from its old end into the dead lane (`*.dead`), re-compressed, under their
//! own numbers; the forwarder hands them over as dead letters with their reason. Nothing is
//! dropped: when the dead lane is full too, new entries are refused.
//!
//! What the bus had acknowledged when its segment was moved is left out. What was on its way by
//! then may arrive by both ways, under one number: a duplicate, which the core knows
//! how to settle.

use std::fs::File;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_common::clock::Clock;
use penstock_common::event::Epoch;
use penstock_common::log::disk::Disk;
use penstock_common::log::seal::Keys;
use penstock_common::log::segment::{Lane, Moved};
use penstock_common::log::{
    self, DamagedRange, EpochStat, Log, LogConfig, LogError, LogStat, Opened, Position,
    RecoveryReport, Transfer, Transferred, Writer,
};

use super::SpoolConfig;
use super::stat::Ages;

/// Why a segment stands in the dead lane; the code in its header.
pub(super) const REASON_FULL: u8 = 1;

/// Where retirement stands in each lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retired {
    pub(super) main: Option<Position>,
    pub(super) dead: Option<Position>,
}

/// How full the spool is, cheap to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of both lanes on disk.
    pub used_bytes: u64,
    /// Of these, events to forward.
    pub main_bytes: u64,
    /// Of these, the dead lane.
    pub dead_bytes: u64,
    /// Above this the spool asks for less (`spool.soft_bytes`).
    pub soft_bytes: u64,
    /// Above this the oldest events are moved to the dead lane.
    pub hard_bytes: u64,
    /// Above this nothing is taken.
    pub refuse_bytes: u64,
    /// The most that the dead lane may take (`spool.dead_bytes_max`).
    pub dead_bytes_max: u64,
}

pub(super) struct Lanes {
    pub(super) main: Log,
    pub(super) dead: Log,
    pub(super) ages: Ages,
    /// Entries and segments that gave way, and failed attempts at moving one.
    pub(super) evicted_entries: AtomicU64,
    pub(super) evicted_segments: AtomicU64,
    pub(super) eviction_errors: AtomicU64,
    limits: Limits,
    clock: Arc<dyn Clock>,
    transfer: Mutex<Transfer>,
    /// Held for as long as anything uses the directory.
    _lock: Option<File>,
    /// The greatest ordinal that was moved in this life: its entries are not in the main lane.
    moved_through: AtomicU64,
}

/// What the lanes are opened with.
pub(super) struct Parts<'a> {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) config: &'a SpoolConfig,
    pub(super) keys: Keys,
    /// Where retirement stood, as far as it was written down.
    pub(super) written: Retired,
    pub(super) epochs: Box<dyn FnMut() -> Epoch + Send>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) lock: Option<File>,
}

/// Open lanes, and what was found.
pub(super) struct OpenLanes {
    pub(super) lanes: Lanes,
    pub(super) writer: Writer,
    pub(super) report: RecoveryReport,
    pub(super) dead_report: RecoveryReport,
    /// False if a move that a crash cut short could not be finished: then its events may come
    /// after later ones.
    pub(super) is_in_order: bool,
}

/// A moment's numbers of each lane and of both.
pub(super) struct LanesStat {
    pub(super) main: LogStat,
    pub(super) dead: LogStat,
    /// Every epoch that one of the lanes still knows, oldest first; the last is being written.
    pub(super) epochs: Vec<EpochStat>,
    /// What was damaged when its segment was moved is known to both, and listed once.
    pub(super) damaged: Vec<DamagedRange>,
    pub(super) damaged_entries: u64,
}

#[derive(Clone, Copy)]
struct Limits {
    soft_bytes: u64,
    hard_bytes: u64,
    refuse_bytes: u64,
    dead_bytes_max: u64,
}

impl Lanes {
    /// Opens both lanes on `disk`.
    ///
    /// # Errors
    /// When the directory can't be used.
    pub(super) fn open(parts: Parts<'_>) -> Result<OpenLanes, LogError> {
        let Parts { disk, config, keys, written, epochs, clock, lock } = parts;
        let log_config = LogConfig {
            segment_bytes: config.segment_bytes,
            // A drained spool shrinks to this.
            retired_segment_bytes_max: config.segment_bytes / 16,
            compress: config.compress,
            keys,
            // A status that never gets through must not fill the spool.
            untold_bytes_max: config.bytes_max / 4,
        };
        let floor = [written.main, written.dead].into_iter().flatten().map(|at| at.segment).max();
        let (dead, dead_report) = log::open_dead(disk.clone(), log_config.clone())?;
        let Opened { writer, log: main, report } =
            log::open(disk, log_config, floor.unwrap_or(0), epochs)?;
        for (log, report, retired) in
            [(&main, &report, written.main), (&dead, &dead_report, written.dead)]
        {
            if let Some(retired) = retired.filter(|retired| is_of_this_log(*retired, log, report)) {
                log.mark_retired(retired);
            }
        }
        let lanes = Self::new(main, dead, config, clock, lock);
        let is_in_order = lanes.finish_moves();
        Ok(OpenLanes { lanes, writer, report, dead_report, is_in_order })
    }

    fn new(
        main: Log,
        dead: Log,
        config: &SpoolConfig,
        clock: Arc<dyn Clock>,
        lock: Option<File>,
    ) -> Self {
        let bytes_max = config.bytes_max;
        let dead_bytes_max = config.dead_bytes_max();
        // A move needs room for its copy, and events keep coming while it runs.
        let reserve = if dead_bytes_max > 0 { config.segment_bytes } else { 0 };
        let limits = Limits {
            soft_bytes: config.soft_bytes(),
            hard_bytes: bytes_max.saturating_sub(2 * reserve),
            refuse_bytes: bytes_max.saturating_sub(reserve),
            dead_bytes_max,
        };
        Self {
            transfer: Mutex::new(Transfer::new(main.clone(), dead.clone())),
            main,
            dead,
            ages: Ages::default(),
            evicted_entries: AtomicU64::new(0),
            evicted_segments: AtomicU64::new(0),
            eviction_errors: AtomicU64::new(0),
            limits,
            clock,
            _lock: lock,
            moved_through: AtomicU64::new(0),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let Limits { soft_bytes, hard_bytes, refuse_bytes, dead_bytes_max } = self.limits;
        let (main_bytes, dead_bytes) = (self.main.disk_bytes(), self.dead.disk_bytes());
        Usage {
            used_bytes: main_bytes + dead_bytes,
            main_bytes,
            dead_bytes,
            soft_bytes,
            hard_bytes,
            refuse_bytes,
            dead_bytes_max,
        }
    }

    /// Whether there is something to move and room for it. A copy takes less than its segment in
    /// practice; that it does is not counted on.
    pub(super) fn may_evict(&self) -> bool {
        let next_bytes = self.transfer().next_bytes();
        let room = self.limits.dead_bytes_max.saturating_sub(self.dead.disk_bytes());
        next_bytes.is_some_and(|bytes| bytes <= room)
    }

    /// Moves the oldest segment of the main lane into the dead one.
    ///
    /// # Errors
    /// When the disk refuses; nothing is lost.
    pub(super) fn evict_oldest(&self) -> Result<Option<Transferred>, LogError> {
        let moved = Moved { reason: REASON_FULL, at: self.clock.now() };
        let result = self.transfer().move_oldest(moved);
        if result.is_err() {
            self.eviction_errors.fetch_add(1, Relaxed);
        }
        let Some(transferred) = result? else { return Ok(None) };
        // First the reader must know: from here on the entries are the dead lane's.
        self.moved_through.fetch_max(transferred.last.segment, SeqCst);
        self.main.mark_retired(transferred.last);
        self.ages.retire(transferred.last);
        self.evicted_entries.fetch_add(transferred.entries, Relaxed);
        self.evicted_segments.fetch_add(1, Relaxed);
        Ok(Some(transferred))
    }

    /// Finishes the moves that a crash cut short after the copy: what follows these segments may
    /// have been forwarded by then, and order would be lost. False where the disk refuses that.
    fn finish_moves(&self) -> bool {
        loop {
            let is_unfinished = {
                let transfer = self.transfer();
                transfer.retire_before_copy().map(|()| transfer.is_unfinished())
            };
            let finished = match is_unfinished {
                Ok(true) => self.evict_oldest(),
                Ok(false) => Ok(None),
                Err(error) => Err(error),
            };
            match finished {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(error) => {
                    tracing::warn!(%error, "finish a move to the dead lane");
                    return false;
                }
            }
        }
    }

    /// Removes the files of which everything is retired and told.
    ///
    /// # Errors
    /// When the disk refuses; the next call tries again.
    pub(super) fn reclaim(&self) -> Result<(), LogError> {
        self.main.reclaim()?;
        // What the main lane tells of an epoch need not be kept here as well.
        self.dead.note_listed(self.main.segment_epochs());
        self.dead.reclaim()
    }

    /// Somebody outside has noted these epochs, the last of which is being written, and ranges.
    pub(super) fn note_told(&self, epochs: &[EpochStat], damaged: &[DamagedRange]) {
        self.main.note_told(epochs, damaged);
        self.dead.note_told(epochs, damaged);
    }

    /// Where retirement stands in each lane.
    pub(super) fn retired(&self) -> Retired {
        Retired { main: self.main.retired(), dead: self.dead.retired() }
    }

    /// The log of a lane.
    pub(super) const fn of(&self, lane: Lane) -> &Log {
        match lane {
            Lane::Main => &self.main,
            Lane::Dead => &self.dead,
        }
    }

    /// Whether entries of this segment were moved in this life.
    pub(super) fn is_moved(&self, segment: u64) -> bool {
        segment <= self.moved_through.load(SeqCst)
    }

    /// A moment's numbers.
    pub(super) fn stat(&self) -> LanesStat {
        // In this order what is moved meanwhile is counted twice rather than not at all.
        let main = self.main.stat();
        let dead = self.dead.stat();
        let epochs = merged(&dead.epochs, &main.epochs);
        let mut damaged = main.damaged.clone();
        let is_known = |range: &DamagedRange| main.damaged.iter().any(|known| known.covers(range));
        let mut known_entries = 0;
        for range in &dead.damaged {
            if is_known(range) {
                known_entries += range.entries();
            } else {
                damaged.push(*range);
            }
        }
        let damaged_entries = main.damaged_entries + dead.damaged_entries - known_entries;
        LanesStat { main, dead, epochs, damaged, damaged_entries }
    }

    fn transfer(&self) -> MutexGuard<'_, Transfer> {
        self.transfer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A position means nothing to a log it is not from: an index that outlived its segments must
/// not make new entries count as retired.
pub(super) fn is_of_this_log(retired: Position, log: &Log, report: &RecoveryReport) -> bool {
    if let Some(unlocked) = report.unlocked.filter(|unlocked| *unlocked <= retired.segment) {
        tracing::warn!(
            segment = unlocked,
            "events whose key was missing can be read again; all from there on are forwarded"
        );
        return false;
    }
    let is_known = retired.segment <= report.ordinal_max
        && log.epoch_of(retired.segment).is_none_or(|epoch| epoch == retired.epoch);
    if !is_known {
        tracing::warn!(
            segment = retired.segment,
            "the spool's index is not of these segments; all of them are forwarded"
        );
    }
    is_known
}

/// A number that waits in the dead lane is not retired, whatever the main lane says of it.
fn merged(dead: &[EpochStat], main: &[EpochStat]) -> Vec<EpochStat> {
    let is_in_main = |epoch| main.iter().any(|known| known.epoch == epoch);
    let mut all: Vec<EpochStat> =
        dead.iter().filter(|dead| !is_in_main(dead.epoch)).copied().collect();
    all.extend(main.iter().map(|main| match dead.iter().find(|dead| dead.epoch == main.epoch) {
        None => *main,
        Some(dead) => {
            let next_seq = main.next_seq.max(dead.next_seq);
            let retired_seq = match (main.is_complete(), dead.is_complete()) {
                (true, true) => next_seq,
                (false, true) => main.retired_seq,
                (_, false) => main.retired_seq.min(dead.retired_seq),
            };
            EpochStat { epoch: main.epoch, next_seq, retired_seq }
        }
    }));
    all
}

#[cfg(test)]
mod tests {
    use penstock_common::event::Epoch;

    use super::*;

    fn stat(epoch: u64, retired_seq: u64, next_seq: u64) -> EpochStat {
        EpochStat { epoch: Epoch(epoch), next_seq, retired_seq }
    }

    #[test]
    fn what_waits_in_either_lane_is_not_retired() {
        let cases = [
            // (dead, main, both)
            (vec![], vec![stat(1, 3, 9)], vec![stat(1, 3, 9)]),
            (vec![stat(1, 2, 5)], vec![stat(1, 7, 9)], vec![stat(1, 2, 9)]),
            (vec![stat(1, 5, 5)], vec![stat(1, 7, 9)], vec![stat(1, 7, 9)]),
            (vec![stat(1, 2, 5)], vec![stat(1, 9, 9)], vec![stat(1, 2, 9)]),
            (vec![stat(1, 5, 5)], vec![stat(1, 9, 9)], vec![stat(1, 9, 9)]),
            (
                vec![stat(1, 2, 5), stat(2, 0, 4)],
                vec![stat(2, 4, 8), stat(3, 0, 0)],
                vec![stat(1, 2, 5), stat(2, 0, 8), stat(3, 0, 0)],
            ),
        ];
        for (dead, main, both) in cases {
            assert_eq!(merged(&dead, &main), both, "{dead:?} and {main:?}");
        }
    }
}
