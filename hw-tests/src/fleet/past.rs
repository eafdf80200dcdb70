//! What a fleet is said to have measured before a benchmark began. Every value is a function of
//! the seed, the device, the metric and the time: whoever asks for it later knows the answer.

use std::f64::consts::TAU;

use super::backlog::Backlog;
use super::metric::{Generation, metrics_of};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440 * MINUTE;
/// Of 100 devices so many speak version 1, and so many 1 or 2; the others speak 3.
const V1_PERCENT: u32 = 40;
const V2_PERCENT: u32 = 75;

/// The devices and their values.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// Everything follows from it.
    pub seed: u64,
    /// How many devices.
    pub devices: u32,
}

/// One metric of one device.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The metric.
    pub metric: &'static str,
    key: u64,
    /// The middle of its values and the height of its daily wave, in hundredths.
    middle: f64,
    wave: f64,
    /// How far values stray from both, in hundredths.
    noise: f64,
    min: f64,
    max: f64,
}

impl Past {
    /// A device's name.
    pub fn device_id(number: u32) -> String {
        Backlog::device_id(number)
    }

    /// The first device and the number of devices of a schema version.
    pub fn share(&self, schema_version: u32) -> (u32, u32) {
        let of = |percent| (u64::from(self.devices) * u64::from(percent) / 100) as u32;
        let (first, end) = match schema_version {
            1 => (0, of(V1_PERCENT)),
            2 => (of(V1_PERCENT), of(V2_PERCENT)),
            _ => (of(V2_PERCENT), self.devices),
        };
        (first, end - first)
    }

    /// The metrics of a device.
    pub fn lines(&self, number: u32) -> Vec<Line> {
        let version = (1..=2).find(|version| {
            let (first, devices) = self.share(*version);
            number < first + devices
        });
        let metrics = metrics_of(Generation::of_schema(version.unwrap_or(3)));
        metrics.map(|(metric, min, max)| self.line(number, metric, (min, max))).collect()
    }

    /// One metric of a device, if it has it.
    pub fn line_of(&self, number: u32, metric: &str) -> Option<Line> {
        self.lines(number).into_iter().find(|line| line.metric == metric)
    }

    fn line(&self, number: u32, metric: &'static str, (min, max): (i32, i32)) -> Line {
        let name = metric.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        let key = mix(self.seed ^ mix(u64::from(number) ^ name));
        let (min, max) = (f64::from(min), f64::from(max));
        let range = max - min;
        Line {
            metric,
            key,
            middle: min + range * (0.3 + 0.4 * fraction(key)),
            wave: range * 0.1,
            noise: range * 0.02,
            min,
            max,
        }
    }
}

impl Line {
    /// The value at a time, µs.
    pub fn at(&self, time: i64) -> f64 {
        let hash = mix(self.key ^ time.cast_unsigned());
        let phase = fraction(self.key.rotate_left(17));
        let turn = time.rem_euclid(DAY) as f64 / DAY as f64 + phase;
        let noise = self.noise * (2.0 * fraction(hash) - 1.0);
        let value = self.middle + self.wave * (turn * TAU).sin() + noise;
        // As a device sends it: with two places.
        value.clamp(self.min, self.max).round() / 100.0
    }

    /// The values of a window, one every so many µs.
    pub fn values(&self, (from, to): (i64, i64), every: i64) -> impl Iterator<Item = f64> {
        let steps = (to - from + every - 1) / every;
        (0..steps).map(move |step| self.at(from + step * every))
    }
}

/// The finaliser of SplitMix64.
const fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

/// In [0, 1).
fn fraction(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_depends_on_its_place_alone() {
        let past = Past { seed: 7, devices: 100 };
        let line = past.line_of(3, "cpu_temp").unwrap();
        let values: Vec<f64> = line.values((0, MINUTE), 10_000_000).collect();
        assert_eq!(values.len(), 6);
        assert_eq!(values[2], past.line_of(3, "cpu_temp").unwrap().at(20_000_000));
        assert_ne!(values[0], past.line_of(4, "cpu_temp").unwrap().at(0));
        assert_ne!(values[0], past.line_of(3, "vibration_rms").unwrap().at(0));
        assert!(values.iter().all(|value| (20.0..=95.0).contains(value)), "{values:?}");
    }

    #[test]
    fn every_device_has_a_generation() {
        let past = Past { seed: 7, devices: 100 };
        let metrics = |number| past.lines(number).len();
        assert_eq!((metrics(39), metrics(40), metrics(75), metrics(99)), (3, 5, 6, 6));
        assert_eq!([1, 2, 3].map(|v| past.share(v)), [(0, 40), (40, 35), (75, 25)]);
        assert!(past.line_of(0, "bearing_temp").is_none());
    }
}
