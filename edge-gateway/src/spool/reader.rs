//! Reading entries back for the forwarder, out of one lane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_common::log::record::FRAME_BYTES;
use penstock_common::log::segment::Moved;
use penstock_common::log::{Batch, DamagedRange, Reader};

use super::entry::{Entry, EntryError};
use super::evicted;
use super::lanes::Lanes;
use super::{Lane, Position, SpoolError, SpooledEntry};

/// Reads synced entries of a lane in order, from the first that is not retired. Holds one group,
/// and entries it handed out hold theirs: payloads are not copied. What gave way comes out of the
/// dead lane as dead letters; when a segment is moved there, its reader of the main lane goes on
/// with what follows it.
pub struct SpoolReader {
    lanes: Arc<Lanes>,
    lane: Lane,
    reader: Reader,
    /// What is left of the current group.
    rest: Bytes,
    /// The place of its next entry.
    next: Option<Position>,
    /// Why and when it was moved to this lane.
    moved: Option<Moved>,
    /// Whether no entry of the group was handed out yet.
    is_fresh: bool,
    fleet: Arc<str>,
}

impl SpoolReader {
    pub(super) fn new(lanes: Arc<Lanes>, lane: Lane) -> Self {
        let log = lanes.of(lane);
        let reader = log.reader(log.retired());
        let (rest, fleet) = (Bytes::new(), Arc::from(""));
        Self { lanes, lane, reader, rest, next: None, moved: None, is_fresh: true, fleet }
    }

    /// Another reader of the same lane, at the first entry that is not retired.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(self.lanes.clone(), self.lane)
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
                if self.lane == Lane::Main && self.lanes.is_moved(position.segment) {
                    continue;
                }
                match Entry::decode(&bytes, &mut self.fleet) {
                    Ok(entry) => return Ok(Some(self.spooled(position, entry))),
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
        self.reader.seek(self.lanes.of(self.lane).retired());
        self.rest = Bytes::new();
        self.next = None;
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
        self.moved = batch.moved;
        self.is_fresh = true;
        for _ in 0..batch.skipped {
            self.split_frame();
        }
    }

    fn spooled(&mut self, position: Position, entry: Entry) -> SpooledEntry {
        let (epoch, seq) = (position.epoch, position.seq);
        let entry = match self.lane {
            Lane::Main => {
                self.note_age(position, &entry);
                entry
            }
            Lane::Dead => evicted::dead_letter(entry, self.moved),
        };
        SpooledEntry { position, epoch, seq, entry }
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
            self.lanes.ages.note(last, entry.received_at());
        }
    }

    fn pass_over(&mut self, position: Position, error: EntryError) {
        let Position { segment, epoch, seq } = position;
        let range = DamagedRange { segment, epoch, first_seq: seq, next_seq: seq + 1 };
        tracing::error!(%range, %error, "an entry of the spool can't be read; it is passed over");
        self.lanes.of(self.lane).note_damage(range);
    }
}
