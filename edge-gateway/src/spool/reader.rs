//! Reading entries back for the forwarder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_common::log::record::FRAME_BYTES;
use penstock_common::log::{Batch, DamagedRange, Reader};

use super::entry::{Entry, EntryError};
use super::open::Shared;
use super::{Position, SpoolError, SpooledEntry};

/// Reads synced entries in order, from the first that is not retired. Holds one group, and
/// entries it handed out hold theirs: payloads are not copied.
pub struct SpoolReader {
    shared: Arc<Shared>,
    reader: Reader,
    /// What is left of the current group.
    rest: Bytes,
    /// The place of its next entry.
    next: Option<Position>,
    /// Whether no entry of the group was handed out yet.
    is_fresh: bool,
    fleet: Arc<str>,
}

impl SpoolReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let reader = shared.log.reader(shared.log.retired());
        let fleet = Arc::from("");
        Self { shared, reader, rest: Bytes::new(), next: None, is_fresh: true, fleet }
    }

    /// The next synced entry; waits up to `wait` for one. Blocking.
    ///
    /// Damaged entries are passed over: [`super::SpoolStat::damaged`] names them.
    ///
    /// # Errors
    /// When the disk can't be read. The caller tries again; what stays unreadable is passed over
    /// as damaged after a few calls.
    pub fn next(&mut self, wait: Duration) -> Result<Option<SpooledEntry>, SpoolError> {
        let deadline = Instant::now() + wait;
        loop {
            while let Some((position, bytes)) = self.next_bytes() {
                match Entry::decode(&bytes, &mut self.fleet) {
                    Ok(entry) => {
                        self.note_age(position, &entry);
                        let (epoch, seq) = (position.epoch, position.seq);
                        return Ok(Some(SpooledEntry { position, epoch, seq, entry }));
                    }
                    Err(error) => self.pass_over(position, error),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reader.next(left) {
                Ok(Some(batch)) => self.begin(batch),
                Ok(None) => return Ok(None),
                Err(error) => return Err(SpoolError::Disk(error.to_string())),
            }
        }
    }

    /// Goes back to the first entry that is not retired.
    pub fn rewind(&mut self) {
        self.reader.seek(self.shared.log.retired());
        self.rest = Bytes::new();
        self.next = None;
    }

    /// Another reader of the same spool, at the first entry that is not retired.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(self.shared.clone())
    }

    /// Goes on with the first entry that is at `position` or after it.
    pub fn seek(&mut self, position: Position) {
        // The log passes over what is at or before a place, and looks at its segment only.
        let after = match position.seq.checked_sub(1) {
            Some(seq) => Position { seq, ..position },
            None => {
                Position { segment: position.segment.saturating_sub(1), seq: u64::MAX, ..position }
            }
        };
        self.reader.seek(Some(after));
        self.rest = Bytes::new();
        self.next = None;
    }

    fn begin(&mut self, batch: Batch) {
        self.rest = Bytes::from(batch.body);
        self.next = Some(batch.first);
        self.is_fresh = true;
        for _ in 0..batch.skipped {
            self.split_frame();
        }
    }

    fn next_bytes(&mut self) -> Option<(Position, Bytes)> {
        let position = self.next?;
        let bytes = self.split_frame()?;
        self.next = Some(Position { seq: position.seq + 1, ..position });
        Some((position, bytes))
    }

    /// Cuts the next entry off the group; the log has checked that they are well-formed.
    fn split_frame(&mut self) -> Option<Bytes> {
        let length = u32::from_le_bytes(*self.rest.first_chunk::<FRAME_BYTES>()?) as usize;
        if self.rest.len() < FRAME_BYTES + length {
            return None;
        }
        let mut frame = self.rest.split_to(FRAME_BYTES + length);
        Some(frame.split_off(FRAME_BYTES))
    }

    /// Dates the group by its first entry.
    fn note_age(&mut self, position: Position, entry: &Entry) {
        if std::mem::take(&mut self.is_fresh) {
            let mut rest = &*self.rest;
            let mut last = position;
            while let Some((length, after)) = rest.split_first_chunk::<FRAME_BYTES>() {
                rest = after.get(u32::from_le_bytes(*length) as usize..).unwrap_or_default();
                last.seq += 1;
            }
            self.shared.ages.note(last, entry.received_at());
        }
    }

    fn pass_over(&mut self, position: Position, error: EntryError) {
        let Position { segment, epoch, seq } = position;
        let range = DamagedRange { segment, epoch, first_seq: seq, next_seq: seq + 1 };
        tracing::error!(%range, %error, "an entry of the spool can't be read; it is passed over");
        self.shared.log.note_damage(range);
    }
}
