//! One partition: its devices, and the hours that must be rebuilt.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::device::Device;
use super::ids::Remembered;
use super::shapes::Shapes;
use super::{Event, Held, Limits, MINUTE, Start};
use crate::rollup::canonical::AHEAD_REACH;
use crate::rollup::window::{HOUR, hour_of, minute_of};
use crate::store::rollup::DeviceClose;

/// A device, by its place.
pub(super) type DeviceAt = u32;

/// An hour to be rebuilt; the fields are those of [`crate::store::rollup::Mark`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Marked {
    pub event_offset: i64,
    pub ready_through: i64,
    pub done_through: i64,
    pub reason: &'static str,
}

struct Heard {
    next: i64,
    at: i64,
    idle: i64,
}

/// A partition that is ours.
pub(super) struct Part {
    /// Its number.
    pub partition: i32,
    /// What is before is stored.
    position: i64,
    /// The next offset to be read.
    pub next: i64,
    /// As the store has it.
    pub rewind: i64,
    incomplete: bool,
    /// The bus's newest time.
    time: i64,
    /// How far it had been read at the last flush, when that was, and for how long before it had
    /// stood at its end.
    heard: Heard,
    /// The first offset of each minute of the bus's time.
    timeline: VecDeque<(i64, i64)>,
    /// Events remembered.
    pub events: usize,
    /// Rows of minutes that have closed, about; only grows.
    pub closed_rows: usize,
    /// Devices, those without an event too.
    pub devices: Vec<Device>,
    by_name: HashMap<Arc<str>, HashMap<Arc<str>, DeviceAt, RandomState>, RandomState>,
    /// By device and hour.
    pub marks: BTreeMap<(DeviceAt, i64), Marked>,
}

impl Part {
    pub(super) fn new(start: &Start) -> Self {
        Self {
            partition: start.partition,
            position: start.position,
            next: start.read_from,
            rewind: start.read_from,
            incomplete: start.incomplete,
            time: i64::MIN,
            heard: Heard { next: i64::MIN, at: i64::MIN, idle: 0 },
            timeline: VecDeque::new(),
            events: 0,
            closed_rows: 0,
            devices: Vec::new(),
            by_name: HashMap::default(),
            marks: BTreeMap::new(),
        }
    }

    /// Puts back what the store knows of a device.
    pub(super) fn restore(&mut self, known: DeviceClose) {
        let at = self.device(&known.fleet, &known.device);
        let device = &mut self.devices[at as usize];
        device.closed_through = known.closed_through;
        device.stored_through = known.closed_through;
    }

    fn device(&mut self, fleet: &str, name: &str) -> DeviceAt {
        if let Some(at) = self.by_name.get(fleet).and_then(|devices| devices.get(name)) {
            return *at;
        }
        let at = self.devices.len() as DeviceAt;
        let fleet = match self.by_name.get_key_value(fleet) {
            Some((fleet, _)) => Arc::clone(fleet),
            None => Arc::from(fleet),
        };
        let name: Arc<str> = name.into();
        let devices = self.by_name.entry(Arc::clone(&fleet)).or_default();
        devices.insert(Arc::clone(&name), at);
        self.devices.push(Device::new(fleet, name, i64::MIN));
        at
    }

    /// Whether what was stored before a restart is still being read again.
    pub(super) const fn is_refolding(&self) -> bool {
        self.next < self.position
    }

    pub(super) fn passed(&mut self, append_time: i64, next: i64) {
        self.next = self.next.max(next);
        self.time = self.time.max(append_time);
        let minute = minute_of(append_time);
        if self.timeline.back().is_none_or(|(last, _)| *last < minute) {
            self.timeline.push_back((minute, next - 1));
        }
    }

    /// The bus's time, which goes on while nothing comes and we stand at the end. It is told by
    /// durations alone: our clock and the bus's may differ. One longer than `step` was no
    /// waiting: a store was away, or the clock was set.
    pub(super) fn time(&mut self, now: i64, is_at_end: bool, step: i64) -> i64 {
        let idle = if self.heard.next == self.next && is_at_end {
            self.heard.idle + now.saturating_sub(self.heard.at).clamp(0, step)
        } else {
            0
        };
        self.heard = Heard { next: self.next, at: now, idle };
        self.time.saturating_add(idle)
    }

    /// Offsets before this may be needed no more.
    pub(super) fn rewind_floor(&mut self, longest: i64) -> i64 {
        while self
            .timeline
            .front()
            .is_some_and(|(minute, _)| *minute < self.time.saturating_sub(longest))
        {
            self.timeline.pop_front();
        }
        self.timeline.front().map_or(i64::MIN, |(_, offset)| *offset)
    }

    pub(super) fn hold(&mut self, event: &Event<'_>, limits: &Limits, shapes: &mut Shapes) -> Held {
        let stored = event.offset < self.position;
        self.passed(event.append_time, event.offset + 1);
        let at = self.device(event.fleet, event.device);
        let (time, lateness) = (event.effective_time(), limits.lateness);
        let minute = minute_of(time);
        let device = &mut self.devices[at as usize];
        device.last_append = device.last_append.max(event.append_time);
        if !device.seen {
            device.seen = true;
            if self.incomplete {
                // What was deleted may have been up to a horizon before or after.
                let (from, to) = (minute_of(time - lateness), minute_of(time + lateness));
                self.mark(at, (from, to), event.offset, "log_start");
            }
        }
        if event.is_ahead() && !stored {
            self.mark_ahead(at, event);
        }
        if time > event.append_time.saturating_add(lateness) {
            // It must not close what the device has yet to send.
            if !stored {
                let around = (minute_of(time - lateness), minute_of(time + lateness));
                self.mark(at, around, event.offset, "ahead_of_bus");
            }
            return Held::AheadOfBus;
        }
        self.advance(at, event, stored, limits, shapes);
        let held = self.decide(at, event, minute, stored, limits);
        if held == Held::Counted {
            count(self.devices[at as usize].minute(minute), event, shapes);
        }
        if self.devices[at as usize].ids.len() > limits.device_events_max {
            let half = self.devices[at as usize].ids.len() / 2;
            self.give_up(at, half, limits, shapes);
        }
        held
    }

    /// The device has shown a time.
    fn advance(
        &mut self,
        at: DeviceAt,
        event: &Event<'_>,
        stored: bool,
        limits: &Limits,
        shapes: &Shapes,
    ) {
        let device = &mut self.devices[at as usize];
        let time = event.effective_time();
        // The gateway's clock, in place of the device's: other events of that device may be well
        // behind it.
        let shown = if event.is_ahead() { time.saturating_sub(limits.lateness) } else { time };
        if shown > device.newest {
            device.newest = shown;
            if !stored {
                let closed = device.closed();
                device.close_by_time(limits.lateness);
                let newly = &device.minutes[closed..device.closed()];
                let changed = newly.iter().filter(|minute| minute.is_changed());
                self.closed_rows += changed.map(|minute| minute.rows(shapes)).sum::<usize>();
            }
        }
    }

    /// Compares it with what is remembered, and with what has closed.
    fn decide(
        &mut self,
        at: DeviceAt,
        event: &Event<'_>,
        minute: i64,
        stored: bool,
        limits: &Limits,
    ) -> Held {
        let device = &mut self.devices[at as usize];
        let is_open = device.is_open(minute);
        let known = device.ids.find(event.event_id);
        let held = match &known {
            Some(known) if known.body != event.body => Held::Conflict,
            Some(_) => Held::Duplicate,
            None if is_open => Held::Counted,
            None => Held::Late,
        };
        let retold = known.is_some_and(|known| known.schema_version != event.schema_version);
        let doubted = known.is_some_and(|known| known.doubtful) || event.is_ahead() || retold;
        let is_needed = Device::needs(minute, limits.lateness, device.closed_through);
        // A copy in a later minute outlives what it is a copy of.
        let is_later = known.is_some_and(|known| known.minute < minute);
        if (held != Held::Duplicate || retold || is_later) && is_needed {
            device.ids.push(&Remembered {
                event_id: event.event_id,
                body: event.body,
                schema_version: event.schema_version,
                doubtful: held != Held::Counted || event.is_ahead(),
                offset: event.offset,
                minute,
            });
            self.events += 1;
        }
        let is_touching = match held {
            Held::Conflict | Held::Late => true,
            Held::Duplicate => doubted,
            _ => false,
        };
        if is_touching {
            // That its minute exists makes it close, however silent the device is.
            if is_open {
                device.minute(minute);
            }
            // Read again, and for a minute that the store has open, it was not dealt with before
            // if the minute has only closed since, for want of room.
            let is_settled = stored && (is_open || minute < device.stored_through);
            if !is_settled {
                let reason = match held {
                    Held::Conflict => "id_conflict",
                    Held::Late => "late",
                    _ if retold => "schema_change",
                    _ => "copy",
                };
                self.touch(at, event, known.is_some(), limits.lateness, reason);
            }
        }
        if stored && held != Held::Counted { Held::Again } else { held }
    }

    /// Marks the hours of every copy that this one may suppress, or be suppressed by. Where none
    /// is remembered there is none in an open minute.
    fn touch(
        &mut self,
        at: DeviceAt,
        event: &Event<'_>,
        is_known: bool,
        lateness: i64,
        reason: &'static str,
    ) {
        let time = event.effective_time();
        let device = &self.devices[at as usize];
        let last_closed = device.closed_through.saturating_sub(MINUTE);
        // No further than there are copies: what is marked must close, however silent the device.
        let last_there = device.minutes.last().map_or(last_closed, |last| last.start);
        let last_there = if is_known { last_there.max(last_closed) } else { last_closed };
        let mut last = minute_of(time.saturating_add(lateness)).min(last_there);
        if event.is_ahead() {
            last = last.max(minute_of(time.saturating_add(AHEAD_REACH)).min(last_closed));
        }
        let first = minute_of(time.saturating_sub(lateness));
        self.mark(at, (first, last), event.offset, reason);
    }

    /// Which copy of an event with a clock ahead counts, and where, is for a rebuild to say: of
    /// the hour it was received in, and of the one that it claims.
    fn mark_ahead(&mut self, at: DeviceAt, event: &Event<'_>) {
        let (received, claimed) = (minute_of(event.received_at), minute_of(event.event_time));
        self.mark(at, (received, received), event.offset, "clock_ahead");
        if event.event_time <= event.received_at.saturating_add(AHEAD_REACH) {
            self.mark(at, (claimed, claimed), event.offset, "clock_ahead");
        }
    }

    /// Marks the hours of these minutes, from the first to the last. None is done with before the
    /// last has closed: until then a copy may come there that changes what counts before.
    pub(super) fn mark(
        &mut self,
        at: DeviceAt,
        (first, last): (i64, i64),
        event_offset: i64,
        reason: &'static str,
    ) {
        let done_through = last.saturating_add(MINUTE);
        let mut hour = hour_of(first);
        while hour <= last {
            let ready_through = done_through.min(hour.saturating_add(HOUR));
            let new = Marked { event_offset, ready_through, done_through, reason };
            let marked = self.marks.entry((at, hour)).or_insert(new);
            marked.event_offset = marked.event_offset.max(event_offset);
            marked.ready_through = marked.ready_through.min(ready_through);
            marked.done_through = marked.done_through.max(done_through);
            hour = hour.saturating_add(HOUR);
        }
    }

    /// Gives up the oldest events of a device: their minutes close now, and whatever a copy of
    /// them could still change is marked.
    pub(super) fn give_up(&mut self, at: DeviceAt, count: usize, limits: &Limits, shapes: &Shapes) {
        let device = &mut self.devices[at as usize];
        let closed = device.closed();
        let mut minutes: Vec<i64> = device.ids.iter().take(count).map(|id| id.minute).collect();
        minutes.sort_unstable();
        minutes.dedup();
        let mut left = count;
        let forgotten = device.ids.forget_while(|_| {
            let more = left > 0;
            left = left.saturating_sub(1);
            more
        });
        self.events -= forgotten;
        let through = device.closed_through;
        minutes.retain(|minute| Device::needs(*minute, limits.lateness, through));
        if let Some(last) = minutes.last() {
            device.close(last + MINUTE);
        }
        let newly = &device.minutes[closed..device.closed()];
        let changed = newly.iter().filter(|minute| minute.is_changed());
        self.closed_rows += changed.map(|minute| minute.rows(shapes)).sum::<usize>();
        let offset = self.next.max(self.position) - 1;
        let last_closed = device.closed_through.saturating_sub(MINUTE);
        let last_there = device.minutes.last().map_or(last_closed, |last| last.start);
        for minute in minutes {
            let reach = minute_of(minute + MINUTE - 1 + limits.lateness);
            let last = reach.min(last_there.max(last_closed));
            self.mark(at, (minute, last), offset, "overflow");
        }
    }
}

/// Adds the values of an event.
fn count(minute: &mut super::minute::Minute, event: &Event<'_>, shapes: &mut Shapes) {
    if let Some(shape) = shapes.of(event.metrics) {
        minute.add(event.offset, shape, event.metrics.iter().map(|(_, value)| *value));
        return;
    }
    for metric in event.metrics.chunks(1) {
        if let Some(shape) = shapes.of(metric) {
            minute.add(event.offset, shape, metric.iter().map(|(_, value)| *value));
        }
    }
}
