//! Who wants which devices. What comes is handed on to them and never waited for: a subscriber
//! that does not keep up is told to look at the window again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::window::Sample;

/// Events of one device that wait for a subscriber at most, some 60 bytes each.
const DEVICE_QUEUED_MAX: usize = 4_096;
/// And of many devices: a second of the greatest load (15,000/s), for streams look twice a second,
/// and whoever overflows must read the whole window again.
const QUEUED_MAX: usize = 16_384;

/// Devices that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One.
    Device {
        /// Its fleet.
        fleet: Arc<str>,
        /// Its name.
        device: Arc<str>,
    },
    /// Some, by fleet and name.
    Devices(HashSet<(Arc<str>, Arc<str>)>),
    /// Those of a fleet.
    Fleet(Arc<str>),
}

impl Wanted {
    /// Whether a device is among them.
    pub fn has(&self, fleet: &Arc<str>, device: &Arc<str>) -> bool {
        match self {
            Self::Device { fleet: of, device: name } => device == name && fleet == of,
            Self::Devices(devices) => devices.contains(&(Arc::clone(fleet), Arc::clone(device))),
            Self::Fleet(of) => fleet == of,
        }
    }

    const fn queued_max(&self) -> usize {
        match self {
            Self::Device { .. } => DEVICE_QUEUED_MAX,
            Self::Devices(_) | Self::Fleet(_) => QUEUED_MAX,
        }
    }
}

/// An event on its way to a subscriber.
#[derive(Clone, Debug)]
pub struct Fed {
    /// Its fleet.
    pub fleet: Arc<str>,
    /// Its device.
    pub device: Arc<str>,
    /// What it measured.
    pub sample: Arc<Sample>,
}

/// The subscriber's end.
pub struct Following {
    events: mpsc::Receiver<Fed>,
    has_lost: Arc<AtomicBool>,
}

impl Following {
    /// What has come since the last time, without waiting; none when something was lost, and
    /// only the window has all of it.
    pub fn take(&mut self) -> Option<Vec<Fed>> {
        let mut taken = Vec::new();
        while let Ok(fed) = self.events.try_recv() {
            taken.push(fed);
        }
        (!self.has_lost.swap(false, Ordering::Relaxed)).then_some(taken)
    }
}

struct Subscriber {
    wanted: Wanted,
    events: mpsc::Sender<Fed>,
    has_lost: Arc<AtomicBool>,
}

/// All subscribers.
#[derive(Default)]
pub struct Feed {
    subscribers: Vec<Subscriber>,
}

impl Feed {
    /// A new subscriber; none when there are too many.
    pub fn follow(&mut self, wanted: Wanted, subscribers_max: usize) -> Option<Following> {
        self.subscribers.retain(|subscriber| !subscriber.events.is_closed());
        if self.subscribers.len() >= subscribers_max {
            return None;
        }
        let (sender, events) = mpsc::channel(wanted.queued_max());
        let has_lost = Arc::new(AtomicBool::new(false));
        let following = Following { events, has_lost: Arc::clone(&has_lost) };
        self.subscribers.push(Subscriber { wanted, events: sender, has_lost });
        Some(following)
    }

    /// Hands an event on to whoever wants it.
    pub fn publish(&self, fleet: &Arc<str>, device: &Arc<str>, sample: &Arc<Sample>) {
        for subscriber in self.subscribers.iter().filter(|s| s.wanted.has(fleet, device)) {
            let fed = Fed {
                fleet: Arc::clone(fleet),
                device: Arc::clone(device),
                sample: Arc::clone(sample),
            };
            if subscriber.events.try_send(fed).is_err() {
                subscriber.has_lost.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Everybody must look at the window again.
    pub fn lose_all(&self) {
        self.subscribers.iter().for_each(|s| s.has_lost.store(true, Ordering::Relaxed));
    }

    /// How many follow.
    pub fn len(&self) -> usize {
        self.subscribers.iter().filter(|subscriber| !subscriber.events.is_closed()).count()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(feed: &Feed, fleet: &str, device: &str) {
        let values = Box::new([(0, 1.0)]);
        let sample = Arc::new(Sample { at_ms: 1, event_id: 1, values });
        feed.publish(&fleet.into(), &device.into(), &sample);
    }

    #[test]
    fn everybody_gets_what_they_want() {
        let mut feed = Feed::default();
        let one = Wanted::Device { fleet: "f".into(), device: "a".into() };
        let some = Wanted::Devices([("f".into(), "b".into()), ("g".into(), "a".into())].into());
        let mut following =
            [one, some, Wanted::Fleet("f".into())].map(|wanted| feed.follow(wanted, 3).unwrap());
        assert!(feed.follow(Wanted::Fleet("f".into()), 3).is_none(), "too many");
        for (fleet, device) in [("f", "a"), ("f", "b"), ("g", "a"), ("g", "b")] {
            publish(&feed, fleet, device);
        }
        let counts = following.each_mut().map(|f| f.take().unwrap().len());
        assert_eq!(counts, [1, 2, 2]);
        drop(following);
        assert!(feed.is_empty());
        assert!(feed.follow(Wanted::Fleet("f".into()), 1).is_some());
    }

    #[test]
    fn who_is_too_slow_is_told() {
        let mut feed = Feed::default();
        let mut slow = feed.follow(Wanted::Fleet("f".into()), 1).unwrap();
        for _ in 0..=QUEUED_MAX {
            publish(&feed, "f", "a");
        }
        assert!(slow.take().is_none());
        publish(&feed, "f", "a");
        assert_eq!(slow.take().map(|taken| taken.len()), Some(1));
        feed.lose_all();
        assert!(slow.take().is_none());
    }
}
