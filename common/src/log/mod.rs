//! The durable log: opaque entries, numbered (epoch, seq), in order, on one disk.
//!
//! Entries are written in groups. A group is one checksummed [`record`]; records stand in
//! [`segment`] files of one directory; everything on a [`disk::Disk`], real or simulated.
//!
//! # Promises
//! - [`Writer::append`] returns after the record, and the segment it stands in, are synced. What
//!   it acknowledged is read back in order, unaltered and under its number, after any sequence of
//!   kills, power cuts, failed or short writes and failed syncs, until it is retired.
//! - No (epoch, seq) ever names two contents. Numbers of an epoch start at 0 and have no gaps.
//!   Each opening begins a new random epoch, and so does the writer after a failed write or sync.
//! - What was not acknowledged may still appear, under its own number: the caller was told that
//!   it can't rely on it, not that it is gone.
//! - With keys, what is written is encrypted and authenticated ([`seal`]). A segment whose key is
//!   missing is named, reported as a range of numbers and set aside as `*.locked`; it is never
//!   removed, and an opening that has the key reads it ([`RecoveryReport::unlocked`]).
//! - Damage is reported as a range of numbers and costs what it covers, not what follows it. The
//!   file is set aside, not removed, once everything else in it is retired.
//! - Where an epoch ended, how far it is retired and what was damaged is known, restart after
//!   restart, until somebody outside is told ([`Log::note_told`]): the last segment of an ended
//!   epoch and damaged segments are kept that long, within [`LogConfig::untold_bytes_max`].
//! - After a crash, retired entries may appear again (a removal may be lost, and where retirement
//!   stood is the caller's to remember). They come first and in order; consumers are idempotent.
//!
//! # How
//! - A failed sync says that the disk is in an unknown state, so it is never repeated. The
//!   segment is left at its last synced length, and the next append begins a new segment whose
//!   header declares that end. If the new segment or its first record fails as well, its file is
//!   removed, and the next attempt names the same predecessor.
//! - Opening reads the headers of all segments, and the whole of the last one. At most its last
//!   record can be unsynced (nothing is written behind a record before it is synced), so that one
//!   is written again in place, and synced, before it counts: after a kill the page cache may
//!   show bytes that a failed sync never brought to the disk. This is the only overwrite, with
//!   identical bytes; a disk is taken to keep a sector it overwrites as it was or as it will be.
//! - No file that holds a record is ever removed because of what another file says, only because
//!   its entries are retired.
//! - A locked segment keeps its name when its key is back, until it is retired and removed: the
//!   name says, whatever crash comes, that positions written down meanwhile do not cover it.
//! - Opening needs no space: the first segment of the new epoch is created by the first append,
//!   so that a full disk can be drained.
//! - Segments are removed oldest first, each removal synced before the next one, and never the
//!   newest: ordinals therefore never run backward, and a missing segment is always damage.
//!
//! # Limits
//! A group is 1 to [`record::GROUP_BYTES_MAX`] bytes with 4 bytes of length per entry. A reader
//! holds one group. Opening holds one record and a few dozen bytes per segment.

pub mod disk;
pub mod read_only;
mod reader;
pub mod real;
pub mod record;
mod recovery;
mod retire;
mod scan;
pub mod seal;
pub mod segment;
pub mod sim;
mod state;
mod transfer;
mod writer;

use std::fmt;
use std::io;

use crate::event::Epoch;

use self::seal::Keys;

pub use self::reader::{Batch, Reader};
pub use self::record::Group;
pub use self::recovery::{LockReason, Locked, Opened, RecoveryReport, open, open_dead};
pub use self::retire::{Log, LogStat, SegmentInfo};
pub use self::transfer::{Transfer, Transferred};
pub use self::writer::{Appended, Writer};

/// An entry's place in the log; later entries are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The ordinal of its segment.
    pub segment: u64,
    /// The epoch, constant within a segment.
    pub epoch: Epoch,
    /// Its number in the epoch.
    pub seq: u64,
}

/// How the log lays out its files.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A new segment begins when the next record would grow this one beyond it.
    pub segment_bytes: u64,
    /// A segment of which everything is retired is left for a new one above this size, so that
    /// its space can be given back.
    pub retired_segment_bytes_max: u64,
    /// Whether bodies are compressed (LZ4).
    pub compress: bool,
    /// What bodies are sealed and opened with.
    pub keys: Keys,
    /// The last segment of an epoch, and damaged ones, are kept until [`Log::note_told`] says that
    /// somebody outside knows what only they can tell; but not while the log is larger than this.
    /// 0: nothing is kept for that.
    pub untold_bytes_max: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            retired_segment_bytes_max: 4 << 20,
            compress: true,
            keys: Keys::none(),
            untold_bytes_max: 0,
        }
    }
}

/// What the log knows of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStat {
    /// The epoch.
    pub epoch: Epoch,
    /// The number after its last synced entry.
    pub next_seq: u64,
    /// Everything below is retired, or damaged and passed over.
    pub retired_seq: u64,
}

impl EpochStat {
    /// Whether nothing of it waits; if it has ended, nothing more comes of it.
    pub const fn is_complete(&self) -> bool {
        self.retired_seq >= self.next_seq
    }
}

/// Numbers that can't be read any more: `first_seq..next_seq` of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The segment they stood in.
    pub segment: u64,
    /// Their epoch.
    pub epoch: Epoch,
    /// The first number that is lost.
    pub first_seq: u64,
    /// The first one after it that is not.
    pub next_seq: u64,
}

impl DamagedRange {
    /// How many entries are lost.
    pub const fn entries(&self) -> u64 {
        self.next_seq.saturating_sub(self.first_seq)
    }

    /// Whether all of `other` is.
    pub fn covers(&self, other: &Self) -> bool {
        self.segment == other.segment
            && self.epoch == other.epoch
            && self.first_seq <= other.first_seq
            && other.next_seq <= self.next_seq
    }
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, epoch, first_seq, next_seq } = self;
        write!(f, "segment {segment:016x}, epoch {epoch}, numbers {first_seq}..{next_seq}")
    }
}

/// Why the log could not do something.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused. Nothing of what was asked may be relied upon.
    #[error("{action}: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// A group is empty or too large.
    #[error("a group of {bytes} bytes; allowed are 1 to {bytes_max}")]
    GroupSize {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

impl LogError {
    fn disk(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk { action, source }
    }
}

#[cfg(test)]
mod tests;
