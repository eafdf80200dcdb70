//! Reading synced groups in order, over segments and epochs, past damage.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::disk::{DiskFile, speaks_of_the_data};
use super::record::{Frames, RecordHeader};
use super::scan::Scan;
use super::segment::{Moved, RECORDS_AT};
use super::state::{Segment, Shared, State};
use super::{DamagedRange, LogError, Position};

/// How often a read at one place fails before the place counts as damaged.
const STRIKES_MAX: u32 = 3;
/// How many damaged ranges wait for [`Reader::take_damage`]; the log's own list goes on.
const DAMAGE_WAITING_MAX: usize = 1024;

/// Reads the log in order. Holds one group at a time.
pub struct Reader {
    shared: Arc<Shared>,
    /// Entries up to this one are passed over.
    after: Option<Position>,
    /// The last segment that is read.
    segment_max: u64,
    place: Place,
    file: Option<Box<dyn DiskFile>>,
    /// Failed reads at this place.
    strikes: u32,
    raw: Vec<u8>,
    damage: VecDeque<DamagedRange>,
}

/// Where the next record is looked for.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    offset: u64,
    /// The number expected there.
    seq: u64,
}

/// Consecutive entries of one record.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The place of the first entry that [`Self::entries`] yields.
    pub first: Position,
    /// The record's uncompressed body: see [`Frames`].
    pub body: Vec<u8>,
    /// How many entries of the body come before the first one.
    pub skipped: usize,
    /// Why and when its segment was moved to this lane, if it was.
    pub moved: Option<Moved>,
}

impl Batch {
    /// The entries with their places.
    pub fn entries(&self) -> impl Iterator<Item = (Position, &[u8])> {
        let seqs = self.first.seq..;
        Frames::of(&self.body)
            .skip(self.skipped)
            .zip(seqs)
            .map(|(entry, seq)| (Position { seq, ..self.first }, entry))
    }
}

enum Step {
    Batch(Batch),
    /// The place moved; look again.
    Moved,
    /// Everything synced so far is read.
    AtEnd,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, after: Option<Position>) -> Self {
        let mut reader = Self {
            shared,
            after,
            segment_max: u64::MAX,
            place: Place { segment: 0, offset: 0, seq: 0 },
            file: None,
            strikes: 0,
            raw: Vec::new(),
            damage: VecDeque::new(),
        };
        reader.seek(after);
        reader
    }

    /// Reads what one segment has after `after`.
    pub(super) fn within(shared: Arc<Shared>, segment: u64, after: Option<Position>) -> Self {
        let mut reader = Self::new(shared, after.filter(|after| after.segment == segment));
        reader.place.segment = segment;
        reader.segment_max = segment;
        reader
    }

    /// Goes on with the first entry after `after`, or with the first of all.
    pub fn seek(&mut self, after: Option<Position>) {
        self.after = after;
        let segment = after.map_or(0, |after| after.segment);
        self.place = Place { segment, offset: 0, seq: 0 };
        self.file = None;
        self.strikes = 0;
    }

    /// The next synced entries, at most one record's. Waits up to `wait` for one to be synced;
    /// `None` when there was none.
    ///
    /// # Errors
    /// When the disk can't be read. A place whose data the disk goes on refusing counts as damaged
    /// after a few calls, and the next call reads what follows it; call again after a while, and
    /// without seeking back, which begins the count anew. Other errors (too many open files, no
    /// memory, no permission) say nothing of the data and only pass.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Batch>, LogError> {
        let deadline = Instant::now() + wait;
        loop {
            match self.step() {
                Ok(Step::Batch(batch)) => {
                    self.strikes = 0;
                    return Ok(Some(batch));
                }
                Ok(Step::Moved) => self.strikes = 0,
                Ok(Step::AtEnd) => {
                    if !self.wait_until(deadline) {
                        return Ok(None);
                    }
                }
                Err(error) => {
                    self.strikes += u32::from(speaks_of_the_data(&error));
                    self.file = None;
                    return Err(LogError::disk("read the log")(error));
                }
            }
        }
    }

    /// Damaged ranges met since the last call, oldest first.
    pub fn take_damage(&mut self) -> Vec<DamagedRange> {
        self.damage.drain(..).collect()
    }

    /// Waits for more than what was read; false when the time is over.
    fn wait_until(&self, deadline: Instant) -> bool {
        let mut state = self.shared.state();
        loop {
            let next = self.next_segment(&state);
            let more = next.is_some_and(|(at, segment, has_next)| {
                at != self.place.segment || self.place.offset < segment.valid_bytes || has_next
            });
            if more {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let grown = self.shared.grown.wait_timeout(state, left);
            state = grown.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The segment at the place or after it, and whether there is another one.
    fn next_segment(&self, state: &State) -> Option<(u64, Segment, bool)> {
        // Behind the last segment that is read the place is out of the range.
        let from = self.place.segment.min(self.segment_max);
        let mut from_here = state.segments.range(from..=self.segment_max);
        let (&ordinal, &segment) = from_here.next()?;
        (ordinal >= self.place.segment).then(|| (ordinal, segment, from_here.next().is_some()))
    }

    fn step(&mut self) -> io::Result<Step> {
        let next = self.next_segment(&self.shared.state());
        let Some((ordinal, segment, has_next)) = next else { return Ok(Step::AtEnd) };
        if ordinal != self.place.segment || self.place.offset < RECORDS_AT {
            self.place = Place { segment: ordinal, offset: RECORDS_AT, seq: segment.first_seq };
            self.file = None;
        }
        if self.place.offset >= segment.valid_bytes {
            if self.place.seq < segment.next_seq {
                self.skip_to(&segment, segment.valid_bytes, segment.next_seq);
            }
            if !has_next {
                return Ok(Step::AtEnd);
            }
            self.place = Place { segment: ordinal + 1, offset: 0, seq: 0 };
            self.file = None;
            return Ok(Step::Moved);
        }
        self.read(&segment)
    }

    /// Reads the record at the place, or moves past it.
    fn read(&mut self, segment: &Segment) -> io::Result<Step> {
        let file = match self.file.take() {
            Some(file) => file,
            None => match self.open(segment) {
                Ok(file) => file,
                Err(_) if self.strikes >= STRIKES_MAX => {
                    self.skip_to(segment, segment.valid_bytes, segment.next_seq);
                    return Ok(Step::Moved);
                }
                // Retired in the meantime, or else the next strike.
                Err(error) => {
                    let is_retired =
                        !self.shared.state().segments.contains_key(&self.place.segment);
                    return if is_retired { Ok(Step::Moved) } else { Err(error) };
                }
            },
        };
        let scan = Scan {
            file: &*file,
            end: segment.valid_bytes,
            epoch: Some(segment.epoch),
            seq_min: self.place.seq,
        };
        let header = match scan.header_at(self.place.offset) {
            Err(error) if self.strikes < STRIKES_MAX => return Err(error),
            Err(_) | Ok(None) => None,
            Ok(header) => header,
        };
        if let Some(header) = header.filter(|header| self.is_passed(header)) {
            self.place.offset += header.record_bytes();
            self.place.seq = header.next_seq();
            self.file = Some(file);
            return Ok(Step::Moved);
        }
        let mut raw = std::mem::take(&mut self.raw);
        let body = match &header {
            None => Ok(false),
            Some(header) => match scan.body_at(self.place.offset, header, &mut raw) {
                Err(_) if self.strikes >= STRIKES_MAX => Ok(false),
                other => other,
            },
        };
        let found = match (body, header) {
            (Err(error), _) => {
                self.raw = raw;
                return Err(error);
            }
            (Ok(true), Some(header)) => Some((self.place.offset, header)),
            // Damaged: whatever comes next and is valid goes on.
            _ => scan.find(self.place.offset + 1, &mut raw),
        };
        let step = self.take(segment, found, &mut raw);
        raw.shrink_to(8 << 20);
        self.raw = raw;
        self.file = Some(file);
        Ok(step)
    }

    fn open(&self, segment: &Segment) -> io::Result<Box<dyn DiskFile>> {
        self.shared.disk.open(&self.shared.file_name(self.place.segment, segment))
    }

    /// Whether all entries of a record are to be passed over.
    fn is_passed(&self, header: &RecordHeader) -> bool {
        self.after.is_some_and(|after| {
            after.segment == self.place.segment && header.next_seq() <= after.seq.saturating_add(1)
        })
    }

    fn take(
        &mut self,
        segment: &Segment,
        found: Option<(u64, RecordHeader)>,
        raw: &mut [u8],
    ) -> Step {
        let Some((offset, header)) = found else {
            self.skip_to(segment, segment.valid_bytes, segment.next_seq);
            return Step::Moved;
        };
        if header.first_seq > self.place.seq {
            self.skip_to(segment, offset, header.first_seq);
        }
        let next = (offset + header.record_bytes(), header.next_seq());
        if self.is_passed(&header) {
            (self.place.offset, self.place.seq) = next;
            return Step::Moved;
        }
        let body = match header.decode_body(raw, &self.shared.keys) {
            Ok(body) => body,
            Err(error) => {
                // Its checksum holds, so it was written like this; it is as good as damaged.
                tracing::error!(segment = self.place.segment, %error, "a record can't be read");
                self.skip_to(segment, next.0, next.1);
                return Step::Moved;
            }
        };
        (self.place.offset, self.place.seq) = next;
        let first_wanted = match self.after {
            Some(after) if after.segment == self.place.segment => after.seq.saturating_add(1),
            _ => 0,
        };
        let skipped = first_wanted.saturating_sub(header.first_seq);
        let seq = header.first_seq + skipped;
        let first = Position { segment: self.place.segment, epoch: header.epoch, seq };
        let moved = segment.moved;
        Step::Batch(Batch { first, body, skipped: skipped as usize, moved })
    }

    /// Moves on to `seq` at `offset`, reporting what lies between as damaged.
    fn skip_to(&mut self, segment: &Segment, offset: u64, seq: u64) {
        let first_wanted = match self.after {
            Some(after) if after.segment == self.place.segment => after.seq.saturating_add(1),
            _ => 0,
        };
        let range = DamagedRange {
            segment: self.place.segment,
            epoch: segment.epoch,
            first_seq: self.place.seq.max(first_wanted),
            next_seq: seq,
        };
        self.place.offset = offset;
        self.place.seq = seq;
        if range.entries() == 0 {
            return;
        }
        if self.shared.state().note_damage(range) {
            tracing::error!(%range, "the log is damaged; what follows goes on");
        }
        if self.damage.len() < DAMAGE_WAITING_MAX {
            self.damage.push_back(range);
        }
    }
}
