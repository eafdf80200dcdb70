//! The last five minutes in memory. Pure: times are arguments, milliseconds since the Unix epoch.
//!
//! A device keeps its events in the order they came. An event is forgotten when it is older than
//! [`WINDOW_MS`] by the greatest time that the window was told, or when there are too many: then
//! the window is shorter, never wrong. A copy of an event that is still in memory is passed over.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::WINDOW_MS;
use crate::rollup::counted::Metric;

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its effective time.
    pub at_ms: i64,
    /// Its id.
    pub event_id: u128,
    /// What it measured.
    pub values: Box<[(Metric, f64)]>,
}

/// A device.
#[derive(Debug, Default)]
struct Ring {
    samples: VecDeque<Sample>,
}

/// All devices, by fleet and name.
#[derive(Debug)]
pub struct Window {
    fleets: BTreeMap<Arc<str>, HashMap<Arc<str>, Ring>>,
    /// What came when, so that the oldest can be dropped without a search: fleet, device.
    order: VecDeque<(i64, Arc<str>, Arc<str>)>,
    events_max: usize,
    now_ms: i64,
}

/// The points of one metric, by time.
pub type Points = Vec<(i64, f64)>;

impl Window {
    /// An empty one.
    pub const fn new(events_max: usize) -> Self {
        Self { fleets: BTreeMap::new(), order: VecDeque::new(), events_max, now_ms: i64::MIN }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.events_max);
    }

    /// Takes an event; whether it is new. One that is too old for the window is not.
    pub fn insert(&mut self, fleet: &str, device: &str, sample: Sample) -> bool {
        if sample.at_ms <= self.now_ms.saturating_sub(WINDOW_MS) {
            return false;
        }
        let fleet = match self.fleets.get_key_value(fleet) {
            Some((fleet, _)) => Arc::clone(fleet),
            None => fleet.into(),
        };
        let devices = self.fleets.entry(Arc::clone(&fleet)).or_default();
        let device = match devices.get_key_value(device) {
            Some((device, _)) => Arc::clone(device),
            None => device.into(),
        };
        let ring = devices.entry(Arc::clone(&device)).or_default();
        // Some thirty: a search is cheaper than a set.
        if ring.samples.iter().rev().any(|known| known.event_id == sample.event_id) {
            return false;
        }
        self.order.push_back((sample.at_ms, fleet, device));
        ring.samples.push_back(sample);
        if self.order.len() > self.events_max {
            self.forget_first();
        }
        true
    }

    /// Time goes on: what is too old is forgotten.
    pub fn advance(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        let oldest = self.now_ms.saturating_sub(WINDOW_MS);
        // In the order they came: one that was measured later holds up those behind it, by no
        // more than it is ahead.
        while self.order.front().is_some_and(|(at_ms, ..)| *at_ms <= oldest) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, fleet, device)) = self.order.pop_front() else { return };
        let Some(devices) = self.fleets.get_mut(&fleet) else { return };
        let Some(ring) = devices.get_mut(&device) else { return };
        ring.samples.pop_front();
        if ring.samples.is_empty() {
            devices.remove(&device);
            if devices.is_empty() {
                self.fleets.remove(&fleet);
            }
        }
    }

    /// Events in memory.
    pub fn events(&self) -> usize {
        self.order.len()
    }

    /// Devices with an event in the window.
    pub fn devices(&self) -> usize {
        self.fleets.values().map(HashMap::len).sum()
    }

    /// The devices of a fleet that have an event in the window.
    pub fn devices_of(&self, fleet: &str) -> Vec<Arc<str>> {
        let devices = self.fleets.get(fleet).into_iter().flat_map(HashMap::keys);
        let mut devices: Vec<Arc<str>> = devices.cloned().collect();
        devices.sort_unstable();
        devices
    }

    /// The newest time of a device.
    pub fn last_seen(&self, fleet: &str, device: &str) -> Option<i64> {
        self.samples(fleet, device).map(|sample| sample.at_ms).max()
    }

    /// A device's points by metric, ascending; all metrics when none are named.
    pub fn points(
        &self,
        fleet: &str,
        device: &str,
        metrics: &[Metric],
    ) -> BTreeMap<Metric, Points> {
        let mut points: BTreeMap<Metric, Points> = BTreeMap::new();
        let oldest = self.now_ms.saturating_sub(WINDOW_MS);
        for sample in self.samples(fleet, device).filter(|sample| sample.at_ms > oldest) {
            for (metric, value) in &sample.values {
                if metrics.is_empty() || metrics.contains(metric) {
                    points.entry(*metric).or_default().push((sample.at_ms, *value));
                }
            }
        }
        points.values_mut().for_each(|points| points.sort_by_key(|(at_ms, _)| *at_ms));
        points
    }

    fn samples(&self, fleet: &str, device: &str) -> impl Iterator<Item = &Sample> {
        let ring = self.fleets.get(fleet).and_then(|devices| devices.get(device));
        ring.into_iter().flat_map(|ring| &ring.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: i64, id: u128, value: f64) -> Sample {
        Sample { at_ms, event_id: id, values: [(0, value), (1, -value)].into() }
    }

    #[test]
    fn copies_are_passed_over_and_points_ascend() {
        let mut window = Window::new(100);
        assert!(window.insert("f", "d", sample(2_000, 1, 1.0)));
        assert!(window.insert("f", "d", sample(1_000, 2, 2.0)));
        assert!(!window.insert("f", "d", sample(2_000, 1, 1.0)));
        assert!(window.insert("f", "e", sample(2_000, 1, 9.0)), "an id is a device's own");
        let points = window.points("f", "d", &[0]);
        assert_eq!(points[&0], [(1_000, 2.0), (2_000, 1.0)]);
        assert_eq!(points.len(), 1);
        assert_eq!(window.points("f", "d", &[]).len(), 2);
        assert_eq!((window.devices(), window.events()), (2, 3));
        assert_eq!(window.last_seen("f", "d"), Some(2_000));
        assert_eq!(window.devices_of("f"), ["d".into(), "e".into()] as [Arc<str>; 2]);
    }

    #[test]
    fn what_is_old_is_forgotten_and_not_taken() {
        let mut window = Window::new(100);
        for n in 0..10 {
            assert!(window.insert("f", "d", sample(n * 60_000, n as u128, 1.0)));
        }
        window.advance(9 * 60_000);
        assert_eq!(window.points("f", "d", &[0])[&0].first(), Some(&(5 * 60_000, 1.0)));
        assert!(!window.insert("f", "d", sample(1, 99, 1.0)));
        window.advance(9 * 60_000 + WINDOW_MS);
        assert_eq!((window.events(), window.devices()), (0, 0));
    }

    #[test]
    fn too_many_make_it_shorter() {
        let mut window = Window::new(3);
        for n in 0..5 {
            window.insert("f", ["a", "b"][n % 2], sample(n as i64, n as u128, 1.0));
        }
        assert_eq!(window.events(), 3);
        assert_eq!(window.points("f", "a", &[0])[&0], [(2, 1.0), (4, 1.0)]);
        assert_eq!(window.points("f", "b", &[0])[&0], [(3, 1.0)]);
    }
}
