//! What is in flight: handed to a producer and not answered yet. Positions and sizes only; the
//! bytes are the producer's.

use super::Token;
use super::lanes::LaneId;
use crate::spool::Position;

/// How many tracks share the producers: the lanes of the spool.
const TRACKS: usize = 2;

/// One record in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its entry.
    pub position: Position,
    /// Its partition.
    pub lane: LaneId,
    /// What its partition follows from.
    pub hash: u32,
    /// The bytes that are sent.
    pub bytes: usize,
    /// The bytes of the whole payload.
    pub payload_bytes: usize,
    /// Whether it was sent alone.
    pub is_alone: bool,
}

/// The records in flight by token. A token is used again once it is answered.
#[derive(Debug)]
pub struct Flight {
    track: usize,
    slots: Vec<Option<Slot>>,
    free: Vec<Token>,
    len: usize,
    bytes: usize,
}

impl Flight {
    /// Of the track with this number; tokens tell tracks apart.
    pub const fn new(track: usize) -> Self {
        Self { track, slots: Vec::new(), free: Vec::new(), len: 0, bytes: 0 }
    }

    /// Whether a token is of this track.
    pub const fn is_of(&self, token: Token) -> bool {
        token % TRACKS == self.track
    }

    /// Records in flight.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in flight.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Their bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a record; its token is for [`Self::take`].
    pub fn add(&mut self, slot: Slot) -> Token {
        self.len += 1;
        self.bytes += slot.bytes;
        if let Some(token) = self.free.pop() {
            self.slots[token / TRACKS] = Some(slot);
            return token;
        }
        self.slots.push(Some(slot));
        (self.slots.len() - 1) * TRACKS + self.track
    }

    /// Removes an answered record; none for a token that is not in flight.
    pub fn take(&mut self, token: Token) -> Option<Slot> {
        let slot = self.slots.get_mut(token / TRACKS)?.take()?;
        self.free.push(token);
        self.len -= 1;
        self.bytes -= slot.bytes;
        Some(slot)
    }

    /// Removes everything: the producer is given up.
    pub fn take_all(&mut self) -> Vec<Slot> {
        let slots = self.slots.drain(..).flatten().collect();
        self.free.clear();
        (self.len, self.bytes) = (0, 0);
        slots
    }
}

#[cfg(test)]
mod tests {
    use penstock_common::event::Epoch;
    use penstock_common::topic::Topic;

    use super::*;

    fn slot(seq: u64) -> Slot {
        let position = Position { segment: 1, epoch: Epoch(1), seq };
        let lane = LaneId { topic: Topic::RawEvents, partition: None };
        let bytes = 10 * seq as usize;
        Slot { position, lane, hash: 0, bytes, payload_bytes: 0, is_alone: false }
    }

    #[test]
    fn tokens_find_their_record_once() {
        let mut flight = Flight::new(1);
        let tokens: Vec<Token> = (0..10).map(|seq| flight.add(slot(seq))).collect();
        assert_eq!((flight.len(), flight.bytes()), (10, 450));
        assert_eq!(flight.take(tokens[3]), Some(slot(3)));
        assert_eq!(flight.take(tokens[3]), None);
        assert_eq!(flight.take(99), None);
        assert!(tokens.iter().all(|token| flight.is_of(*token)));
        assert!(!Flight::new(0).is_of(tokens[0]));
        assert_eq!((flight.len(), flight.bytes()), (9, 420));
        // The place is used again.
        assert_eq!(flight.add(slot(7)), tokens[3]);
        assert_eq!(flight.take_all().len(), 10);
        assert_eq!((flight.len(), flight.bytes(), flight.is_empty()), (0, 0, true));
        assert_eq!(flight.take(tokens[0]), None);
    }
}
