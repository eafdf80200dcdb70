//! Segments that can't be read yet: their key is missing, or a later version wrote them.
//!
//! They are set aside as `*.locked`, told as numbers that can't be read, and never removed. Each
//! opening looks at them again; what it can read goes on, under that name, until it is retired.

use std::fmt;

use crate::log::seal::KeyId;
use crate::log::segment::{FileKind, RECORDS_AT};
use crate::log::{DamagedRange, LogError};

use super::{Found, Recovery};

/// Why a segment can't be read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockReason {
    /// This key is missing.
    Key(KeyId),
    /// It is of this later format.
    Version(u16),
}

/// A segment that can't be read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Its ordinal.
    pub segment: u64,
    /// Its file.
    pub name: String,
    /// What it takes on the disk.
    pub file_bytes: u64,
    /// Why.
    pub reason: LockReason,
    /// The numbers in it, as far as they are known.
    pub range: Option<DamagedRange>,
}

impl Locked {
    /// Whether the numbers of this segment are told with it.
    pub(super) fn is_told(&self, segment: u64) -> bool {
        self.segment == segment && self.range.is_some()
    }
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            LockReason::Key(key) => write!(f, "{}: the key {key} is missing", self.name)?,
            LockReason::Version(version) => {
                write!(f, "{}: a later program wrote it (format {version})", self.name)?;
            }
        }
        match &self.range {
            Some(range) => write!(f, "; epoch {}, {} entries", range.epoch, range.entries()),
            None => Ok(()),
        }
    }
}

impl Recovery {
    pub(super) fn lock_unless_readable(
        &mut self,
        found: Found,
        key: Option<KeyId>,
    ) -> Result<Option<Found>, LogError> {
        // Without a header nothing is known yet; without a record there is nothing to read.
        let Some(key) = key.filter(|_| found.file_bytes > RECORDS_AT) else {
            return Ok(Some(found));
        };
        if !self.config.keys.can_read(key) {
            return self.lock(found, LockReason::Key(key));
        }
        if found.kind == FileKind::Locked {
            let least = self.report.unlocked.get_or_insert(found.ordinal);
            *least = found.ordinal.min(*least);
        }
        Ok(Some(found))
    }

    pub(super) fn lock(
        &mut self,
        mut found: Found,
        reason: LockReason,
    ) -> Result<Option<Found>, LogError> {
        let ordinal = found.ordinal;
        if found.kind == FileKind::Segment {
            let name = |kind| self.name_of(ordinal, kind);
            let (from, to) = (name(FileKind::Segment), name(FileKind::Locked));
            self.disk.rename(&from, &to).map_err(LogError::disk("set a locked segment aside"))?;
            self.disk.sync_dir().map_err(LogError::disk("sync the log's directory"))?;
            found.kind = FileKind::Locked;
        }
        if matches!(reason, LockReason::Version(_)) {
            // Whatever it holds, its successor says where it ended.
            self.lost.push(ordinal);
        }
        self.locked.push((found, reason));
        Ok(None)
    }

    /// Finds out what numbers the locked segments hold: what can't be read is named.
    pub(super) fn tell_locked(&mut self) -> Result<(), LogError> {
        for (mut found, reason) in std::mem::take(&mut self.locked) {
            let range = match reason {
                LockReason::Version(_) => None,
                LockReason::Key(_) => self.range_of(&mut found)?,
            };
            if let Some(DamagedRange { segment, epoch, first_seq, next_seq }) = range {
                self.note(segment, epoch, first_seq, next_seq);
            }
            self.report.locked.push(Locked {
                segment: found.ordinal,
                name: self.name_of(found.ordinal, FileKind::Locked),
                file_bytes: found.file_bytes,
                reason,
                range,
            });
        }
        Ok(())
    }

    fn range_of(&self, found: &mut Found) -> Result<Option<DamagedRange>, LogError> {
        let declared = self.ends.get(&found.ordinal).copied();
        if declared.is_none() || found.header.is_none() {
            self.scan(found)?;
        }
        let scanned = found.scanned.as_ref();
        let (epoch, first_seq) = match (found.header, scanned) {
            (Some(header), _) => (header.epoch, header.first_seq),
            (None, Some(scanned)) => (scanned.epoch, scanned.first_seq),
            (None, None) => return Ok(None),
        };
        let ends = [declared.map(|end| end.next_seq), scanned.map(|scanned| scanned.next_seq)];
        let next_seq = ends.into_iter().flatten().max().map(|next_seq| next_seq.max(first_seq));
        let range = |next_seq| DamagedRange { segment: found.ordinal, epoch, first_seq, next_seq };
        Ok(next_seq.map(range))
    }
}
