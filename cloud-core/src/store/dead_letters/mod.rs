//! The index of dead letters: one row each, in the transaction that publishes its file.
//!
//! ```text
//! publish ──▶ open ──replayed──▶ replayed ──resolved──▶ resolved
//!              │ ▲                                          ▲
//!              │ └── refused: the refusal is noted          │
//!              └────────────── resolved ────────────────────┘
//! ```
//! - `publish.rs`: letters begin to count.
//! - `find.rs`: pages and single letters.
//! - `state.rs`: what becomes of them: replays with their audit, looks into the raw store.

use uuid::Uuid;

pub mod find;
pub mod publish;
pub mod state;

/// What has become of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing yet.
    Open,
    /// It was sent through `replay-events`; the raw store has not been seen to have it.
    Replayed,
    /// Its event is in the raw store.
    Resolved,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Replayed, Self::Resolved];

    /// Its name in the index and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Resolved => "resolved",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A letter's place on the dead-letter topic: what it is known by outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

impl std::str::FromStr for Place {
    type Err = &'static str;

    /// Only the one way of writing a place is read, so that a letter has one id.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "want topic:partition:offset, as in the list";
        let mut parts = text.rsplitn(3, ':');
        let (offset, partition, topic) = (parts.next(), parts.next(), parts.next());
        let place = match (topic, partition.map(str::parse), offset.map(str::parse)) {
            (Some(topic), Some(Ok(partition)), Some(Ok(offset))) if !topic.is_empty() => {
                Self { topic: topic.to_owned(), partition, offset }
            }
            _ => return Err(wrong),
        };
        let is_good = place.partition >= 0 && place.offset >= 0 && place.to_string() == text;
        if is_good && !text.contains('\0') { Ok(place) } else { Err(wrong) }
    }
}

/// Where a letter's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowPlace {
    /// The file's path in the object store.
    pub path: String,
    /// Its size.
    pub bytes: i64,
    /// The row in it, from 0.
    pub row: i32,
}

/// What a letter is looked for by. Texts are bounded here; the file has the whole ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexEntry {
    /// The partition of the dead-letter topic.
    pub partition: i32,
    /// The offset on it.
    pub offset: i64,
    /// When the bus appended it, µs.
    pub append_time: i64,
    /// When it was first seen, µs.
    pub first_seen: i64,
    /// The stage that gave up on it.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// The beginning of the detail.
    pub detail_preview: String,
    /// The fleet.
    pub fleet: String,
    /// The gateway.
    pub gateway: String,
    /// Its spool's epoch.
    pub epoch: i64,
    /// The number in it.
    pub seq: i64,
    /// The schema it was held against.
    pub schema_version: Option<i32>,
    /// How often it was tried.
    pub attempts: i64,
    /// The device, from the bytes or else the key.
    pub device_id: Option<String>,
    /// The event's id, from the bytes.
    pub event_id: Option<Uuid>,
    /// The event's time from the bytes, µs.
    pub event_time: Option<i64>,
    /// The size of the bytes.
    pub payload_bytes: i64,
    /// Whether it can be looked for in the raw store.
    pub resolvable: bool,
}

/// A letter as the index knows it. Times in µs since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedLetter {
    /// Its number in the index.
    pub letter_id: i64,
    /// Its place on the topic.
    pub place: Place,
    /// Where its bytes are.
    pub at: RowPlace,
    /// What it is looked for by.
    pub entry: IndexEntry,
    /// What has become of it.
    pub state: State,
    /// How often it was replayed.
    pub replays: i32,
    /// When last.
    pub replayed_at: Option<i64>,
    /// When its event was found in the raw store.
    pub resolved_at: Option<i64>,
    /// Why the last replay refused it: JSON.
    pub refusal: Option<String>,
    /// When that was.
    pub refused_at: Option<i64>,
}

impl IndexedLetter {
    /// Its place in the order of pages: append time (µs) and number.
    pub const fn key(&self) -> (i64, i64) {
        (self.entry.append_time, self.letter_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let place = Place { topic: "t-1.dead-letter".into(), partition: 3, offset: 17 };
        assert_eq!(place.to_string(), "t-1.dead-letter:3:17");
        assert_eq!("t-1.dead-letter:3:17".parse(), Ok(place));
        for bad in ["", "x", "t:1", ":1:2", "t:-1:2", "t:1:-2", "t:01:2", "t:1:+2", "t:1:2:"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn states_have_names() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
        }
        assert_eq!(State::from_name("closed"), None);
    }
}
