//! Reading entries back for the forwarder, out of both lanes.
//!
//! What may be handed out of the dead lane follows from where its entry stands:
//!
//! | the entry | then |
//! |---|---|
//! | is still in the main lane: its segment is being moved, or a crash cut that short | it waits |
//! | was handed out of the main lane, and the bus has not answered | it waits |
//! | was handed out of the main lane, and the bus has it | it is passed over |
//! | anything else | it is handed out as a dead letter |

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_common::log::record::FRAME_BYTES;
use penstock_common::log::segment::Moved;
use penstock_common::log::{self, Batch, DamagedRange, Log, Reader};

use super::entry::{Entry, EntryError};
use super::evicted;
use super::lanes::{Lanes, Position};
use super::{SpoolError, SpooledEntry};

/// While both lanes have entries, one of the dead lane follows so many of the main lane: what
/// gave way must not wait for ever, and what is fresh must not wait for it.
const MAIN_PER_DEAD: u32 = 4;

/// Reads synced entries of each lane in order, from the first that is not retired. Holds one
/// group of each lane, and entries it handed out hold theirs: payloads are not copied.
pub struct SpoolReader {
    lanes: Arc<Lanes>,
    main: LaneReader,
    dead: LaneReader,
    /// Everything handed out or passed over since the last rewind.
    place: Position,
    given: Given,
    /// The last entry that was handed out of the dead lane since the last rewind.
    dead_given: Option<log::Position>,
    /// What was passed over in the dead lane and is not retired yet.
    dead_passed: Option<log::Position>,
    /// How many came out of the main lane since the last of the dead one.
    main_in_a_row: u32,
    fleet: Arc<str>,
}

impl SpoolReader {
    pub(super) fn new(lanes: Arc<Lanes>) -> Self {
        Self {
            main: LaneReader::new(&lanes.main),
            dead: LaneReader::new(&lanes.dead),
            lanes,
            place: Position::default(),
            given: Given::default(),
            dead_given: None,
            dead_passed: None,
            main_in_a_row: 0,
            fleet: Arc::from(""),
        }
    }

    /// The next synced entry; waits up to `wait` for one. Blocking.
    ///
    /// Damaged entries are passed over: [`super::SpoolStat::damaged`] names them.
    ///
    /// # Errors
    /// When the disk can't be read. The caller tries again; what stays unreadable is passed over
    /// as damaged after a few calls.
    pub fn next(&mut self, wait: Duration) -> Result<Option<SpooledEntry>, SpoolError> {
        self.retire_passed();
        if self.main_in_a_row >= MAIN_PER_DEAD {
            self.main_in_a_row = 0;
            if let Some(entry) = self.next_dead()? {
                return Ok(Some(entry));
            }
        }
        if let Some(entry) = self.next_main(Duration::ZERO)? {
            return Ok(Some(entry));
        }
        if let Some(entry) = self.next_dead()? {
            return Ok(Some(entry));
        }
        if wait.is_zero() { Ok(None) } else { self.next_main(wait) }
    }

    /// Goes back to the first entry that is not retired.
    pub fn rewind(&mut self) {
        self.main.rewind(&self.lanes.main);
        self.dead.rewind(&self.lanes.dead);
        self.given.rewind(self.lanes.acknowledged());
        self.place = Position::default();
        (self.dead_given, self.dead_passed) = (None, None);
    }

    fn next_main(&mut self, wait: Duration) -> Result<Option<SpooledEntry>, SpoolError> {
        let deadline = Instant::now() + wait;
        while let Some((position, bytes)) = self.main.next(deadline)? {
            if self.lanes.is_moved(position.segment) {
                continue;
            }
            match Entry::decode(&bytes, &mut self.fleet) {
                Ok(entry) => {
                    if let Some(last) = self.main.begins_group(position) {
                        self.lanes.ages.note(last, entry.received_at());
                    }
                    let lanes = &self.lanes;
                    self.given.note(position, |segment| lanes.has_pending(segment));
                    self.main_in_a_row += 1;
                    self.place.main = Some(position);
                    return Ok(Some(self.spooled(position, entry)));
                }
                Err(error) => pass_over(&self.lanes.main, position, error),
            }
        }
        Ok(None)
    }

    fn next_dead(&mut self) -> Result<Option<SpooledEntry>, SpoolError> {
        let now = Instant::now();
        while let Some(position) = self.dead.peek(now)? {
            if self.is_to_wait(position) {
                return Ok(None);
            }
            let moved = self.dead.moved;
            let Some((_, bytes)) = self.dead.next(now)? else { return Ok(None) };
            self.place.dead = Some(position);
            if self.is_delivered(position) {
                self.dead_passed = Some(position);
                self.lanes.evicted_arrived.fetch_add(1, Relaxed);
                continue;
            }
            match Entry::decode(&bytes, &mut self.fleet) {
                Ok(entry) => {
                    (self.dead_given, self.dead_passed) = (Some(position), None);
                    let letter = evicted::dead_letter(entry, moved);
                    return Ok(Some(self.spooled(position, letter)));
                }
                Err(error) => pass_over(&self.lanes.dead, position, error),
            }
        }
        Ok(None)
    }

    fn spooled(&self, position: log::Position, entry: Entry) -> SpooledEntry {
        let (epoch, seq) = (position.epoch, position.seq);
        SpooledEntry { position: self.place, epoch, seq, entry }
    }

    fn is_to_wait(&self, position: log::Position) -> bool {
        let lanes = &self.lanes;
        let is_in_main =
            !lanes.is_moved(position.segment) && lanes.main.has_pending(position.segment);
        let is_answered = || lanes.acknowledged() >= Some(position);
        is_in_main || self.given.has(position) && !is_answered()
    }

    /// Whether it went out of the main lane before its segment was moved, and the bus has it.
    fn is_delivered(&self, position: log::Position) -> bool {
        self.given.has(position)
            && self.lanes.acknowledged() >= Some(position)
            && !self.lanes.main.is_damaged(position)
    }

    /// What was passed over behind the last entry handed out is retired with it.
    fn retire_passed(&mut self) {
        let Some(passed) = self.dead_passed else { return };
        if self.dead_given.is_none() || self.lanes.dead.retired() >= self.dead_given {
            self.lanes.dead.mark_retired(passed);
            self.dead_passed = None;
        }
    }
}

fn pass_over(log: &Log, position: log::Position, error: EntryError) {
    let log::Position { segment, epoch, seq } = position;
    let range = DamagedRange { segment, epoch, first_seq: seq, next_seq: seq + 1 };
    tracing::error!(%range, %error, "an entry of the spool can't be read; it is passed over");
    log.note_damage(range);
}

/// What was handed out of the main lane, first and last number by segment, as long as a lane has
/// entries of it: as many as there are segments.
#[derive(Debug, Default)]
struct Given(Vec<(log::Position, u64)>);

impl Given {
    /// Entries come in order, and with gaps only where something is damaged.
    fn note(&mut self, position: log::Position, is_pending: impl Fn(u64) -> bool) {
        match self.0.last_mut() {
            Some((first, last_seq)) if first.segment == position.segment => {
                *last_seq = position.seq.max(*last_seq);
            }
            _ => {
                self.0.retain(|(first, _)| is_pending(first.segment));
                self.0.push((position, position.seq));
            }
        }
    }

    fn has(&self, position: log::Position) -> bool {
        self.0.iter().any(|(first, last_seq)| {
            first.segment == position.segment && (first.seq..=*last_seq).contains(&position.seq)
        })
    }

    /// Only what the bus has acknowledged stays handed out.
    fn rewind(&mut self, acknowledged: Option<log::Position>) {
        self.0.retain(|(first, _)| Some(*first) <= acknowledged);
        if let (Some((first, last_seq)), Some(acknowledged)) = (self.0.last_mut(), acknowledged)
            && first.segment == acknowledged.segment
        {
            *last_seq = acknowledged.seq.min(*last_seq);
        }
    }
}

/// Entries of one lane.
struct LaneReader {
    reader: Reader,
    /// What is left of the current group.
    rest: Bytes,
    /// The place of its next entry.
    next: Option<log::Position>,
    /// Why and when it was moved to this lane.
    moved: Option<Moved>,
    /// Whether no entry of the group was handed out yet.
    is_fresh: bool,
}

impl LaneReader {
    fn new(log: &Log) -> Self {
        let reader = log.reader(log.retired());
        Self { reader, rest: Bytes::new(), next: None, moved: None, is_fresh: true }
    }

    fn rewind(&mut self, log: &Log) {
        self.reader.seek(log.retired());
        self.rest = Bytes::new();
        self.next = None;
    }

    /// The place of the next entry.
    fn peek(&mut self, deadline: Instant) -> Result<Option<log::Position>, SpoolError> {
        while self.rest.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reader.next(left) {
                Ok(Some(batch)) => self.begin(batch),
                Ok(None) => return Ok(None),
                Err(error) => return Err(SpoolError::Disk(error.to_string())),
            }
        }
        Ok(self.next)
    }

    fn next(&mut self, deadline: Instant) -> Result<Option<(log::Position, Bytes)>, SpoolError> {
        while let Some(position) = self.peek(deadline)? {
            self.next = Some(log::Position { seq: position.seq + 1, ..position });
            match self.split_frame() {
                Some(bytes) => return Ok(Some((position, bytes))),
                None => self.rest.clear(),
            }
        }
        Ok(None)
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

    /// Cuts the next entry off the group; the log has checked that they are well-formed.
    fn split_frame(&mut self) -> Option<Bytes> {
        let length = u32::from_le_bytes(*self.rest.first_chunk::<FRAME_BYTES>()?) as usize;
        if self.rest.len() < FRAME_BYTES + length {
            return None;
        }
        let mut frame = self.rest.split_to(FRAME_BYTES + length);
        Some(frame.split_off(FRAME_BYTES))
    }

    /// The place of the group's last entry, if `position` is the first one handed out.
    fn begins_group(&mut self, position: log::Position) -> Option<log::Position> {
        if !std::mem::take(&mut self.is_fresh) {
            return None;
        }
        let mut rest = &*self.rest;
        let mut last = position;
        while let Some((length, after)) = rest.split_first_chunk::<FRAME_BYTES>() {
            rest = after.get(u32::from_le_bytes(*length) as usize..).unwrap_or_default();
            last.seq += 1;
        }
        Some(last)
    }
}
