//! Devices that publish to an MQTT broker with QoS 1 instead of posting to the gateway.
//!
//! A publisher has a session of its own and speaks for some devices, each on its own topic. It
//! keeps a message until the broker has acknowledged it, and publishes what is not acknowledged
//! again after a broken connection, in the old order. A **careful** one keeps it until the broker
//! has saved it too ([`Saves`]), and publishes that again as well after the broker has crashed.
//!
//! What they were told is what the oracle compares: an event counts as accepted (or, if it is
//! faulty, as rejected) once the broker's own promise for its message holds.

mod log;
mod publisher;
mod saves;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::saves::{Ack, Fate, Saves};
use super::FleetConfig;
use crate::oracle::record::{ToldDevice, ToldFleet};

/// How the devices publish.
#[derive(Clone)]
pub struct MqttFleetConfig {
    /// The devices and what they send. Shares of requests and connections mean nothing here.
    pub fleet: FleetConfig,
    /// `host:port` of the broker.
    pub broker: (String, u16),
    /// Connections over which the devices are spread.
    pub publishers: u32,
    /// Whether every second publisher is careful; else none is.
    pub half_careful: bool,
}

/// Running totals.
#[derive(Debug, Default)]
pub struct MqttTally {
    /// Messages published for the first time.
    pub messages: Total,
    /// Acknowledgements of the broker.
    pub acknowledged: Total,
    /// Messages published again because no acknowledgement had come.
    pub repeated: Total,
    /// Messages published again because the broker had acknowledged and not saved them.
    pub repeated_unsaved: Total,
    /// Messages that the broker had acknowledged and not saved, and that were not published again.
    pub forgotten: Total,
    /// Acknowledgements that say something else than success.
    pub refused: Total,
    /// Connections.
    pub connections: Total,
}

/// A counter.
#[derive(Debug, Default)]
pub struct Total(AtomicU64);

impl Total {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The topic of a device's events.
pub fn events_topic(fleet: &str, device: &str) -> String {
    format!("penstock/{fleet}/{device}/events")
}

/// Publishes until `stop`, then until everything is acknowledged; returns what can be relied on.
/// The broker must not be killed after `stop`.
pub async fn run(
    config: MqttFleetConfig,
    saves: Saves,
    tally: Arc<MqttTally>,
    stop: CancellationToken,
) -> ToldFleet {
    let fleet = config.fleet.fleet.clone();
    let config = Arc::new(config);
    let mut publishers = JoinSet::new();
    for number in 0..config.publishers {
        let (config, saves) = (Arc::clone(&config), saves.clone());
        let (tally, stop) = (Arc::clone(&tally), stop.clone());
        publishers.spawn(publisher::run(config, number, saves, tally, stop));
    }
    let mut devices: Vec<ToldDevice> = publishers.join_all().await.into_iter().flatten().collect();
    devices.sort_by(|a, b| a.device_id.cmp(&b.device_id));
    ToldFleet { fleet, devices }
}
