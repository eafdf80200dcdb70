//! Random fleets, orders, failures and limits: in the end every row is what it means.
//!
//! `PENSTOCK_TEST_SEED=n` replays one run, `PENSTOCK_TEST_CASES=n` makes so many.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_common::event::{Flags, UnixMicros};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{Record, Store, expected};
use crate::rollup::canonical::{Precedence, StoredCopy};
use crate::rollup::stream::Limits;
use crate::rollup::window::{HOUR, MINUTE};

const SECOND: i64 = 1_000_000;
/// An hour that none of the devices' times begins with.
const EPOCH: i64 = 1_767_312_000_000_000 - 17 * MINUTE;

#[test]
fn in_the_end_every_row_is_what_it_means() {
    if let Some(seed) = number("PENSTOCK_TEST_SEED") {
        return Case::new(seed).run();
    }
    let first: u64 = rand::random::<u32>().into();
    for seed in (first..).take(number("PENSTOCK_TEST_CASES").unwrap_or(400) as usize) {
        println!("PENSTOCK_TEST_SEED={seed}");
        Case::new(seed).run();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

struct Case {
    rng: StdRng,
    limits: Limits,
    log: Vec<Vec<Record>>,
    /// How far raw has come.
    raw: BTreeMap<i32, usize>,
    /// Ids are used twice: then no device may fall silent for long (a documented limit).
    conflicts: bool,
}

/// How often things go wrong, in percent.
struct Rates {
    late: u32,
    ahead: u32,
    copies: u32,
    conflicts: u32,
    gaps: u32,
    gateway_ahead: u32,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let lateness = [MINUTE, 10 * MINUTE, 10 * MINUTE, HOUR][rng.random_range(0..4)];
        let mut often =
            |most: u32| if rng.random_bool(0.5) { 0 } else { rng.random_range(0..most) };
        let rates = Rates {
            late: often(15),
            ahead: often(15),
            copies: often(40),
            conflicts: often(10),
            gaps: often(4),
            gateway_ahead: often(3),
        };
        let limits = Limits {
            lateness,
            provisional_delay: rng.random_range(0..60) * SECOND,
            idle_step: 100 * HOUR,
            flush_rows: [3, 100, 100_000][rng.random_range(0..3)],
            events_max: [60, 100_000, 100_000][rng.random_range(0..3)],
            device_events_max: [15, 100_000, 100_000][rng.random_range(0..3)],
        };
        // Which of the copies that differ counts is lost when there is no room for them.
        let is_roomy = limits.events_max > 1_000 && limits.device_events_max > 1_000;
        let conflicts = rates.conflicts > 0 && is_roomy;
        let mut case = Self { rng, limits, log: Vec::new(), raw: BTreeMap::new(), conflicts };
        case.log = case.make_log(&rates);
        case
    }

    fn make_log(&mut self, rates: &Rates) -> Vec<Vec<Record>> {
        let partitions = self.rng.random_range(1..4);
        let mut log = vec![Vec::new(); partitions];
        for device in 0..self.rng.random_range(1..6) {
            let fleet = ["f", "g"][self.rng.random_range(0..2)];
            let records = self.device(fleet, format!("d{device}"), rates);
            log[device % partitions].extend(records);
        }
        for records in &mut log {
            records.sort_by_key(|record| record.append_time);
        }
        log
    }

    fn device(&mut self, fleet: &'static str, device: String, rates: &Rates) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        let mut now = EPOCH + self.rng.random_range(0..20 * 60) * SECOND;
        let interval = self.rng.random_range(5..if self.conflicts { 60 } else { 120 });
        let events = self.rng.random_range(1..150);
        for number in 0..events {
            now += self.rng.random_range(interval / 2..interval * 2) * SECOND;
            let rng = &mut self.rng;
            if rng.random_ratio(rates.gaps, 100) && !self.conflicts {
                now += rng.random_range(0..90) * MINUTE;
            }
            let mut event_time = now;
            if rng.random_ratio(rates.late, 100) {
                event_time -= rng.random_range(0..100) * MINUTE;
            } else if rng.random_ratio(rates.ahead, 100) {
                event_time += rng.random_range(1..120) * MINUTE;
            }
            let mut received_at = now + rng.random_range(0..3) * SECOND;
            if rng.random_ratio(rates.gateway_ahead, 100) {
                received_at += rng.random_range(0..90) * MINUTE;
            }
            let delay =
                [1, 1, 1, 60, if self.conflicts { 60 } else { 1800 }][rng.random_range(0..5)];
            let mut append_time = now + rng.random_range(0..=delay) * SECOND;
            let event_id = u128::from(rng.random::<u64>());
            let mut body = u64::from(rng.random::<u32>());
            let mut value = f64::from(rng.random_range(-100..100)) * 0.1;
            records.push(self.record(
                (fleet, &device),
                (event_id, body, value),
                number,
                (event_time, received_at, append_time),
            ));
            while self.rng.random_ratio(rates.copies, 100) {
                let rng = &mut self.rng;
                // Which copy was received first and which comes first are two things.
                received_at += rng.random_range(-20 * 60..40 * 60) * SECOND;
                append_time += rng.random_range(0..60 * 60) * SECOND;
                if self.conflicts && rng.random_ratio(rates.conflicts, 20) {
                    let most = [2, 30][rng.random_range(0..2)];
                    event_time += rng.random_range(-most..most) * MINUTE;
                    body += 1;
                    value += 1.0;
                }
                records.push(self.record(
                    (fleet, &device),
                    (event_id, body, value),
                    number,
                    (event_time, received_at, append_time),
                ));
            }
        }
        if self.conflicts {
            self.end_at_silence(&mut records);
        }
        records
    }

    /// Nothing after the first long gap, nor once the device's own time has stood still for so
    /// long that ids are given up: what comes then is a documented limit.
    fn end_at_silence(&self, records: &mut Vec<Record>) {
        records.sort_by_key(|record| record.append_time);
        let longest = self.limits.times().forget - MINUTE;
        // An id is needed for two horizons behind the device's time, and some minutes.
        let behind_max = self.limits.times().rewind - 2 * self.limits.lateness - 3 * MINUTE;
        let (mut shown, mut last) = (i64::MIN, None);
        let end = records.iter().position(|record| {
            let append = record.append_time;
            let is_gap = last.is_some_and(|last| append - last >= longest);
            let stands_still = last.is_some() && append.saturating_sub(shown) > behind_max;
            last = Some(append);
            if !record.copy.flags.contains(Flags::CLOCK_AHEAD) {
                shown = shown.max(record.copy.event_time);
            }
            is_gap || stands_still
        });
        records.truncate(end.unwrap_or(records.len()));
    }

    fn record(
        &mut self,
        (fleet, device): (&'static str, &str),
        (event_id, body, value): (u128, u64, f64),
        seq: i64,
        (event_time, received_at, append_time): (i64, i64, i64),
    ) -> Record {
        let gateway = Arc::from(["x", "y"][self.rng.random_range(0..2)]);
        let mut metrics = vec![(0, value), (1, value * 1e10), (2, -0.0)];
        metrics.truncate((body % 4) as usize);
        let copy = StoredCopy {
            event_id,
            precedence: Precedence {
                received_at,
                gateway,
                epoch: self.rng.random_range(0..9),
                seq,
            },
            event_time,
            flags: Flags::of_times(UnixMicros(event_time), UnixMicros(received_at)),
            metrics,
        };
        Record { append_time, fleet, device: device.to_owned(), copy, body }
    }

    fn run(mut self) {
        let partitions = self.log.len();
        let mut store = Store::default();
        let (mut stream, mut read) = store.begin(self.limits, partitions);
        let mut now = EPOCH;
        let jump = if self.conflicts { SECOND } else { 20 * MINUTE };
        let crashes = [0, 1, 4, 12][self.rng.random_range(0..4)];
        let batch = [4, 10, 40][self.rng.random_range(0..3)];
        loop {
            let left: Vec<i32> = (0..partitions as i32)
                .filter(|p| (read[p] as usize) < self.log[*p as usize].len())
                .collect();
            match self.rng.random_range(0..20) {
                0 => now += self.rng.random_range(0..jump),
                1 if self.rng.random_ratio(crashes, 24) => {
                    (stream, read) = store.begin(self.limits, partitions);
                }
                2 => self.rebuild(&mut store, false),
                3 | 4 => self.flush(&mut stream, &mut store, &read, now),
                _ if left.is_empty() => break,
                _ => {
                    let partition = left[self.rng.random_range(0..left.len())];
                    for _ in 0..self.rng.random_range(1..batch) {
                        let offset = read[&partition];
                        let Some(record) = self.log[partition as usize].get(offset as usize) else {
                            break;
                        };
                        now = now.max(record.append_time - HOUR);
                        stream.hold(&record.event(partition, offset));
                        read.insert(partition, offset + 1);
                        if stream.is_full() {
                            self.flush(&mut stream, &mut store, &read, now);
                        }
                    }
                }
            }
        }
        // Everything falls silent, closes, is forgotten and rebuilt.
        for _ in 0..4 {
            now += self.limits.times().forget;
            self.flush(&mut stream, &mut store, &read, now);
            self.rebuild(&mut store, false);
        }
        assert!(stream.is_idle(), "{:?}", stream.size());
        for (partition, position) in &store.positions {
            let end = self.log[*partition as usize].len() as i64;
            assert_eq!(*position, (end, end));
        }
        self.rebuild(&mut store, true);
        let roomy = self.limits.events_max > 1_000 && self.limits.device_events_max > 1_000;
        assert!(!roomy || store.refused == 0, "{} rows were refused", store.refused);
        let expected = expected(&self.log, self.limits.lateness);
        let rows: BTreeMap<_, _> =
            store.rows.into_iter().map(|(key, (bytes, _))| (key, bytes)).collect();
        for (key, bytes) in &expected {
            assert_eq!(rows.get(key), Some(bytes), "{key:?}");
        }
        let unexpected: Vec<_> = rows.keys().filter(|key| !expected.contains_key(*key)).collect();
        assert!(unexpected.is_empty(), "rows that must not be there: {unexpected:?}");
    }

    fn flush(
        &mut self,
        stream: &mut crate::rollup::stream::Stream,
        store: &mut Store,
        read: &BTreeMap<i32, i64>,
        now: i64,
    ) {
        // Where the log ends as far as the consumer has heard: perhaps exactly where it stands.
        let end = |(p, next): (&i32, &i64)| {
            let end = self.log[*p as usize].len() as i64;
            (*p, if next % 3 == 0 && !self.conflicts { *next } else { end })
        };
        let ends = read.iter().map(end).collect();
        loop {
            let flushed = stream.flush(now, &ends);
            let more = flushed.more;
            store.apply(flushed, read);
            if !more {
                return;
            }
        }
    }

    fn rebuild(&mut self, store: &mut Store, all: bool) {
        let ends: Vec<usize> = self.log.iter().map(Vec::len).collect();
        let (rng, raw) = (&mut self.rng, &mut self.raw);
        store.rebuild(&self.log, self.limits.lateness, all, |partition, needed| {
            let end = ends[partition as usize];
            let raw = raw.entry(partition).or_default();
            *raw = (*raw).max(needed as usize);
            *raw = if all { end } else { rng.random_range(*raw..=end) };
            *raw
        });
    }
}
