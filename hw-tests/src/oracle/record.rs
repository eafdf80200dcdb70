//! What every device was told, kept compactly: 40 bytes an event.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use crate::fleet::Fault;

/// A 128-bit hash of an event's exact bytes, only compared within one process. Nobody attacks a
/// test, so two keyed SipHashes are enough: 2 million events collide with a chance below 1e-25.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let half = |key: u8| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(key);
            hasher.write(bytes);
            hasher.finish()
        };
        Self(((u128::from(half(0)) << 64) | u128::from(half(1))).to_le_bytes())
    }
}

/// What the gateway said about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Sent, but no answer was read: it may be stored, once, or not.
    Unknown,
    /// Acknowledged as durable.
    Accepted,
    /// Refused, with a reason of [`ToldFleet::reasons`].
    Rejected,
}

/// An answer about one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Acknowledged as durable.
    Accepted,
    /// Refused; the JSON pointer and the rule that was broken.
    Rejected(String),
}

/// An event before it is sent.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The event's id, whether or not its bytes carry it correctly.
    pub event_id: [u8; 16],
    /// Of the bytes sent.
    pub fingerprint: Fingerprint,
    /// What is wrong with it on purpose.
    pub fault: Option<Fault>,
}

/// One event of one device.
#[derive(Clone, Debug)]
pub struct Record {
    /// The event's id.
    pub event_id: [u8; 16],
    /// Of the bytes sent.
    pub fingerprint: Fingerprint,
    /// How often it was acknowledged, counting re-sends.
    pub acks: u16,
    reason: u16,
    /// What the device was told.
    pub state: State,
    /// What is wrong with it on purpose.
    pub fault: Option<Fault>,
}

// Two million of them, their index and the rest must fit in a gigabyte.
const _: () = assert!(size_of::<Record>() <= 40);

/// What one device was told, in the order in which it sent.
#[derive(Debug, Default)]
pub struct ToldDevice {
    /// The device's id.
    pub device_id: String,
    /// Its events, in the order first sent.
    pub records: Vec<Record>,
    /// Events that were told two different things.
    pub contradictions: u32,
    reasons: Vec<String>,
}

impl ToldDevice {
    /// A device that has sent nothing yet.
    pub fn new(device_id: impl Into<String>) -> Self {
        Self { device_id: device_id.into(), ..Self::default() }
    }

    /// Notes an event before it is sent; returns its index.
    pub fn sending(&mut self, new: &NewRecord) -> u32 {
        self.records.push(Record {
            event_id: new.event_id,
            fingerprint: new.fingerprint,
            acks: 0,
            reason: 0,
            state: State::Unknown,
            fault: new.fault,
        });
        (self.records.len() - 1) as u32
    }

    /// Notes the answer about the event of that index.
    pub fn told(&mut self, index: u32, told: &Told) {
        let reason = match told {
            Told::Accepted => 0,
            Told::Rejected(reason) => self.intern(reason),
        };
        let record = &mut self.records[index as usize];
        let state = match told {
            Told::Accepted => State::Accepted,
            Told::Rejected(_) => State::Rejected,
        };
        if record.state != State::Unknown && record.state != state {
            self.contradictions += 1;
            return;
        }
        record.state = state;
        record.reason = reason;
        record.acks = record.acks.saturating_add(1);
    }

    /// Why a record was rejected.
    pub fn reason(&self, record: &Record) -> Option<&str> {
        (record.state == State::Rejected)
            .then(|| self.reasons.get(usize::from(record.reason)).map(String::as_str))?
    }

    fn intern(&mut self, reason: &str) -> u16 {
        let known = self.reasons.iter().position(|known| known == reason);
        let position = known.unwrap_or_else(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() - 1
        });
        u16::try_from(position).unwrap_or(u16::MAX)
    }
}

/// What a whole fleet was told.
#[derive(Debug, Default)]
pub struct ToldFleet {
    /// The fleet's name.
    pub fleet: String,
    /// Its devices.
    pub devices: Vec<ToldDevice>,
}

impl ToldFleet {
    /// How many rejections there were for each reason, most frequent first.
    pub fn reasons(&self) -> Vec<(&str, u64)> {
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for device in &self.devices {
            for reason in device.records.iter().filter_map(|record| device.reason(record)) {
                *counts.entry(reason).or_default() += 1;
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        counts
    }
}
