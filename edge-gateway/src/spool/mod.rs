//! The durable spool (spec I5, I7): what is acknowledged to a device is synced here first.
//!
//! `<dir>/segments/` holds the log ([`penstock_common::log`]), the truth, in two lanes
//! ([`lanes`]): events to forward, and what gave way to newer ones. `<dir>/index/` is sled and
//! holds where retirement stood; it is written lazily and can be lost: then everything that
//! is still in the segments is forwarded once more, and what is downstream drops the duplicates.
//! `<dir>/LOCK` keeps a second gateway out. The segments are encrypted with the newest key of the
//! key file ([`keys`]).
//!
//! Two threads: `spool-commit` writes what was submitted while its previous sync ran as one
//! record, syncs it, and answers; `spool-keeper` writes the index, removes retired segments, and
//! moves the oldest to the dead lane when the spool is at its hard limit (spec I9).
//! On a disk error everybody waiting is told so, and the next group tries a new segment.

mod commit;
mod config;
pub mod entry;
pub mod evicted;
mod index;
mod keeper;
pub mod keys;
pub mod lanes;
pub mod offline;
mod open;
mod reader;
mod stat;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use penstock_common::event::Epoch;
use tokio::sync::oneshot;

pub use penstock_common::log::segment::Lane;
pub use penstock_common::log::{DamagedRange, EpochStat, Position, RecoveryReport};

use self::commit::Submission;
use self::entry::Entry;
use self::open::Inner;

pub use self::config::SpoolConfig;
pub use self::lanes::Usage;
pub use self::open::{OpenSpool, open, open_on};
pub use self::reader::SpoolReader;
pub use self::stat::SpoolStat;

/// Why entries were not made durable. In each case the caller must not say that they were.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    /// The spool's byte limit is reached, and nothing can give way: retry when it has drained.
    #[error("the spool is full: {bytes_used} of {bytes_max} bytes")]
    Full {
        /// Bytes on disk and on their way there.
        bytes_used: u64,
        /// The configured limit.
        bytes_max: u64,
    },
    /// The disk refused the write or the sync.
    #[error("the spool's disk failed: {0}")]
    Disk(String),
    /// The gateway is shutting down.
    #[error("the spool is closed")]
    Closed,
}

/// One entry as the forwarder reads it.
#[derive(Clone, Debug)]
pub struct SpooledEntry {
    /// For [`SpoolHandle::retire`], or [`SpoolHandle::retire_dead`] if it came out of the dead
    /// lane.
    pub position: Position,
    /// The opening of the spool that numbered it.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub seq: u64,
    /// The entry itself.
    pub entry: Entry,
}

/// Puts entries into the spool and retires them; cheap to clone. When the last clone is dropped
/// without [`Self::close`], the threads finish what was submitted and end.
#[derive(Clone)]
pub struct SpoolHandle {
    inner: Arc<Inner>,
}

impl SpoolHandle {
    /// Resolves once all `entries` are synced to disk, in order and with consecutive places, or
    /// none may be relied upon. Waits while the queue to the disk is full.
    ///
    /// Dropping the future does not take back what was already queued.
    ///
    /// # Errors
    /// When the spool is full, its disk fails, or it is closed.
    pub async fn submit(&self, entries: Vec<Entry>) -> Result<(), SpoolError> {
        if entries.is_empty() {
            return Ok(());
        }
        let shared = &self.inner.shared;
        let framed = commit::frame(&entries)?;
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        drop(entries);
        let permit = shared.queue.reserve(framed.len()).await?;
        let usage = shared.lanes.usage();
        let bytes_used =
            usage.used_bytes + shared.queue.add_bytes(framed.len()) + commit::OVERHEAD_BYTES;
        let (answer, answered) = oneshot::channel();
        let submission = Submission {
            framed,
            count,
            answer: Some(answer),
            _permit: permit,
            queue: shared.queue.clone(),
        };
        let bytes_max = usage.refuse_bytes;
        if bytes_used > bytes_max {
            shared.counters.refused_full.fetch_add(1, Relaxed);
            return Err(SpoolError::Full { bytes_used, bytes_max });
        }
        shared.queue.push(submission)?;
        answered.await.unwrap_or(Err(SpoolError::Closed))
    }

    /// Every entry of the main lane up to and including `position` is acknowledged by the bus.
    pub fn retire(&self, position: Position) {
        let shared = &self.inner.shared;
        shared.lanes.main.mark_retired(position);
        shared.lanes.ages.retire(position);
        shared.keeper.wake();
    }

    /// Every entry of the dead lane up to and including `position` is acknowledged by the bus.
    pub fn retire_dead(&self, position: Position) {
        let shared = &self.inner.shared;
        shared.lanes.dead.mark_retired(position);
        shared.keeper.wake();
    }

    /// Asks for the oldest segment to be moved to the dead lane now, whatever the limits; at the
    /// hard limit it happens without being asked. [`SpoolStat::evicted_segments_total`] tells when
    /// it is done. Nothing happens without a whole segment, or without room in the dead lane.
    pub fn evict_oldest(&self) {
        self.inner.shared.keeper.ask_for_eviction();
    }

    /// How full the spool is; cheaper than [`Self::stat`].
    pub fn usage(&self) -> Usage {
        self.inner.shared.lanes.usage()
    }

    /// The bus has a status that told of these epochs, the last of which is being written, and of
    /// this damage: what was kept for that can go.
    pub fn note_told(&self, epochs: &[EpochStat], damaged: &[DamagedRange]) {
        let shared = &self.inner.shared;
        shared.lanes.note_told(epochs, damaged);
        shared.keeper.wake();
    }

    /// A moment's numbers, for metrics and the status page.
    pub fn stat(&self) -> SpoolStat {
        self.inner.shared.stat()
    }

    /// Refuses new entries, syncs and answers those that were submitted, writes down where
    /// retirement stands, and ends the threads.
    pub async fn close(&self) {
        let inner = self.inner.clone();
        // Joining waits for a sync. If the runtime is going down, the threads end by themselves.
        let _ = tokio::task::spawn_blocking(move || inner.close()).await;
    }
}

#[cfg(test)]
mod tests;
