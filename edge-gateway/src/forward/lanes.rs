//! The partitions of the topics, as the forwarder sees them: how much of each is in flight, which
//! ones don't answer, and where each one's records wait in the spool. Pure: time is an argument.
//!
//! Records of a partition are sent in the order of the spool, always. A partition that can't take
//! more for a while (no leader, or not allowed) is *passed over*: its records stay in the spool,
//! and all that is remembered of them is the first and the last place. Everything later of that
//! partition waits behind them.

use std::time::{Duration, Instant};

use penstock_common::retry::Backoff;
use penstock_common::topic::Topic;

use super::{Class, Refusal};
use crate::spool::Position;

/// A partition with records in flight that says nothing for so long is passed over.
pub const STALL: Duration = Duration::from_secs(3);

/// Between two tries to find out whether a topic can be written to.
const TOPIC_RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

/// Between two tries of a record that the bus refuses for no clear reason.
const RECORD_RETRY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(15)];

/// The topics that entries go to.
const TOPICS: [Topic; 2] = [Topic::RawEvents, Topic::DeadLetter];

/// A partition, or none while nobody knows how many the topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneId {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Option<u32>,
}

/// Where records of a partition wait in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// No record before it waits.
    pub from: Position,
    /// The last one that was seen.
    pub last: Position,
}

/// Whether a record can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Now, with others.
    Together,
    /// Now, and nothing else of its partition until it is answered.
    Alone,
    /// Once the bus has answered some of its partition.
    Wait,
    /// Not for a while: its partition is passed over.
    None,
}

/// What is in flight of one partition, and what waits.
#[derive(Clone, Debug)]
pub struct Lane {
    in_flight: usize,
    bytes: usize,
    /// What is in flight was sent alone.
    is_alone: bool,
    /// The last answer, or when something was sent after nothing was in flight.
    heard_at: Instant,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// Its records that wait in the spool.
    pub parked: Option<Parked>,
}

#[derive(Clone, Debug)]
enum TopicState {
    Open,
    /// It can't be written to: one record at a time is tried.
    Blocked {
        refusal: Refusal,
        retry_at: Instant,
        is_trying: bool,
    },
}

#[derive(Clone, Debug)]
struct TopicLanes {
    topic: Topic,
    /// The last one is for records of a partition that nobody knows yet.
    lanes: Vec<Lane>,
    partitions: Option<u32>,
    state: TopicState,
    backoff: Backoff,
    /// The smallest record that was too large for the topic.
    too_large_bytes: usize,
}

/// All partitions.
#[derive(Clone, Debug)]
pub struct Lanes {
    topics: [TopicLanes; 2],
    in_flight_bytes_max: usize,
    in_flight_records_max: usize,
}

impl Lane {
    fn new(now: Instant) -> Self {
        let [first, max] = RECORD_RETRY;
        Self {
            in_flight: 0,
            bytes: 0,
            is_alone: false,
            heard_at: now,
            retry_at: None,
            backoff: Backoff::new(first, max),
            parked: None,
        }
    }

    /// Lets a record wait in the spool.
    pub fn park(&mut self, position: Position) {
        let Parked { from, last } =
            self.parked.unwrap_or(Parked { from: position, last: position });
        self.parked = Some(Parked { from: from.min(position), last: last.max(position) });
    }

    /// Nothing before `position` waits any more.
    pub fn park_from(&mut self, position: Position) {
        if let Some(parked) = &mut self.parked {
            parked.from = parked.from.max(position);
            if parked.from > parked.last {
                self.parked = None;
            }
        }
    }

    /// Whether it has records in flight and says nothing.
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.in_flight > 0 && now.saturating_duration_since(self.heard_at) > STALL
    }

    /// Whether what is in flight was sent alone.
    pub const fn is_alone(&self) -> bool {
        self.is_alone
    }

    fn is_waiting(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| now < at)
    }
}

impl TopicLanes {
    fn new(topic: Topic, now: Instant) -> Self {
        let [first, max] = TOPIC_RETRY;
        Self {
            topic,
            lanes: vec![Lane::new(now)],
            partitions: None,
            // Nothing is known of it yet.
            state: TopicState::Open,
            backoff: Backoff::new(first, max),
            too_large_bytes: usize::MAX,
        }
    }

    fn index(&self, partition: Option<u32>) -> usize {
        let unknown = self.lanes.len() - 1;
        partition.map_or(unknown, |partition| (partition as usize).min(unknown))
    }

    /// Whether a record may be tried now.
    fn is_open(&self, now: Instant) -> bool {
        let may_try = match &self.state {
            TopicState::Open => true,
            TopicState::Blocked { retry_at, is_trying, .. } => now >= *retry_at && !is_trying,
        };
        may_try && self.partitions.is_some()
    }

    fn is_servable(&self, lane: &Lane, now: Instant) -> bool {
        self.is_open(now) && !lane.is_stalled(now) && !lane.is_waiting(now)
    }
}

impl Lanes {
    /// No partition is known yet. The limits are for all of them together.
    pub fn new(in_flight_bytes_max: usize, in_flight_records_max: usize, now: Instant) -> Self {
        let topics = TOPICS.map(|topic| TopicLanes::new(topic, now));
        Self { topics, in_flight_bytes_max, in_flight_records_max }
    }

    fn topic(&self, topic: Topic) -> &TopicLanes {
        &self.topics[usize::from(topic != Topic::RawEvents)]
    }

    fn topic_mut(&mut self, topic: Topic) -> &mut TopicLanes {
        &mut self.topics[usize::from(topic != Topic::RawEvents)]
    }

    /// The lane.
    pub fn get_mut(&mut self, id: LaneId) -> &mut Lane {
        let topic = self.topic_mut(id.topic);
        let index = topic.index(id.partition);
        &mut topic.lanes[index]
    }

    /// The lane.
    pub fn get(&self, id: LaneId) -> &Lane {
        let topic = self.topic(id.topic);
        &topic.lanes[topic.index(id.partition)]
    }

    /// How many partitions a topic has, as far as it is known.
    pub fn partitions(&self, topic: Topic) -> Option<u32> {
        self.topic(topic).partitions
    }

    /// The topics whose partitions should be asked for now.
    pub fn unknown(&self, now: Instant) -> Vec<Topic> {
        let is_due = |topic: &&TopicLanes| match &topic.state {
            TopicState::Open => true,
            TopicState::Blocked { retry_at, .. } => now >= *retry_at,
        };
        let unknown = self.topics.iter().filter(|topic| topic.partitions.is_none());
        unknown.filter(is_due).map(|topic| topic.topic).collect()
    }

    /// A topic has this many partitions; what waited for that waits for its partition now.
    pub fn learn(&mut self, topic: Topic, partitions: u32, now: Instant) {
        let topic = self.topic_mut(topic);
        if topic.partitions.is_some() || partitions == 0 {
            return;
        }
        let parked = topic.lanes.last().and_then(|unknown| unknown.parked);
        let lane = Lane { parked, ..Lane::new(now) };
        topic.lanes = vec![lane; partitions as usize];
        topic.lanes.push(Lane::new(now));
        topic.partitions = Some(partitions);
        topic.state = TopicState::Open;
        topic.backoff.reset();
    }

    /// A topic can't be written to. Returns when it is tried again, and whether that is news.
    pub fn block(&mut self, topic: Topic, refusal: &Refusal, now: Instant) -> (Duration, bool) {
        let topic = self.topic_mut(topic);
        let delay = topic.backoff.next_delay();
        let is_news = match &topic.state {
            TopicState::Open => true,
            TopicState::Blocked { refusal: old, .. } => old != refusal,
        };
        let (refusal, retry_at) = (refusal.clone(), now + delay);
        topic.state = TopicState::Blocked { refusal, retry_at, is_trying: false };
        (delay, is_news)
    }

    /// Whether a record of this size can go to this lane now.
    pub fn room(&self, id: LaneId, bytes: usize, must_be_alone: bool, now: Instant) -> Room {
        let topic = self.topic(id.topic);
        let lane = &topic.lanes[topic.index(id.partition)];
        if id.partition.is_none() || !topic.is_servable(lane, now) {
            return Room::None;
        }
        let is_tried = matches!(topic.state, TopicState::Blocked { .. });
        if must_be_alone || is_tried || bytes >= topic.too_large_bytes {
            return if lane.in_flight == 0 { Room::Alone } else { Room::Wait };
        }
        let has_room = lane.in_flight == 0
            || lane.bytes + bytes <= self.share(self.in_flight_bytes_max)
                && lane.in_flight < self.share(self.in_flight_records_max);
        if has_room && !lane.is_alone { Room::Together } else { Room::Wait }
    }

    /// What one partition may have of a limit: so that all the others together, should they have
    /// no leader, leave this one its part.
    fn share(&self, limit: usize) -> usize {
        let partitions: usize = self.topics.iter().map(|topic| topic.lanes.len() - 1).sum();
        (limit / partitions.max(1)).max(1)
    }

    /// A record was handed to the producer.
    pub fn sent(&mut self, id: LaneId, bytes: usize, is_alone: bool, now: Instant) {
        if let TopicState::Blocked { is_trying, .. } = &mut self.topic_mut(id.topic).state {
            *is_trying = true;
        }
        let lane = self.get_mut(id);
        if lane.in_flight == 0 {
            lane.heard_at = now;
        }
        lane.in_flight += 1;
        lane.bytes += bytes;
        lane.is_alone = is_alone;
    }

    /// The bus has a record. Returns whether its topic can be written to again.
    pub fn acknowledged(&mut self, id: LaneId, bytes: usize, now: Instant) -> bool {
        let topic = self.topic_mut(id.topic);
        let was_blocked = matches!(topic.state, TopicState::Blocked { .. });
        topic.state = TopicState::Open;
        topic.backoff.reset();
        let lane = self.get_mut(id);
        lane.heard_at = now;
        lane.backoff.reset();
        lane.answered(bytes);
        was_blocked
    }

    /// A record is not in flight any more, and the bus does not have it.
    pub fn returned(&mut self, id: LaneId, bytes: usize, is_alone: bool) {
        // Whatever was wrong with it, the try of a blocked topic is over.
        if let TopicState::Blocked { is_trying, .. } = &mut self.topic_mut(id.topic).state {
            *is_trying &= !is_alone;
        }
        self.get_mut(id).answered(bytes);
    }

    /// The producer is given up: nothing is tried any more.
    pub fn give_up(&mut self) {
        for topic in &mut self.topics {
            if let TopicState::Blocked { is_trying, .. } = &mut topic.state {
                *is_trying = false;
            }
        }
    }

    /// Nothing more of the lane is tried for a while.
    pub fn retry_later(&mut self, id: LaneId, now: Instant) -> Duration {
        let lane = self.get_mut(id);
        let delay = lane.backoff.next_delay();
        lane.retry_at = Some(now + delay);
        delay
    }

    /// A record of this size was too large for the topic: the like are sent alone from now on.
    pub fn note_too_large(&mut self, topic: Topic, bytes: usize) {
        let least = &mut self.topic_mut(topic).too_large_bytes;
        *least = bytes.min(*least);
    }

    /// A record of this size was not too large after all.
    pub fn note_fits(&mut self, topic: Topic, bytes: usize) {
        let least = &mut self.topic_mut(topic).too_large_bytes;
        if *least <= bytes {
            *least = bytes + 1;
        }
    }

    /// The lanes whose records wait in the spool and could be sent now.
    pub fn servable(&self, now: Instant) -> Vec<LaneId> {
        let mut found = Vec::new();
        for topic in &self.topics {
            let lanes = topic.lanes.iter().zip(0..topic.partitions.unwrap_or(0));
            found.extend(lanes.filter(|(lane, _)| topic.is_servable(lane, now)).filter_map(
                |(lane, partition)| {
                    lane.parked.map(|_| LaneId { topic: topic.topic, partition: Some(partition) })
                },
            ));
        }
        found
    }

    /// Nothing before `position` waits any more, of any lane.
    pub fn park_from(&mut self, position: Position) {
        let lanes = self.topics.iter_mut().flat_map(|topic| &mut topic.lanes);
        lanes.for_each(|lane| lane.park_from(position));
    }

    /// Whether records of any lane wait in the spool.
    pub fn any_parked(&self) -> bool {
        self.all().any(|lane| lane.parked.is_some())
    }

    /// Partitions with records in flight that say nothing.
    pub fn stalled(&self, now: Instant) -> usize {
        self.all().filter(|lane| lane.is_stalled(now)).count()
    }

    /// The topics that the bus won't have written to, and why. One of which it says nothing is none.
    pub fn blocked(&self) -> Vec<(Topic, String)> {
        let blocked = self.topics.iter().filter_map(|topic| match &topic.state {
            TopicState::Blocked { refusal, .. } if refusal.class == Class::Topic => {
                Some((topic.topic, refusal.reason.clone()))
            }
            TopicState::Blocked { .. } | TopicState::Open => None,
        });
        blocked.collect()
    }

    fn all(&self) -> impl Iterator<Item = &Lane> {
        self.topics.iter().flat_map(|topic| &topic.lanes)
    }
}

impl Lane {
    fn answered(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_alone &= self.in_flight > 0;
    }
}
