//! Whether gateways should hold events back (spec I9). Pure: only the backlog of raw events
//! counts, not that of slower consumers, and it has to shrink well below the limit before events
//! flow again, so that gateways are not told one thing and then the other.

use jiff::Timestamp;
use penstock_common::snapshot::CorePressure;
use serde::Deserialize;

/// `[pressure]`: when gateways hold events back, and when no longer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PressureConfig {
    /// Held from so many raw events on that are not stored yet.
    pub hold_records: u64,
    /// Until no more than so many are.
    pub release_records: u64,
    /// Held as soon as one has waited so long.
    pub hold_s: u64,
    /// Until none has waited longer than this.
    pub release_s: u64,
}

impl Default for PressureConfig {
    fn default() -> Self {
        // The broker keeps raw events for 6 h and the guard steps in at 4 h; 2 h at 5,000 events/s
        // are 36 million.
        Self {
            hold_records: 40_000_000,
            release_records: 20_000_000,
            hold_s: 7_200,
            release_s: 3_600,
        }
    }
}

impl PressureConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let pairs = [
            ("records", self.release_records, self.hold_records),
            ("s", self.release_s, self.hold_s),
        ];
        for (unit, release, hold) in pairs {
            if release >= hold {
                problems.push(format!(
                    "pressure.release_{unit} {release}: want less than pressure.hold_{unit} {hold}"
                ));
            }
        }
        if self.hold_s > 86_400 * 365 {
            problems.push(format!("pressure.hold_s {}: at most a year", self.hold_s));
        }
    }
}

/// How far the raw store is behind the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Records that are not stored yet.
    pub records: u64,
    /// Of these, those that have waited longer than `hold_s`.
    pub older_than_hold: u64,
    /// And longer than `release_s`.
    pub older_than_release: u64,
}

/// What follows from a backlog, after what was said before.
pub fn judge(
    config: &PressureConfig,
    was_held: bool,
    backlog: &Backlog,
    as_of: Timestamp,
) -> CorePressure {
    let PressureConfig { hold_records, release_records, hold_s, release_s } = *config;
    let (many, old, old_s) = match was_held {
        false => (hold_records, backlog.older_than_hold, hold_s),
        true => (release_records + 1, backlog.older_than_release, release_s),
    };
    let mut reasons = Vec::new();
    if backlog.records >= many {
        reasons.push(format!("{} raw events are not stored yet", backlog.records));
    }
    if old > 0 {
        reasons.push(format!("{old} raw events have waited longer than {old_s} s"));
    }
    CorePressure { hold: !reasons.is_empty(), reason: reasons.join("; "), as_of }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: PressureConfig =
        PressureConfig { hold_records: 100, release_records: 50, hold_s: 60, release_s: 30 };

    fn hold(was_held: bool, records: u64, older_than_hold: u64, older_than_release: u64) -> bool {
        let backlog = Backlog { records, older_than_hold, older_than_release };
        let pressure = judge(&CONFIG, was_held, &backlog, Timestamp::UNIX_EPOCH);
        assert_eq!(pressure.hold, !pressure.reason.is_empty(), "a hold says why");
        pressure.hold
    }

    #[test]
    fn it_holds_at_the_limit_and_lets_go_well_below() {
        assert!(!hold(false, 99, 0, 99));
        assert!(hold(false, 100, 0, 0));
        assert!(hold(false, 1, 1, 1));
        assert!(hold(true, 51, 0, 0));
        assert!(hold(true, 10, 0, 1));
        assert!(!hold(true, 50, 0, 0));
    }

    /// Whatever the backlog does between the limits, the answer does not change.
    #[test]
    fn between_the_limits_it_stays_as_it_is() {
        for was_held in [false, true] {
            for records in 51..100 {
                assert_eq!(hold(was_held, records, 0, 0), was_held, "{records}");
            }
            assert_eq!(hold(was_held, 1, 0, 1), was_held);
        }
    }

    #[test]
    fn limits_the_wrong_way_round_are_named() {
        let mut problems = Vec::new();
        PressureConfig { release_records: 100, hold_s: 30, ..CONFIG }.validate(&mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
        let mut problems = Vec::new();
        PressureConfig::default().validate(&mut problems);
        assert!(problems.is_empty());
    }
}
