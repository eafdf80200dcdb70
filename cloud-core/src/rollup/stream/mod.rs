//! The stream: events as they are read in, minute rows out. A pure state machine: records, the
//! time and the ends of the partitions are arguments.
//!
//! **Windows.** A device's minute takes events until the device has shown a time one lateness
//! horizon after the minute's end; then it closes, for good. The minutes of a device that has
//! fallen silent close after the horizon and a little more, by the bus's clock. An event for a
//! closed minute is *late*: its hour is marked, and a rebuild counts it. So nothing waits for a
//! device that lags, and nothing is ever left out.
//!
//! **Copies.** Ids are remembered until no copy can fall into an open minute and still be one
//! with them: a horizon behind the last closed minute. What the stream can't decide – copies with
//! other bytes, clocks that are ahead – it counts as it can, and marks the hours concerned.
//! `canonical.rs` has the last word on them. One thing escapes it: when ids had to be forgotten
//! early, after a silence of [`Times::forget`] or for want of room, a copy with *other bytes* may
//! be taken for a new event until its hour is rebuilt for another reason.
//!
//! **Restarts.** Nothing here outlives the process but what a flush has written: rows, how far
//! each device has closed, marks, positions, and with each position the *rewind point*: the
//! offset of the oldest event still remembered. Reading begins there. Events before the position
//! fold into minutes that are open in the store and are otherwise already dealt with. No row is
//! written and nothing closes before the position is reached, since every minute is incomplete
//! until then.
//!
//! **Bounds.** Over the limits for remembered events, or when a device's clock stands still and
//! would hold the rewind point back, the oldest events are given up: their minutes close early,
//! and all that they could still have influenced is marked.

use std::collections::BTreeMap;

use penstock_common::event::Flags;

use self::part::Part;
use self::shapes::Shapes;
use super::aggregate::Aggregate;
use super::counted::{CountedMetrics, Metric};
use super::window::MINUTE;
use crate::store::rollup::{DeviceClose, Mark, MinuteRow};

mod device;
mod flush;
mod ids;
mod minute;
mod part;
mod shapes;

/// What the stream is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The lateness horizon, µs.
    pub lateness: i64,
    /// A minute is written so long after its end, µs.
    pub provisional_delay: i64,
    /// A flush has about so many rows at most.
    pub flush_rows: usize,
    /// Events remembered at most, in all.
    pub events_max: usize,
    /// Events remembered at most of one device.
    pub device_events_max: usize,
}

/// Times that follow from the horizon, µs.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A device that sent nothing for so long is silent: its minutes close.
    pub silent: i64,
    /// After so long without an event a device's ids are forgotten.
    pub forget: i64,
    /// Nothing is remembered for longer than this.
    pub rewind: i64,
}

impl Limits {
    /// What follows from the horizon.
    pub fn times(&self) -> Times {
        let slack = self.lateness.min(MINUTE);
        Times {
            silent: self.lateness + slack,
            forget: 2 * self.lateness + slack,
            rewind: 4 * self.lateness + 10 * MINUTE,
        }
    }
}

/// An event that was read. Times in µs since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When the bus got it.
    pub append_time: i64,
    /// Its fleet.
    pub fleet: &'a str,
    /// Its device.
    pub device: &'a str,
    /// Its id.
    pub event_id: u128,
    /// A hash of its bytes: equal for equal bytes, within one process.
    pub body: u64,
    /// The schema version that admitted it.
    pub schema_version: u32,
    /// When the gateway had received it.
    pub received_at: i64,
    /// Its timestamp.
    pub event_time: i64,
    /// Its flags.
    pub flags: Flags,
    /// The metrics that count, ascending, each once; finite.
    pub metrics: &'a [(Metric, f64)],
}

impl Event<'_> {
    const fn is_ahead(&self) -> bool {
        self.flags.contains(Flags::CLOCK_AHEAD)
    }

    /// What decides on its minute.
    const fn effective_time(&self) -> i64 {
        if self.is_ahead() { self.received_at } else { self.event_time }
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It counts in its minute.
    Counted,
    /// A copy of one that counts.
    Duplicate,
    /// Its id was used by an event with other bytes: both hours are marked.
    Conflict,
    /// Its minute has closed: its hour is marked.
    Late,
    /// It claims a time that the bus has not reached: its hour is marked.
    AheadOfBus,
    /// Read again after a restart, and dealt with before.
    Again,
}

/// A partition at the beginning of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The partition.
    pub partition: i32,
    /// Effects begin here: what is before is stored.
    pub position: i64,
    /// Reading begins here, at or before the position.
    pub read_from: i64,
    /// Whether records were deleted that an open minute may have had.
    pub incomplete: bool,
}

/// What a flush writes.
#[derive(Debug, Default, PartialEq)]
pub struct Flushed {
    /// Minutes that changed.
    pub rows: Vec<MinuteRow>,
    /// Devices whose minutes closed.
    pub closes: Vec<DeviceClose>,
    /// Hours that must be rebuilt.
    pub marks: Vec<Mark>,
    /// Where reading must begin again after a restart, by partition.
    pub rewinds: Vec<(i32, i64)>,
    /// There is more to write: flush again soon.
    pub more: bool,
}

/// The size of what is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Devices known.
    pub devices: usize,
    /// Open minutes.
    pub minutes: usize,
    /// Events remembered.
    pub events: usize,
    /// Memory, about.
    pub bytes: usize,
}

/// The state machine, for the partitions of one consumer.
pub struct Stream {
    limits: Limits,
    metrics: CountedMetrics,
    shapes: Shapes,
    parts: BTreeMap<i32, Part>,
    /// One place for each metric, empty between calls.
    scratch: Vec<Aggregate>,
    /// Rows of minutes that have closed since the last flush, about.
    closing_rows: usize,
    /// When open minutes were last gone through, and where that stopped for want of room.
    pass_began: i64,
    pass_at: Option<(i32, usize)>,
}

impl Stream {
    /// Without any partition.
    pub fn new(limits: Limits, metrics: CountedMetrics) -> Self {
        let scratch = vec![Aggregate::new(); metrics.len()];
        Self {
            limits,
            metrics,
            shapes: Shapes::default(),
            parts: BTreeMap::new(),
            scratch,
            closing_rows: 0,
            pass_began: i64::MIN,
            pass_at: None,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.limits, self.metrics.clone());
    }

    /// Begins partitions, with what the store knows of their devices.
    pub fn assign(&mut self, starts: &[Start], devices: Vec<DeviceClose>) {
        for start in starts {
            self.parts.insert(start.partition, Part::new(start));
        }
        for device in devices {
            if let Some(part) = self.parts.get_mut(&device.partition) {
                part.restore(device);
            }
        }
    }

    /// Takes an event. Offsets ascend within a partition; one that is not ours is passed over.
    pub fn hold(&mut self, event: &Event<'_>) -> Held {
        let Some(part) = self.parts.get_mut(&event.partition) else { return Held::Again };
        let before = part.closed_rows;
        let held = part.hold(event, &self.limits, &mut self.shapes);
        self.closing_rows += part.closed_rows - before;
        held
    }

    /// Notes that everything before this offset was read, whatever it was.
    pub fn passed(&mut self, partition: i32, append_time: i64, next: i64) {
        if let Some(part) = self.parts.get_mut(&partition) {
            part.passed(append_time, next);
        }
    }

    /// Whether a flush should come before more is taken.
    pub fn is_full(&self) -> bool {
        self.closing_rows >= self.limits.flush_rows
            || self.marks() >= self.limits.flush_rows
            || self.events() > self.limits.events_max
    }

    /// Whether anything but the passing of time calls for a flush: what is open, or unwritten.
    pub fn is_idle(&self) -> bool {
        self.parts.values().all(|part| {
            part.marks.is_empty()
                && part.devices.iter().all(|d| d.minutes.is_empty() && d.ids.is_empty())
        })
    }

    /// Marks that a flush would take.
    fn marks(&self) -> usize {
        let parts = self.parts.values().filter(|part| !part.is_refolding());
        parts.map(|part| part.marks.len()).sum()
    }

    fn events(&self) -> usize {
        self.parts.values().map(|part| part.events).sum()
    }

    /// The size of what is in memory. Goes through all devices.
    pub fn size(&self) -> Size {
        let mut size = Size::default();
        for device in self.parts.values().flat_map(|part| &part.devices) {
            size.devices += 1;
            size.minutes += device.minutes.len();
            size.events += device.ids.len();
            // The device, its name, and its place in the map.
            size.bytes += size_of::<device::Device>() + 2 * device.name.len() + 64;
            size.bytes += device.heap_bytes();
        }
        size
    }
}

#[cfg(test)]
mod tests;
