//! A store in memory with the rules of the real one, and a rebuild that computes marked hours
//! from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::rollup::canonical::{self, Precedence, StoredCopy};
use crate::rollup::counted::{CountedMetrics, Metric};
use crate::rollup::stream::{Event, Flushed, Limits, Start, Stream};
use crate::rollup::window::{HOUR, MINUTE, hour_of};
use crate::store::rollup::{DeviceClose, Mark, MinuteRow};

/// A record of the log; its offset is its place.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub append_time: i64,
    pub fleet: &'static str,
    pub device: String,
    pub copy: StoredCopy,
    pub body: u64,
}

impl Record {
    pub(super) fn event(&self, partition: i32, offset: i64) -> Event<'_> {
        Event {
            partition,
            offset,
            append_time: self.append_time,
            fleet: self.fleet,
            device: &self.device,
            event_id: self.copy.event_id,
            body: self.body,
            schema_version: 1,
            received_at: self.copy.precedence.received_at,
            event_time: self.copy.event_time,
            flags: self.copy.flags,
            metrics: &self.copy.metrics,
        }
    }
}

pub(super) fn copy(event_id: u128, received_at: i64, event_time: i64, value: f64) -> StoredCopy {
    use penstock_common::event::{Flags, UnixMicros};
    StoredCopy {
        event_id,
        precedence: Precedence { received_at, gateway: Arc::from("g"), epoch: 1, seq: 0 },
        event_time,
        flags: Flags::of_times(UnixMicros(event_time), UnixMicros(received_at)),
        metrics: vec![(0, value), (1, -value)],
    }
}

pub(super) fn metrics() -> CountedMetrics {
    CountedMetrics::from_versions([(1, ["a", "b", "c"])])
}

/// Fleet and device.
pub(super) type Name = (String, String);

/// What is stored.
#[derive(Clone, Default)]
pub(super) struct Store {
    pub rows: BTreeMap<(Name, i64, String), (Vec<u8>, i64)>,
    pub closes: BTreeMap<Name, DeviceClose>,
    pub marks: BTreeMap<(Name, i64), Mark>,
    /// Position and rewind point.
    pub positions: BTreeMap<i32, (i64, i64)>,
    pub refused: usize,
}

impl Store {
    /// One flush, with what was read; all or nothing.
    pub(super) fn apply(&mut self, flushed: Flushed, read: &BTreeMap<i32, i64>) {
        for mark in flushed.marks {
            self.mark(mark);
        }
        for row in flushed.rows {
            self.row(row);
        }
        for close in flushed.closes {
            let name = (close.fleet.to_string(), close.device.to_string());
            if let Some(before) = self.closes.get(&name) {
                assert!(before.closed_through < close.closed_through, "closed twice: {close:?}");
            }
            self.closes.insert(name, close);
        }
        for (partition, rewind) in flushed.rewinds {
            let position = self.positions.entry(partition).or_default();
            let next = read[&partition].max(position.0);
            assert!(rewind <= next && position.1 <= rewind, "{partition}: {rewind} of {next}");
            *position = (next, rewind);
        }
    }

    fn row(&mut self, row: MinuteRow) {
        let name = (row.fleet.to_string(), row.device.to_string());
        let closed = self.closes.get(&name).map_or(i64::MIN, |close| close.closed_through);
        assert!(row.minute >= closed, "a closed minute is written again: {row:?}");
        let key = (name, row.minute, row.metric.to_string());
        let stored = self.rows.get(&key);
        if stored.is_some_and(|(_, last_offset)| *last_offset > row.last_offset) {
            self.refused += 1;
            let through = row.minute + MINUTE;
            self.mark(Mark {
                fleet: row.fleet,
                device: row.device,
                hour: hour_of(row.minute),
                partition: 0,
                event_offset: None,
                replay_offset: None,
                ready_through: through,
                done_through: through,
                reason: "coverage",
            });
            return;
        }
        self.rows.insert(key, (row.aggregate.encode(), row.last_offset));
    }

    fn mark(&mut self, mark: Mark) {
        let key = ((mark.fleet.to_string(), mark.device.to_string()), mark.hour);
        let known = self.marks.entry(key).or_insert_with(|| mark.clone());
        known.event_offset = known.event_offset.max(mark.event_offset);
        known.ready_through = known.ready_through.min(mark.ready_through);
        known.done_through = known.done_through.max(mark.done_through);
    }

    /// Works on the marks that are ready, or on all. `raw` says how far raw has come by
    /// partition, given how far it must have.
    pub(super) fn rebuild(
        &mut self,
        log: &[Vec<Record>],
        lateness: i64,
        all: bool,
        mut raw: impl FnMut(i32, i64) -> usize,
    ) {
        let keys: Vec<(Name, i64)> = self.marks.keys().cloned().collect();
        for (name, hour) in keys {
            let mark = self.marks[&(name.clone(), hour)].clone();
            let closed = self.closes.get(&name).map_or(i64::MIN, |close| close.closed_through);
            let closed = if all { i64::MAX } else { closed };
            if closed < mark.ready_through {
                continue;
            }
            let is_due =
                |minute: i64| (hour..hour + HOUR).contains(&minute) && minute + MINUTE <= closed;
            let hours = self.rows.range((name.clone(), hour, String::new())..);
            let hours =
                hours.take_while(|((other, minute, _), _)| *other == name && *minute < hour + HOUR);
            let counted = hours.map(|(_, (_, last_offset))| *last_offset).max();
            let needed = mark.event_offset.max(counted).unwrap_or(-1) + 1;
            // A refused row does not say which partition it came from.
            let is_of = |record: &Record| record.fleet == name.0 && record.device == name.1;
            let Some(partition) = log.iter().position(|records| records.iter().any(is_of)) else {
                panic!("{name:?} has a mark and no record");
            };
            let upto = raw(partition as i32, needed);
            let copies = copies_of(&log[partition][..upto], &name);
            let fresh = minutes(copies, lateness);
            let before = std::mem::take(&mut self.rows);
            let mut last_offsets = BTreeMap::new();
            for (key, row) in before {
                if key.0 == name && is_due(key.1) {
                    last_offsets.insert(key, row.1);
                } else {
                    self.rows.insert(key, row);
                }
            }
            for ((minute, metric), bytes) in fresh {
                if is_due(minute) {
                    let key = (name.clone(), minute, metric);
                    let last_offset = last_offsets.get(&key).copied().unwrap_or(-1);
                    self.rows.insert(key, (bytes, last_offset));
                }
            }
            if closed >= mark.done_through {
                self.marks.remove(&(name, hour));
            } else if let Some(mark) = self.marks.get_mut(&(name, hour)) {
                mark.ready_through = mark.done_through;
            }
        }
    }

    /// A new stream that goes on from here.
    pub(super) fn begin(&self, limits: Limits, partitions: usize) -> (Stream, BTreeMap<i32, i64>) {
        let mut stream = Stream::new(limits, metrics());
        let mut read = BTreeMap::new();
        let mut starts = Vec::new();
        for partition in 0..partitions as i32 {
            let (position, read_from) = self.positions.get(&partition).copied().unwrap_or_default();
            starts.push(Start { partition, position, read_from, incomplete: false });
            read.insert(partition, read_from);
        }
        stream.assign(&starts, self.closes.values().cloned().collect());
        (stream, read)
    }
}

pub(super) fn copies_of(log: &[Record], (fleet, device): &Name) -> Vec<StoredCopy> {
    let of_device = log.iter().filter(|r| r.fleet == fleet && r.device == *device);
    of_device.map(|record| record.copy.clone()).collect()
}

fn minutes(copies: Vec<StoredCopy>, lateness: i64) -> BTreeMap<(i64, String), Vec<u8>> {
    let name = |metric: Metric| metrics().name(metric).to_string();
    canonical::minutes(copies, lateness)
        .into_iter()
        .map(|((minute, metric), row)| ((minute, name(metric)), row.encode()))
        .collect()
}

/// What the rows must be in the end.
pub(super) fn expected(
    log: &[Vec<Record>],
    lateness: i64,
) -> BTreeMap<(Name, i64, String), Vec<u8>> {
    let mut expected = BTreeMap::new();
    for partition in log {
        let mut names: Vec<Name> =
            partition.iter().map(|r| (r.fleet.to_owned(), r.device.clone())).collect();
        names.sort();
        names.dedup();
        for name in names {
            for ((minute, metric), bytes) in minutes(copies_of(partition, &name), lateness) {
                expected.insert((name.clone(), minute, metric), bytes);
            }
        }
    }
    expected
}
