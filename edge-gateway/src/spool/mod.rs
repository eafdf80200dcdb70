//! The durable spool (spec I5, I7).

pub mod entry;

use std::time::Duration;

use penstock_common::event::Epoch;

use self::entry::Entry;

/// Why entries were not made durable. In each case the caller must not say that they were.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The spool's byte limit is reached; retry when it has drained.
    #[error("the spool is full: {bytes_used} of {bytes_max} bytes")]
    Full {
        /// Bytes on disk.
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

/// A place in the spool; later entries are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment's number, ascending over epochs.
    pub segment: u64,
    /// The entry's number within its segment's epoch.
    pub seq: u64,
}

/// One entry as the forwarder reads it.
#[derive(Clone, Debug)]
pub struct SpooledEntry {
    /// For [`SpoolHandle::retire`].
    pub position: Position,
    /// The opening of the spool that numbered it.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub seq: u64,
    /// The entry itself.
    pub entry: Entry,
}

/// Puts entries into the spool and retires them; cheap to clone.
#[derive(Clone)]
pub struct SpoolHandle {}

impl SpoolHandle {
    /// Resolves once all `entries` are synced to disk, in order, or none may be relied upon.
    pub async fn submit(&self, _entries: Vec<Entry>) -> Result<(), SpoolError> {
        unimplemented!()
    }

    /// Every entry up to and including `position` is acknowledged by the bus.
    pub fn retire(&self, _position: Position) {
        unimplemented!()
    }
}

/// Reads synced entries in order, from the first that is not retired.
pub struct SpoolReader {}

impl SpoolReader {
    /// The next synced entry; waits up to `wait` for one. Blocking.
    pub fn next(&mut self, _wait: Duration) -> Result<Option<SpooledEntry>, SpoolError> {
        unimplemented!()
    }

    /// Goes back to the first entry that is not retired.
    pub fn rewind(&mut self) {
        unimplemented!()
    }
}
