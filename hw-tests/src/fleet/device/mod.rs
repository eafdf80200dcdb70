//! One simulated device: what it sends next is a function of the run's seed, its number, and the
//! time it is given.

use std::collections::VecDeque;

use bytes::Bytes;
use penstock_common::event::UnixMicros;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

use super::FleetConfig;
use super::body::{Compression, Framing, Parts};
use super::event::{Draft, Extras, render};
use super::fault::Fault;
use super::metric::{Generation, Reading, Walks};
use crate::oracle::record::{Fingerprint, NewRecord};

/// How many accepted events a device remembers in order to send them again.
const REMEMBERED_EVENTS_MAX: usize = 4;

/// A device and what it has to know between two batches.
pub(crate) struct Device {
    pub(crate) id: String,
    firmware: String,
    rng: ChaCha8Rng,
    walks: Walks,
    clock_skew_micros: i64,
    remembered: VecDeque<Remembered>,
    readings: Vec<Reading>,
}

struct Remembered {
    index: u32,
    bytes: Bytes,
}

/// One request body and what stands in it, in order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) body: Bytes,
    pub(crate) framing: Framing,
    pub(crate) compression: Compression,
    pub(crate) items: Vec<Item>,
}

/// One event of a batch.
#[derive(Debug)]
pub(crate) enum Item {
    /// Sent for the first time.
    New {
        record: NewRecord,
        /// Kept only where it may be sent again.
        bytes: Option<Bytes>,
    },
    /// The device's record of that index once more, with the same bytes.
    Again(u32),
}

impl Device {
    /// Device `number` of a fleet.
    pub(crate) fn new(config: &FleetConfig, number: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(u64::from(number) + 1);
        let (generation, major) = match rng.random_range(0..100) {
            0..40 => (Generation::V1, 1),
            40..75 => (Generation::V2, 2),
            _ => (Generation::V3, 3),
        };
        let firmware = format!("{major}.{}.{}", rng.random_range(0..10), rng.random_range(0..20));
        let clock_skew_micros = if rng.random_bool(config.skewed_share) {
            const MINUTE: i64 = 60_000_000;
            // Ahead, late by minutes, late by days.
            [5 * MINUTE, -20 * MINUTE, -2 * 24 * 60 * MINUTE][rng.random_range(0..3)]
        } else {
            rng.random_range(-500_000..=500_000)
        };
        Self {
            id: format!("sim-{number:05}"),
            firmware,
            walks: Walks::new(generation, &mut rng),
            rng,
            clock_skew_micros,
            remembered: VecDeque::new(),
            readings: Vec::new(),
        }
    }

    /// A device with an exact clock that always sends all the metrics of its schema version.
    pub(crate) fn steady(seed: u64, number: u32, schema_version: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(number) + 1);
        Self {
            id: format!("steady-{number:05}"),
            firmware: format!("{schema_version}.4.1"),
            walks: Walks::new(Generation::of_schema(schema_version), &mut rng).complete(),
            rng,
            clock_skew_micros: 0,
            remembered: VecDeque::new(),
            readings: Vec::new(),
        }
    }

    /// Appends one good event of that time to `out`.
    pub(crate) fn event_at(&mut self, at: UnixMicros, out: &mut Vec<u8>) {
        let event_id = self.draw_id();
        let draft = self.draft(event_id, at, Extras::default(), None);
        render(&draft, out);
    }

    /// A fraction in [0, 1), e.g. for the phase of a schedule or the jitter of a delay.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.rng.random()
    }

    /// How many events the next batch holds.
    pub(crate) fn next_size(&mut self, config: &FleetConfig) -> usize {
        self.rng.random_range(config.batch_min..=config.batch_max)
    }

    /// Keeps an accepted event's bytes so that it can be sent again.
    pub(crate) fn remember(&mut self, index: u32, bytes: Bytes) {
        if self.remembered.len() == REMEMBERED_EVENTS_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(Remembered { index, bytes });
    }

    /// The next batch of `size` events, as of `now`.
    pub(crate) fn next_batch(
        &mut self,
        config: &FleetConfig,
        size: usize,
        now: UnixMicros,
    ) -> Batch {
        let framing = if self.rng.random_bool(config.ndjson_share) {
            Framing::Lines
        } else if size == 1 && self.rng.random_bool(config.bare_object_share) {
            Framing::Object
        } else {
            Framing::Array
        };
        let compression = self.compression(config);
        if self.rng.random_bool(config.broken_body_share) {
            return self.broken_batch(compression, now);
        }
        let mut parts = Parts::new(framing, size);
        let mut items = Vec::with_capacity(size);
        // The last of a batch may be sent again later: one is enough for a steady supply.
        let keep = size - 1;
        for position in 0..size {
            let age_micros = (size - 1 - position) as i64 * 100_000;
            let at = UnixMicros(now.0 + self.clock_skew_micros - age_micros);
            items.push(self.one(config, framing, at, position == keep, &mut parts));
        }
        Batch { body: parts.finish(compression), framing, compression, items }
    }

    fn one(
        &mut self,
        config: &FleetConfig,
        framing: Framing,
        at: UnixMicros,
        keep: bool,
        parts: &mut Parts,
    ) -> Item {
        if !self.remembered.is_empty() && self.rng.random_bool(config.duplicate_share) {
            let again = &self.remembered[self.rng.random_range(0..self.remembered.len())];
            parts.event(|out| out.extend_from_slice(&again.bytes));
            return Item::Again(again.index);
        }
        let fault = self.fault(config, framing);
        let extras = Extras {
            diagnostics_uptime_s: self
                .rng
                .random_bool(config.diagnostics_share)
                .then(|| self.rng.random_range(0..10_000_000)),
            unknown_fields: self.rng.random_bool(config.unknown_fields_share),
        };
        let event_id = self.draw_id();
        let draft = self.draft(event_id, at, extras, fault);
        let bytes = parts.event(|out| render(&draft, out));
        let record = NewRecord {
            event_id: event_id.into_bytes(),
            fingerprint: Fingerprint::of(bytes),
            fault,
        };
        let bytes = (keep && fault.is_none() && config.duplicate_share > 0.0)
            .then(|| Bytes::copy_from_slice(bytes));
        Item::New { record, bytes }
    }

    fn broken_batch(&mut self, compression: Compression, now: UnixMicros) -> Batch {
        let event_id = self.draw_id();
        let mut parts = Parts::new(Framing::Array, 1);
        let draft = self.draft(event_id, now, Extras::default(), None);
        parts.event(|out| render(&draft, out));
        let (body, plain) = parts.finish_broken(compression);
        let record = NewRecord {
            event_id: event_id.into_bytes(),
            fingerprint: Fingerprint::of(&plain),
            fault: Some(Fault::BrokenBody),
        };
        let items = vec![Item::New { record, bytes: None }];
        Batch { body, framing: Framing::Array, compression, items }
    }

    fn draft(
        &mut self,
        event_id: Uuid,
        timestamp: UnixMicros,
        extras: Extras,
        fault: Option<Fault>,
    ) -> Draft<'_> {
        self.walks.step(&mut self.rng, &mut self.readings);
        Draft {
            event_id,
            device_id: &self.id,
            firmware: &self.firmware,
            timestamp,
            metrics: &self.readings,
            extras,
            fault,
        }
    }

    fn draw_id(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid()
    }

    fn fault(&mut self, config: &FleetConfig, framing: Framing) -> Option<Fault> {
        if !self.rng.random_bool(config.faulty_share) {
            return None;
        }
        let kinds = Fault::ANYWHERE.len() + usize::from(framing == Framing::Lines);
        let kind = self.rng.random_range(0..kinds);
        Some(Fault::ANYWHERE.get(kind).copied().unwrap_or(Fault::BrokenLine))
    }

    fn compression(&mut self, config: &FleetConfig) -> Compression {
        let draw: f64 = self.rng.random();
        if draw < config.gzip_share {
            Compression::Gzip
        } else if draw < config.gzip_share + config.zstd_share {
            Compression::Zstd
        } else {
            Compression::None
        }
    }
}

#[cfg(test)]
mod tests;
