//! What a flush writes, and what is forgotten with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::device::Device;
use super::minute::Minute;
use super::part::{DeviceAt, Part};
use super::{Flushed, MINUTE, Stream};
use crate::rollup::aggregate::Aggregate;
use crate::rollup::counted::CountedMetrics;
use crate::store::rollup::{DeviceClose, Mark, MinuteRow};

/// A partition with more records to read is far behind: several seconds of its share of the peak.
const BEHIND_MAX: i64 = 5_000;
/// Open minutes are gone through once in so many µs at most.
const PASS_INTERVAL_MAX: i64 = 5_000_000;

impl Stream {
    /// Everything that must be written now, `now` being the wall clock in µs and `ends` the
    /// partitions' ends as last heard of. What it returns counts as written: if it could not be,
    /// the stream must be cleared, and reading begins again at the rewind points.
    pub fn flush(&mut self, now: i64, ends: &BTreeMap<i32, i64>) -> Flushed {
        let mut flushed = Flushed::default();
        self.shed();
        let (limits, times) = (self.limits, self.limits.times());
        for part in self.parts.values_mut() {
            let is_at_end = ends.get(&part.partition).is_some_and(|end| part.next >= *end);
            let time = part.time(now, is_at_end, limits.idle_step);
            if part.is_refolding() {
                // Its minutes are incomplete; the marks it has are kept with them.
                flushed.rewinds.push((part.partition, part.rewind));
                continue;
            }
            let floor = part.rewind_floor(times.rewind);
            for at in 0..part.devices.len() {
                let device = &mut part.devices[at];
                if device.ids.is_empty() && device.minutes.is_empty() {
                    close(device, part.partition, &mut flushed.closes);
                    continue;
                }
                device.close_by_time(limits.lateness);
                let silent = time.saturating_sub(device.last_append);
                if silent >= times.silent {
                    device.close_all();
                }
                let (forget_all, through) = (silent >= times.forget, device.closed_through);
                part.events -= device.ids.forget_while(|id| {
                    forget_all || !Device::needs(id.minute, limits.lateness, through)
                });
                if device.ids.first().is_some_and(|first| first.offset < floor) {
                    let old = device.ids.iter().take_while(|id| id.offset < floor).count();
                    part.give_up(at as DeviceAt, old, &limits, &self.shapes);
                }
                let device = &mut part.devices[at];
                let closed = device.closed();
                for minute in device.minutes.drain(..closed).collect::<Vec<_>>() {
                    if minute.is_changed() {
                        let mut rows = Rows::new(&self.shapes, &self.metrics, &mut self.scratch);
                        rows.push(device, &minute, &mut flushed.rows);
                    }
                }
                close(device, part.partition, &mut flushed.closes);
            }
            part.rewind = part
                .devices
                .iter()
                .filter_map(|device| device.ids.first())
                .fold(part.next, |least, id| least.min(id.offset));
            flushed.rewinds.push((part.partition, part.rewind));
            take_marks(part, &mut flushed.marks);
        }
        self.closing_rows = 0;
        self.write_open(now, ends, &mut flushed);
        flushed
    }

    /// Over the limit in all, every device gives up its older half.
    fn shed(&mut self) {
        if self.events() <= self.limits.events_max {
            return;
        }
        for part in self.parts.values_mut() {
            for at in 0..part.devices.len() {
                let half = part.devices[at].ids.len().div_ceil(2);
                if half > 0 {
                    part.give_up(at as DeviceAt, half, &self.limits, &self.shapes);
                }
            }
        }
    }

    /// Open minutes that have ended and changed, as far as there is room. Not those of a partition
    /// that is far behind: they would be written again and again, and none would be fresh.
    fn write_open(&mut self, now: i64, ends: &BTreeMap<i32, i64>, flushed: &mut Flushed) {
        let interval = (self.limits.provisional_delay / 2).min(PASS_INTERVAL_MAX);
        let begin = match self.pass_at.take() {
            Some(at) => at,
            None if now.saturating_sub(self.pass_began) < interval => return,
            None => {
                self.pass_began = now;
                (i32::MIN, 0)
            }
        };
        let ended = now - self.limits.provisional_delay - MINUTE;
        for (partition, part) in self.parts.range_mut(begin.0..) {
            let behind = ends.get(partition).map_or(0, |end| end.saturating_sub(part.next));
            if part.is_refolding() || behind > BEHIND_MAX {
                continue;
            }
            let first = if *partition == begin.0 { begin.1 } else { 0 };
            for at in first..part.devices.len() {
                if flushed.rows.len() >= self.limits.flush_rows {
                    self.pass_at = Some((*partition, at));
                    flushed.more = true;
                    return;
                }
                let device = &mut part.devices[at];
                for index in 0..device.minutes.len() {
                    let minute = &device.minutes[index];
                    if minute.start <= ended && minute.is_changed() {
                        let mut rows = Rows::new(&self.shapes, &self.metrics, &mut self.scratch);
                        rows.push(device, minute, &mut flushed.rows);
                        device.minutes[index].set_written();
                    }
                }
            }
        }
    }
}

/// Notes how far a device has closed, if that is news.
fn close(device: &mut Device, partition: i32, closes: &mut Vec<DeviceClose>) {
    if device.closed_through > device.stored_through {
        device.stored_through = device.closed_through;
        closes.push(DeviceClose {
            fleet: Arc::clone(&device.fleet),
            device: Arc::clone(&device.name),
            partition,
            closed_through: device.closed_through,
        });
    }
}

fn take_marks(part: &mut Part, marks: &mut Vec<Mark>) {
    for ((at, hour), marked) in std::mem::take(&mut part.marks) {
        let device = &part.devices[at as usize];
        marks.push(Mark {
            fleet: Arc::clone(&device.fleet),
            device: Arc::clone(&device.name),
            hour,
            partition: part.partition,
            event_offset: Some(marked.event_offset),
            replay_offset: None,
            ready_through: marked.ready_through,
            done_through: marked.done_through,
            reason: marked.reason,
        });
    }
}

/// Makes rows of a minute.
struct Rows<'a> {
    shapes: &'a super::Shapes,
    metrics: &'a CountedMetrics,
    scratch: &'a mut [Aggregate],
}

impl<'a> Rows<'a> {
    const fn new(
        shapes: &'a super::Shapes,
        metrics: &'a CountedMetrics,
        scratch: &'a mut [Aggregate],
    ) -> Self {
        Self { shapes, metrics, scratch }
    }

    fn push(&mut self, device: &Device, minute: &Minute, rows: &mut Vec<MinuteRow>) {
        minute.aggregates(self.shapes, self.scratch, |metric, aggregate| {
            rows.push(MinuteRow {
                fleet: Arc::clone(&device.fleet),
                device: Arc::clone(&device.name),
                metric: Arc::clone(self.metrics.name(metric)),
                minute: minute.start,
                aggregate,
                last_offset: minute.last_offset,
            });
        });
    }
}
