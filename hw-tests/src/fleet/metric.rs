//! What a device measures: random walks within plausible ranges, in hundredths of each unit.

use rand::{Rng, RngExt};

/// One value of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) name: &'static str,
    pub(super) hundredths: i32,
}

/// A kind of firmware, by the schema version that covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    V1,
    V2,
    V3,
}

struct Range {
    name: &'static str,
    min: i32,
    max: i32,
    step: i32,
    since: Generation,
    /// How often a device sends it, in percent.
    sent_percent: u32,
}

/// °C, mm/s, V, % relative humidity, A, °C.
const RANGES: [Range; 6] = [
    range("cpu_temp", 2_000, 9_500, 60, Generation::V1, 100),
    range("vibration_rms", 0, 2_000, 40, Generation::V1, 100),
    range("supply_voltage", 2_000, 2_800, 10, Generation::V1, 100),
    range("humidity", 0, 10_000, 50, Generation::V2, 80),
    range("motor_current", 0, 5_000, 80, Generation::V2, 90),
    range("bearing_temp", 2_000, 11_000, 60, Generation::V3, 95),
];

const fn range(
    name: &'static str,
    min: i32,
    max: i32,
    step: i32,
    since: Generation,
    sent_percent: u32,
) -> Range {
    Range { name, min, max, step, since, sent_percent }
}

impl Generation {
    /// That of a schema version; the newest for one that is not known.
    pub(super) const fn of_schema(version: u32) -> Self {
        match version {
            1 => Self::V1,
            2 => Self::V2,
            _ => Self::V3,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// The metrics that a generation may send: name, least and greatest value in hundredths.
pub(super) fn metrics_of(generation: Generation) -> impl Iterator<Item = (&'static str, i32, i32)> {
    let known = move |range: &&Range| range.since.number() <= generation.number();
    RANGES.iter().filter(known).map(|range| (range.name, range.min, range.max))
}

/// The present values of one device.
#[derive(Clone, Debug)]
pub(super) struct Walks {
    generation: Generation,
    /// Whether optional metrics are never left out.
    complete: bool,
    now: [i32; RANGES.len()],
}

impl Walks {
    /// Starts somewhere in the middle half of each range.
    pub(super) fn new(generation: Generation, rng: &mut impl Rng) -> Self {
        let now = std::array::from_fn(|i| {
            let quarter = (RANGES[i].max - RANGES[i].min) / 4;
            rng.random_range(RANGES[i].min + quarter..=RANGES[i].max - quarter)
        });
        Self { generation, complete: false, now }
    }

    /// The same, but every metric is always sent.
    pub(super) fn complete(self) -> Self {
        Self { complete: true, ..self }
    }

    /// Takes one step and puts what the device sends into `out`.
    pub(super) fn step(&mut self, rng: &mut impl Rng, out: &mut Vec<Reading>) {
        out.clear();
        for (range, now) in RANGES.iter().zip(&mut self.now) {
            if range.since.number() > self.generation.number() {
                continue;
            }
            *now = (*now + rng.random_range(-range.step..=range.step)).clamp(range.min, range.max);
            let is_sent = self.complete || range.sent_percent == 100;
            if is_sent || rng.random_ratio(range.sent_percent, 100) {
                out.push(Reading { name: range.name, hundredths: *now });
            }
        }
    }
}
