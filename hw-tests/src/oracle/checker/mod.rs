//! The comparison itself, free of I/O: it is fed what was found, in any order of the three stores.

use std::collections::HashMap;

use serde::Deserialize;
use uuid::Uuid;

use super::record::{Fingerprint, Record, State, ToldFleet};
use super::verdict::Verdict;

/// What to tolerate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerance {
    /// Events of devices that are not of the fleet are only counted: someone may try the demo
    /// with a request of their own.
    pub foreign_devices: bool,
    /// Accepted events may end as dead letters, because the gateway's spool was at its hard limit
    /// and the oldest gave way.
    pub gives_way: bool,
}

/// The reason of dead letters that gave way.
const GAVE_WAY: &str = "spool_full";

/// Compares what the devices were told with what is found.
pub struct Checker<'a> {
    told: &'a ToldFleet,
    tolerance: Tolerance,
    /// Whether there is a store; without one, what was accepted must be on the topic.
    has_store: bool,
    verdict: Verdict,
    devices: HashMap<&'a str, u32>,
    /// Where the seen-flags of each device begin.
    bases: Vec<usize>,
    identities: HashMap<(u32, [u8; 16]), u32>,
    /// Everything that was not accepted, by the bytes sent: a dead letter may have no readable
    /// identity.
    refused: HashMap<Fingerprint, (u32, u32)>,
    seen: Vec<Seen>,
    /// The greatest index seen on the topic, by device and gateway.
    order: HashMap<(u32, String), u32>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    stored: bool,
    dead: bool,
    on_topic: bool,
    gave_way: bool,
}

#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    device_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    event_id: std::borrow::Cow<'a, str>,
}

/// Whose a record is.
enum Owner<'a> {
    Known {
        device: u32,
        index: u32,
        record: &'a Record,
    },
    /// A device of the fleet, but an event that it never sent.
    Invented,
    /// No device of the fleet.
    Foreign,
}

impl<'a> Checker<'a> {
    /// A checker that has seen no store yet.
    pub fn new(told: &'a ToldFleet, tolerance: Tolerance) -> Self {
        let total = told.devices.iter().map(|device| device.records.len()).sum();
        let mut checker = Self {
            told,
            tolerance,
            has_store: true,
            verdict: Verdict::default(),
            devices: HashMap::with_capacity(told.devices.len()),
            bases: Vec::with_capacity(told.devices.len()),
            identities: HashMap::with_capacity(total),
            refused: HashMap::new(),
            seen: vec![Seen::default(); total],
            order: HashMap::new(),
        };
        let mut base = 0;
        for (number, device) in (0..).zip(&told.devices) {
            checker.devices.insert(&device.device_id, number);
            checker.bases.push(base);
            base += device.records.len();
            checker.verdict.contradicted += u64::from(device.contradictions);
            for (index, record) in (0..).zip(&device.records) {
                checker.identities.insert((number, record.event_id), index);
                if record.state != State::Accepted {
                    checker.refused.insert(record.fingerprint, (number, index));
                }
                checker.count(number, record);
            }
        }
        checker
    }

    /// Compares with the topics alone: nobody stores anything.
    #[must_use]
    pub fn without_store(mut self) -> Self {
        self.has_store = false;
        self
    }

    fn count(&mut self, device: u32, record: &Record) {
        let verdict = &mut self.verdict;
        verdict.sent += 1;
        match record.state {
            State::Unknown => verdict.unknown += 1,
            State::Accepted => verdict.accepted += 1,
            State::Rejected => verdict.rejected += 1,
        }
        let wrongly = match record.state {
            State::Unknown => false,
            State::Accepted => record.fault.is_some(),
            State::Rejected => record.fault.is_none(),
        };
        if wrongly {
            let device = &self.told.devices[device as usize];
            verdict.misjudged += 1;
            verdict.example("misjudged", || {
                let (state, fault) = (record.state, record.fault);
                let reason = device.reason(record).unwrap_or_default();
                format!(
                    "{} {state:?} {reason} though its fault is {fault:?}",
                    name(device_id(device), record)
                )
            });
        }
    }

    /// An event as the query API returns it.
    pub fn stored(&mut self, device_id: &str, event_id: &str, payload: &[u8]) {
        let (device, index, record) = match self.owner(device_id, event_id) {
            Owner::Known { device, index, record } => (device, index, record),
            Owner::Foreign if self.tolerance.foreign_devices => {
                self.verdict.foreign += 1;
                return;
            }
            Owner::Foreign | Owner::Invented => {
                self.verdict.spurious += 1;
                self.verdict.example("spurious", || format!("{device_id} {event_id} never sent"));
                return;
            }
        };
        let seen = &mut self.seen[self.bases[device as usize] + index as usize];
        if std::mem::replace(&mut seen.stored, true) {
            self.verdict.duplicated += 1;
            self.verdict.example("duplicated", || name(device_id, record));
            return;
        }
        self.verdict.stored += 1;
        if record.state == State::Rejected {
            self.verdict.spurious += 1;
            self.verdict
                .example("spurious", || format!("{} was rejected", name(device_id, record)));
        } else {
            self.compare(device_id, record, payload);
        }
    }

    /// A record of `raw-events`; those of one device in the order of their offsets.
    pub fn on_topic(&mut self, key: &str, gateway: &str, payload: &[u8]) {
        let Some(identity) = identity(payload) else {
            self.malformed(|| format!("raw-events, key {key}: no identity can be read"));
            return;
        };
        if identity.device_id != key {
            self.malformed(|| format!("raw-events: key {key}, device {}", identity.device_id));
            return;
        }
        let (device, index, record) = match self.owner(key, &identity.event_id) {
            Owner::Known { device, index, record } => (device, index, record),
            Owner::Foreign if self.tolerance.foreign_devices => {
                self.verdict.foreign += 1;
                return;
            }
            Owner::Foreign | Owner::Invented => {
                self.verdict.spurious += 1;
                self.verdict
                    .example("spurious", || format!("{key} {} on raw-events", identity.event_id));
                return;
            }
        };
        let seen = &mut self.seen[self.bases[device as usize] + index as usize];
        if std::mem::replace(&mut seen.on_topic, true) {
            self.verdict.transport_duplicates += 1;
            return;
        }
        self.compare(key, record, payload);
        if record.state == State::Rejected {
            self.verdict.spurious += 1;
            self.verdict
                .example("spurious", || format!("{} rejected, on raw-events", name(key, record)));
        }
        let last = self.order.entry((device, gateway.to_owned())).or_insert(index);
        if *last > index {
            self.verdict.out_of_order += 1;
            self.verdict.example("out of order", || name(key, record));
        }
        *last = (*last).max(index);
    }

    /// A record of `dead-letter`.
    pub fn dead_letter(&mut self, reason: &str, payload: &[u8]) {
        if self.tolerance.gives_way && reason == GAVE_WAY && self.gave_way(payload) {
            return;
        }
        if let Some(&(device, index)) = self.refused.get(&Fingerprint::of(payload)) {
            let record = &self.told.devices[device as usize].records[index as usize];
            if reason.is_empty() {
                self.malformed(|| format!("dead letter of event {index} without a reason"));
            }
            let seen = &mut self.seen[self.bases[device as usize] + index as usize];
            if std::mem::replace(&mut seen.dead, true) {
                self.verdict.dead_letter_copies += 1;
                return;
            }
            self.verdict.dead_lettered += 1;
            if record.fault.is_none() && record.state == State::Unknown {
                self.verdict.misjudged += 1;
                self.verdict.example("misjudged", || format!("a good event is dead: {reason}"));
            }
            return;
        }
        let ours = identity(payload).is_some_and(|identity| {
            !matches!(self.owner(&identity.device_id, &identity.event_id), Owner::Foreign)
        });
        if !ours && self.tolerance.foreign_devices {
            self.verdict.foreign += 1;
            return;
        }
        self.verdict.dead_letters_spurious += 1;
        self.verdict.example("dead letter spurious", || {
            let shown = &payload[..payload.len().min(200)];
            format!("{reason}: {}", String::from_utf8_lossy(shown))
        });
    }

    /// A dead letter of an accepted event; false if it is none.
    fn gave_way(&mut self, payload: &[u8]) -> bool {
        let Some(identity) = identity(payload) else { return false };
        let (device_id, event_id) = (&*identity.device_id, &*identity.event_id);
        let Owner::Known { device, index, record } = self.owner(device_id, event_id) else {
            return false;
        };
        let seen = &mut self.seen[self.bases[device as usize] + index as usize];
        if std::mem::replace(&mut seen.gave_way, true) {
            self.verdict.dead_letter_copies += 1;
            return true;
        }
        self.verdict.gave_way += 1;
        self.compare(device_id, record, payload);
        true
    }

    /// A record that could not be read as its format says.
    pub fn malformed(&mut self, what: impl FnOnce() -> String) {
        self.verdict.malformed += 1;
        self.verdict.example("malformed", what);
    }

    /// Everything has been shown: what is missing now is missing.
    pub fn finish(mut self) -> Verdict {
        for (device, base) in self.told.devices.iter().zip(&self.bases) {
            for (record, seen) in device.records.iter().zip(&self.seen[*base..]) {
                self.verdict.arrived_twice += u64::from(seen.gave_way && seen.on_topic);
                let is_safe = if self.has_store { seen.stored } else { seen.on_topic };
                if record.state == State::Accepted && !is_safe && !seen.gave_way {
                    self.verdict.missing += 1;
                    let place = if seen.on_topic { "on raw-events" } else { "not on raw-events" };
                    self.verdict.example("missing", || {
                        format!("{}, {place}", name(&device.device_id, record))
                    });
                }
                if record.state == State::Rejected && !seen.dead {
                    self.verdict.dead_letters_missing += 1;
                    self.verdict.example("dead letter missing", || {
                        let reason = device.reason(record).unwrap_or_default();
                        format!("{} {:?} {reason}", name(&device.device_id, record), record.fault)
                    });
                }
            }
        }
        self.verdict
    }

    fn owner(&self, device_id: &str, event_id: &str) -> Owner<'a> {
        let Some(&device) = self.devices.get(device_id) else { return Owner::Foreign };
        let Ok(event_id) = Uuid::try_parse(event_id) else { return Owner::Invented };
        match self.identities.get(&(device, event_id.into_bytes())) {
            None => Owner::Invented,
            Some(&index) => {
                let record = &self.told.devices[device as usize].records[index as usize];
                Owner::Known { device, index, record }
            }
        }
    }

    fn compare(&mut self, device_id: &str, record: &Record, payload: &[u8]) {
        if Fingerprint::of(payload) != record.fingerprint {
            self.verdict.altered += 1;
            self.verdict.example("altered", || {
                format!("{}: {}", name(device_id, record), String::from_utf8_lossy(payload))
            });
        }
    }
}

fn identity(payload: &[u8]) -> Option<Identity<'_>> {
    serde_json::from_slice(payload).ok()
}

fn name(device_id: &str, record: &Record) -> String {
    format!("{device_id} {}", Uuid::from_bytes(record.event_id))
}

fn device_id(device: &super::record::ToldDevice) -> &str {
    &device.device_id
}

#[cfg(test)]
mod tests;
