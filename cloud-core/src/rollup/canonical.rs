//! From stored copies of events to minute rows: what the rollups *mean*. A rebuild computes this
//! from raw; the stream ([`super::stream`]) must come to the same.
//!
//! An identity is normally one event, whichever copy is looked at. Where copies differ, the one
//! of least precedence – (received_at, gateway, epoch, seq) – counts, and suppresses the others
//! that it reaches. A copy reaches
//!
//! 1. copies whose effective times are no further from its own than the lateness horizon, and
//! 2. if it was clock_ahead, up to [`AHEAD_REACH`] later: copies that were clock_ahead too (a
//!    device that retries with a wrong clock: each copy has its own received time), and copies
//!    with the same timestamp (a retry received once the time had come).
//!
//! Copies further apart count as events of their own: only a device that uses an id twice makes
//! such. So whether a copy counts is decided by what lies near it, and an hour can be computed
//! from the copies within the horizon around it and the clock_ahead ones up to [`AHEAD_REACH`]
//! before. Copies beyond that may be given too; they change nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use penstock_common::event::{Flags, UnixMicros, effective_time};

use super::aggregate::Aggregate;
use super::counted::Metric;
use super::window::{DAY, minute_of};

/// How long after its reception a copy with a clock ahead still suppresses others; µs.
pub const AHEAD_REACH: i64 = DAY;

/// One stored copy of an event of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCopy {
    /// The event's id.
    pub event_id: u128,
    /// What decides between copies.
    pub precedence: Precedence,
    /// The event's timestamp, µs.
    pub event_time: i64,
    /// Its flags.
    pub flags: Flags,
    /// The metrics that count, each once.
    pub metrics: Vec<(Metric, f64)>,
}

/// The order of copies; the fields' order matters. The same record read twice has the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// When the gateway had received it, µs.
    pub received_at: i64,
    /// The gateway.
    pub gateway: Arc<str>,
    /// Its spool's opening.
    pub epoch: i64,
    /// The number in it.
    pub seq: i64,
}

impl StoredCopy {
    /// The time that decides on its minute; µs.
    pub const fn effective_time(&self) -> i64 {
        let received_at = UnixMicros(self.precedence.received_at);
        effective_time(UnixMicros(self.event_time), received_at, self.flags).0
    }

    const fn is_ahead(&self) -> bool {
        self.flags.contains(Flags::CLOCK_AHEAD)
    }
}

/// The minutes of one device, by start and metric, from copies in any order. `lateness` is the
/// horizon in µs.
pub fn minutes(mut copies: Vec<StoredCopy>, lateness: i64) -> BTreeMap<(i64, Metric), Aggregate> {
    let mut minutes: BTreeMap<(i64, Metric), Aggregate> = BTreeMap::new();
    keep_counting(&mut copies, lateness);
    for copy in &copies {
        let minute = minute_of(copy.effective_time());
        for (metric, value) in &copy.metrics {
            minutes.entry((minute, *metric)).or_default().add(*value);
        }
    }
    minutes
}

/// Drops the copies that do not count.
pub fn keep_counting(copies: &mut Vec<StoredCopy>, lateness: i64) {
    copies.sort_unstable_by(|a, b| (a.event_id, &a.precedence).cmp(&(b.event_id, &b.precedence)));
    copies.dedup_by(|a, b| a.event_id == b.event_id && a.precedence == b.precedence);
    let mut counts = Vec::with_capacity(copies.len());
    for group in copies.chunk_by(|a, b| a.event_id == b.event_id) {
        match group {
            [_] => counts.push(true),
            _ => {
                let mut before = Before::default();
                counts.extend(group.iter().map(|copy| {
                    let counts = !before.reaches(copy, lateness);
                    before.insert(copy);
                    counts
                }));
            }
        }
    }
    let mut counts = counts.into_iter();
    copies.retain(|_| counts.next().unwrap_or(true));
}

/// The copies of an identity with less precedence. In sets, so that an id that is used a hundred
/// thousand times takes no longer than as many ids.
#[derive(Default)]
struct Before {
    effective: BTreeSet<i64>,
    ahead: BTreeSet<i64>,
    ahead_by_timestamp: HashMap<i64, BTreeSet<i64>>,
}

impl Before {
    fn reaches(&self, copy: &StoredCopy, lateness: i64) -> bool {
        let at = copy.effective_time();
        let near = at.saturating_sub(lateness)..=at.saturating_add(lateness);
        let earlier = at.saturating_sub(AHEAD_REACH)..=at;
        let any = |times: &BTreeSet<i64>| times.range(earlier).next().is_some();
        self.effective.range(near).next().is_some()
            || if copy.is_ahead() {
                any(&self.ahead)
            } else {
                self.ahead_by_timestamp.get(&copy.event_time).is_some_and(any)
            }
    }

    fn insert(&mut self, copy: &StoredCopy) {
        let at = copy.effective_time();
        self.effective.insert(at);
        if copy.is_ahead() {
            self.ahead.insert(at);
            self.ahead_by_timestamp.entry(copy.event_time).or_default().insert(at);
        }
    }
}

#[cfg(test)]
mod tests;
