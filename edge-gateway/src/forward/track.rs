//! The way of the entries of one of the spool's lanes to the bus: two cursors, the lanes, and what is done.
//!
//! - *Ahead* reads every entry once, in order. What its lane can take is sent; what a lane that is
//!   passed over can't take is parked: it stays in the spool, and the lane remembers where.
//! - *Behind* reads again what is parked, from the first place of a lane that can be served again,
//!   until that lane has caught up with *ahead*. When a producer is given up, everything that was
//!   in flight is parked: there is one way to send something again, and it keeps the order.
//!
//! *Ahead* is bounded: by what it read without being able to send any of it, and by the memory for
//! what is open behind it (a bit an entry).

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_common::telemetry::traces::Traces;
use penstock_common::topic::Topic;

use super::acks::Acks;
use super::cursor::{Cursor, Next};
use super::fates::{FATES_MAX, Fates, Form};
use super::flight::{Flight, Slot};
use super::lanes::{LaneId, Lanes, Room};
use super::link::Link;
use super::partition;
use super::record::{key_of, outbound, payload_bytes, topic_of};
use super::sending::Sending;
use super::{KafkaConfig, Producer};
use crate::spool::{Position, SpoolReader, SpooledEntry};

/// How many entries are looked at between two looks at the bus's answers.
const STEP_ENTRIES: usize = 256;

/// How much *ahead* may read in a row without being able to send any of it.
const EXPLORED_BYTES_MAX: usize = 64 << 20;

/// How many entries may be open or wait behind an open one: 8 MiB of memory.
const AHEAD_ENTRIES_MAX: u64 = 64 << 20;

/// How long the bus may take to say how many partitions a topic has.
const METADATA_WAIT: Duration = Duration::from_millis(500);

/// One lane's entries on their way.
pub(super) struct Track {
    gateway: Arc<str>,
    ahead: Cursor,
    behind: Cursor,
    /// The place from which *behind* reads on; none while nothing can be caught up.
    behind_at: Option<Position>,
    explored_bytes: usize,
    in_flight_bytes_max: usize,
    in_flight_records_max: usize,
    pub(super) acks: Acks,
    pub(super) lanes: Lanes,
    pub(super) fates: Fates,
    pub(super) flight: Flight,
    pub(super) sending: Sending,
}

/// Where an entry goes.
#[derive(Clone, Copy)]
struct Way {
    lane: LaneId,
    hash: u32,
    bytes: usize,
    must_be_alone: bool,
}

impl Track {
    /// `number` tells it from others that share its producers.
    pub(super) fn new(
        gateway: Arc<str>,
        reader: SpoolReader,
        number: usize,
        config: &KafkaConfig,
        traces: Traces,
        now: Instant,
    ) -> Self {
        let (bytes, records) = (config.in_flight_bytes_max, config.in_flight_records_max);
        let ahead = Cursor::new(reader);
        Self {
            gateway,
            behind: ahead.another(),
            ahead,
            behind_at: None,
            explored_bytes: 0,
            in_flight_bytes_max: bytes,
            in_flight_records_max: records,
            acks: Acks::default(),
            lanes: Lanes::new(bytes, records, now),
            fates: Fates::default(),
            flight: Flight::new(number),
            sending: Sending::new(traces),
        }
    }

    /// Sends what can be sent now. Returns whether anything moved.
    ///
    /// # Errors
    /// When the producer is of no more use.
    pub(super) fn advance<P: Producer>(
        &mut self,
        link: &mut Link<P>,
        now: Instant,
    ) -> Result<bool, String> {
        // Both, each a bounded step: neither the backlog nor what is fresh waits for the other.
        let caught_up = self.step_behind(link, now)?;
        Ok(self.step_ahead(link, now)? || caught_up)
    }

    /// Waits up to `wait` for something to be spooled.
    pub(super) fn wait_for_entries(&mut self, wait: Duration, now: Instant) {
        if let Next::Fresh(entry) = self.ahead.wait(wait, now) {
            self.acks.read(entry.position);
            self.ahead.put_back(entry);
        }
    }

    /// The producer is given up, with everything in flight.
    pub(super) fn give_up(&mut self) {
        self.sending.give_up();
        for slot in self.flight.take_all() {
            self.lanes.returned(slot.lane, slot.bytes, slot.is_alone);
            self.lanes.get_mut(slot.lane).park(slot.position);
        }
        self.lanes.give_up();
    }

    /// A record that was refused is a dead letter from now on.
    pub(super) fn park_as_letter(&mut self, slot: &Slot) {
        let lane = self.lane_of(Topic::DeadLetter, slot.hash);
        self.lanes.get_mut(lane).park(slot.position);
    }

    /// Somebody else has retired everything up to `position`: it was moved to another place.
    pub(super) fn retired_through(&mut self, position: Position) {
        let first = Position { segment: 0, epoch: position.epoch, seq: 0 };
        self.pass_over(first, after(position));
        self.lanes.park_from(after(position));
        if self.behind_at.is_some_and(|at| at <= position) {
            self.behind_at = None;
        }
    }

    /// Asks for the partitions of the topics that are not known yet.
    pub(super) fn learn<P: Producer>(&mut self, link: &mut Link<P>, now: Instant) {
        for topic in self.lanes.unknown(now) {
            match link.partitions(topic, METADATA_WAIT) {
                Ok(partitions) => self.lanes.learn(topic, partitions, now),
                Err(refusal) => self.block_topic(topic, &refusal, now),
            }
        }
    }

    /// How it stands, for a test that fails.
    #[cfg(test)]
    pub(super) fn standing(&self) -> String {
        let (open, behind, fates) = (self.acks.first_open(), self.behind_at, &self.fates);
        format!("first open {open:?}; behind at {behind:?}; {fates:?}; {:?}", self.lanes)
    }

    fn step_ahead<P: Producer>(
        &mut self,
        link: &mut Link<P>,
        now: Instant,
    ) -> Result<bool, String> {
        if !self.lanes.any_parked() {
            self.explored_bytes = 0;
        }
        for count in 0..STEP_ENTRIES {
            let is_far = self.explored_bytes > EXPLORED_BYTES_MAX
                || self.acks.remembered() >= AHEAD_ENTRIES_MAX
                || link.is_full();
            if is_far {
                return Ok(count > 0);
            }
            let entry = match self.ahead.next(now) {
                Next::Again(entry) => entry,
                Next::Fresh(entry) => {
                    self.acks.read(entry.position);
                    entry
                }
                Next::End | Next::Later => return Ok(count > 0),
            };
            let way = self.way_of(&entry);
            let lane = self.lanes.get(way.lane);
            // What must be alone would hold up all others here.
            let must_wait_behind = lane.parked.is_some() || lane.is_alone() || way.must_be_alone;
            match self.room(&way, now) {
                Room::Together if !must_wait_behind => {
                    self.send(link, entry, way, false, now)?;
                    self.explored_bytes = 0;
                }
                Room::Wait if !must_wait_behind => {
                    self.ahead.put_back(entry);
                    return Ok(count > 0);
                }
                _ => {
                    self.explored_bytes += way.bytes;
                    self.lanes.get_mut(way.lane).park(entry.position);
                }
            }
        }
        Ok(true)
    }

    fn step_behind<P: Producer>(
        &mut self,
        link: &mut Link<P>,
        now: Instant,
    ) -> Result<bool, String> {
        let mut servable = self.lanes.servable(now);
        let parked = servable.iter().filter_map(|id| self.lanes.get(*id).parked);
        let Some(target) = parked.map(|parked| parked.from).min() else {
            self.behind_at = None;
            return Ok(false);
        };
        // Back for a lane that came to life, or on past whole segments that concern nobody.
        if self.behind_at.is_none_or(|at| at > target || at.segment < target.segment) {
            self.behind.seek(target);
            self.behind_at = Some(target);
        }
        let moved = self.catch_up(link, &mut servable, now)?;
        // Of these, all that was met was sent. Without it, a lane whose next record is far away
        // would call *behind* back to the same place for ever.
        if let Some(at) = self.behind_at {
            servable.iter().for_each(|id| self.lanes.get_mut(*id).park_from(at));
        }
        Ok(moved)
    }

    /// Sends what waits of these lanes, from where *behind* is. A lane that can't be served any
    /// more, or has caught up, is taken out of them.
    fn catch_up<P: Producer>(
        &mut self,
        link: &mut Link<P>,
        servable: &mut Vec<LaneId>,
        now: Instant,
    ) -> Result<bool, String> {
        for count in 0..STEP_ENTRIES {
            if link.is_full() || servable.is_empty() {
                return Ok(count > 0);
            }
            let entry = match self.behind.next(now) {
                Next::Again(entry) | Next::Fresh(entry) => entry,
                Next::Later => return Ok(count > 0),
                Next::End => {
                    self.reached_end(servable);
                    return Ok(count > 0);
                }
            };
            let position = entry.position;
            self.pass_to(position, servable);
            let way = self.way_of(&entry);
            let parked = self.lanes.get(way.lane).parked;
            if parked.is_some_and(|parked| parked.from <= position) && servable.contains(&way.lane)
            {
                let is_open = !self.acks.is_done(position);
                match self.room(&way, now) {
                    room @ (Room::Together | Room::Alone) if is_open => {
                        self.send(link, entry, way, room == Room::Alone, now)?;
                        self.unpark_through(way.lane, position, servable);
                    }
                    Room::Wait if is_open => {
                        self.behind.put_back(entry);
                        return Ok(count > 0);
                    }
                    Room::None if is_open => servable.retain(|id| *id != way.lane),
                    _ => self.unpark_through(way.lane, position, servable),
                }
            }
            self.behind_at = Some(after(position));
        }
        Ok(true)
    }

    /// What waited of the lane up to `position` is sent, or was before.
    fn unpark_through(&mut self, id: LaneId, position: Position, servable: &mut Vec<LaneId>) {
        let lane = self.lanes.get_mut(id);
        lane.park_from(after(position));
        if lane.parked.is_none() {
            servable.retain(|other| *other != id);
            self.explored_bytes = 0;
        }
    }

    /// *Behind* has come to `position`: what was before it and was not met can't be read any more.
    fn pass_to(&mut self, position: Position, servable: &[LaneId]) {
        if let Some(at) = self.behind_at.filter(|at| *at < position) {
            self.pass_over(at, position);
            for id in servable {
                self.lanes.get_mut(*id).park_from(position);
            }
        }
        // An entry that is put back is met again.
        self.behind_at = Some(position);
    }

    /// Nothing more is waited for between these places.
    fn pass_over(&mut self, from: Position, to: Position) {
        self.acks.done_between(from, to);
        self.fates.forget_between(from, to);
    }

    /// *Behind* has met everything: nothing of these lanes waits any more, and what it was still
    /// to meet can't be read any more.
    fn reached_end(&mut self, servable: &[LaneId]) {
        if let Some(at) = self.behind_at.take() {
            self.pass_over(at, Position { segment: u64::MAX, ..at });
        }
        for id in servable {
            self.lanes.get_mut(*id).parked = None;
        }
        self.explored_bytes = 0;
    }

    fn way_of(&self, entry: &SpooledEntry) -> Way {
        let form = self.fates.form(entry.position);
        let topic = topic_of(&entry.entry, form);
        let hash = match key_of(&entry.entry) {
            Some(key) => partition::hash(key.as_bytes()),
            // Any partition will do: its number's, so that it is the same each time.
            None => entry.seq as u32,
        };
        let lane = self.lane_of(topic, hash);
        let bytes = match form {
            Some(Form::Parts { bytes_max, .. }) => payload_bytes(&entry.entry).min(*bytes_max),
            _ => payload_bytes(&entry.entry),
        };
        Way { lane, hash, bytes, must_be_alone: form.is_some() }
    }

    fn lane_of(&self, topic: Topic, hash: u32) -> LaneId {
        let partitions = self.lanes.partitions(topic);
        let partition = partitions.map(|partitions| partition::of_hash(hash, partitions));
        LaneId { topic, partition }
    }

    fn room(&self, way: &Way, now: Instant) -> Room {
        let room = self.lanes.room(way.lane, way.bytes, way.must_be_alone, now);
        // What is sent alone because of its size may be refused, and must be remembered then.
        if room == Room::Alone && !way.must_be_alone && self.fates.len() >= FATES_MAX {
            return Room::None;
        }
        let is_full = !self.flight.is_empty()
            && (self.flight.len() >= self.in_flight_records_max
                || self.flight.bytes() + way.bytes > self.in_flight_bytes_max);
        match room {
            Room::Together | Room::Alone if is_full => Room::Wait,
            room => room,
        }
    }

    fn send<P: Producer>(
        &mut self,
        link: &mut Link<P>,
        entry: SpooledEntry,
        way: Way,
        is_alone: bool,
        now: Instant,
    ) -> Result<(), String> {
        let Way { lane, hash, bytes, .. } = way;
        let (position, payload_bytes) = (entry.position, payload_bytes(&entry.entry));
        let slot = Slot { position, lane, hash, bytes, payload_bytes, is_alone };
        let span = self.sending.begin(&entry, lane.topic);
        let form = self.fates.form(position).cloned().unwrap_or_default();
        let record = outbound(&self.gateway, entry, &form);
        // Of a key, the producer finds the same one.
        let partition = if record.key.is_none() { lane.partition } else { None };
        let token = self.flight.add(slot);
        self.sending.sent(token, span);
        self.lanes.sent(lane, bytes, is_alone, now);
        link.send(token, record, partition, is_alone)
    }
}

/// The place behind an entry.
const fn after(position: Position) -> Position {
    Position { seq: position.seq + 1, ..position }
}
