//! One device: how far it has come, its open minutes, its remembered ids.

use std::sync::Arc;

use super::MINUTE;
use super::ids::Ids;
use super::minute::Minute;
use crate::rollup::window::minute_of;

/// A device on its partition. Times in µs.
pub(super) struct Device {
    /// Its fleet.
    pub fleet: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Minutes that end at or before this take no more events. A whole minute, or the least time.
    pub closed_through: i64,
    /// The same, as the store has it or is about to.
    pub stored_through: i64,
    /// The newest time that it has shown.
    pub newest: i64,
    /// When the bus got its newest event.
    pub last_append: i64,
    /// Ascending; those that have closed leave with the next flush.
    pub minutes: Vec<Minute>,
    /// Its remembered events.
    pub ids: Ids,
    /// Whether an event of it was read since the partition was assigned.
    pub seen: bool,
}

impl Device {
    /// One that has closed through this.
    pub(super) fn new(fleet: Arc<str>, name: Arc<str>, closed_through: i64) -> Self {
        Self {
            fleet,
            name,
            closed_through,
            stored_through: closed_through,
            newest: i64::MIN,
            last_append: i64::MIN,
            minutes: Vec::new(),
            ids: Ids::default(),
            seen: false,
        }
    }

    /// Whether the minute that begins there takes events.
    pub(super) const fn is_open(&self, minute: i64) -> bool {
        minute >= self.closed_through
    }

    /// The minute that begins there.
    pub(super) fn minute(&mut self, start: i64) -> &mut Minute {
        let behind = self.minutes.iter().rev().take_while(|minute| minute.start > start).count();
        let at = self.minutes.len() - behind;
        let is_there = at > 0 && self.minutes[at - 1].start == start;
        let at = if is_there {
            at - 1
        } else {
            self.minutes.insert(at, Minute::new(start));
            at
        };
        &mut self.minutes[at]
    }

    /// Closes what is further behind its newest time than the horizon.
    pub(super) fn close_by_time(&mut self, lateness: i64) {
        if self.newest > i64::MIN {
            self.close(minute_of(self.newest.saturating_sub(lateness)));
        }
    }

    /// Closes the minutes that it has; not the time after them, so that what waits in a gateway
    /// streams through as it was measured once it comes.
    pub(super) fn close_all(&mut self) {
        if let Some(last) = self.minutes.last() {
            self.close(last.start + MINUTE);
        }
    }

    /// Closes through this, if it is further.
    pub(super) fn close(&mut self, through: i64) {
        self.closed_through = self.closed_through.max(through);
    }

    /// The minutes that have closed.
    pub(super) fn closed(&self) -> usize {
        self.minutes.iter().take_while(|minute| !self.is_open(minute.start)).count()
    }

    /// Whether a copy of an event of this minute, with other bytes, can still be near enough to
    /// be one with it and fall into an open minute of a device that has closed through this
    /// (`canonical.rs` has the rule).
    pub(super) const fn needs(minute: i64, lateness: i64, closed_through: i64) -> bool {
        minute.saturating_add(MINUTE + lateness) > closed_through
    }

    /// The memory behind it, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let minutes: usize = self.minutes.iter().map(Minute::heap_bytes).sum();
        minutes + self.minutes.capacity() * size_of::<Minute>() + self.ids.heap_bytes()
    }
}
