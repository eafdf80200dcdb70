//! How fast the spool drains, and when a device should come back. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Over how long the rate is averaged.
const WINDOW: Duration = Duration::from_secs(20);

/// A rate below this counts as none: the spool would drain for days.
const BYTES_PER_S_MIN: f64 = 100.0;

/// The rate at which the bus takes the spool's bytes.
#[derive(Clone, Debug)]
pub struct DrainRate {
    last: Option<(Instant, u64)>,
    bytes_per_s: f64,
}

impl DrainRate {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Self { last: None, bytes_per_s: 0.0 }
    }

    /// So many entries were acknowledged until now, in all; an entry takes this much on disk.
    pub fn note(&mut self, acknowledged_total: u64, bytes_per_entry: f64, now: Instant) {
        let Some((then, before)) = self.last.replace((now, acknowledged_total)) else { return };
        let passed = now.saturating_duration_since(then).as_secs_f64();
        if passed <= 0.0 {
            self.last = Some((then, before));
            return;
        }
        let entries = acknowledged_total.saturating_sub(before) as f64;
        let rate = entries * bytes_per_entry / passed;
        let weight = 1.0 - (-passed / WINDOW.as_secs_f64()).exp();
        self.bytes_per_s += (rate - self.bytes_per_s) * weight;
    }

    /// Bytes a second.
    pub const fn bytes_per_s(&self) -> f64 {
        self.bytes_per_s
    }

    /// In how many seconds that much has drained, from 1 to `s_max`; `s_max` if nothing drains.
    pub fn seconds_for(&self, bytes: u64, s_max: u64) -> u64 {
        if self.bytes_per_s < BYTES_PER_S_MIN {
            return s_max;
        }
        ((bytes as f64 / self.bytes_per_s).ceil() as u64).clamp(1, s_max)
    }
}

impl Default for DrainRate {
    fn default() -> Self {
        Self::new()
    }
}

/// A wait of about `seconds`, between three quarters of it and five: devices that were sent away
/// together should not come back together. `random` is between 0 and 1.
pub fn jittered(seconds: u64, random: f64) -> u64 {
    ((seconds as f64 * (0.75 + random / 2.0)).round() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noted(entries_per_s: u64, seconds: u64) -> DrainRate {
        let (mut rate, start) = (DrainRate::new(), Instant::now());
        for n in 0..=seconds * 4 {
            let now = start + Duration::from_millis(250 * n);
            rate.note(entries_per_s * n / 4, 100.0, now);
        }
        rate
    }

    #[test]
    fn the_rate_is_what_was_acknowledged() {
        let rate = noted(1_000, 200);
        assert!((rate.bytes_per_s() - 100_000.0).abs() < 100.0, "{}", rate.bytes_per_s());
        assert_eq!(rate.seconds_for(950_000, 120), 10);
        assert_eq!(rate.seconds_for(1, 120), 1);
        assert_eq!(rate.seconds_for(u64::MAX, 120), 120);
        assert_eq!(DrainRate::new().seconds_for(1, 120), 120);
    }

    #[test]
    fn a_drain_that_stops_is_noticed() {
        let (mut rate, start) = (noted(1_000, 60), Instant::now() + Duration::from_secs(600));
        for n in 0..600 {
            rate.note(60_000, 100.0, start + Duration::from_millis(250 * n));
        }
        assert_eq!(rate.seconds_for(1_000, 120), 120);
    }

    proptest! {
        #[test]
        fn waits_are_spread_and_never_nothing(seconds in 1..10_000u64, random in 0.0..=1.0) {
            let wait = jittered(seconds, random);
            prop_assert!(wait >= 1);
            prop_assert!(wait as f64 >= seconds as f64 * 0.75 - 0.5);
            prop_assert!(wait as f64 <= seconds as f64 * 1.25 + 0.5);
        }
    }
}
