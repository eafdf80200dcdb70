//! How MQTT stands, for readiness and the status page.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::MqttMetrics;

/// How MQTT stands; cheap to clone.
#[derive(Clone)]
pub struct MqttState {
    broker: Arc<str>,
    link: Arc<Mutex<LinkState>>,
    metrics: MqttMetrics,
}

struct LinkState {
    is_connected: bool,
    changed: Instant,
    last_failure: Option<String>,
}

/// A moment's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the subscription is confirmed.
    pub is_connected: bool,
    /// Why there is no connection, or why the last one ended.
    pub last_failure: Option<String>,
    /// For how long it has been connected, or not.
    pub lasts: Duration,
    /// Whether nothing is acknowledged because the spool takes nothing.
    pub is_held: bool,
    /// Messages that arrived.
    pub messages: u64,
    /// Of these, acknowledged.
    pub acknowledged: u64,
    /// Messages of this connection that are not acknowledged yet.
    pub unacknowledged: u64,
}

impl MqttState {
    pub(super) fn new(broker: &str, metrics: MqttMetrics) -> Self {
        let link = LinkState { is_connected: false, changed: Instant::now(), last_failure: None };
        Self { broker: broker.into(), link: Arc::new(Mutex::new(link)), metrics }
    }

    /// The broker's address, as configured.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// The present state.
    pub fn standing(&self) -> Standing {
        let metrics = &self.metrics;
        let messages = ["0", "1"].map(|qos| metrics.messages.with_label_values(&[qos]).get());
        let link = self.lock();
        Standing {
            is_connected: link.is_connected,
            last_failure: link.last_failure.clone(),
            lasts: link.changed.elapsed(),
            is_held: metrics.held.get() != 0,
            messages: messages.iter().sum(),
            acknowledged: metrics.acknowledged.get(),
            unacknowledged: metrics.unacknowledged.get().unsigned_abs(),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        match self.standing() {
            Standing { is_connected: true, .. } => "mqtt: connected".into(),
            Standing { last_failure: Some(why), .. } => format!("mqtt: not connected: {why}"),
            Standing { last_failure: None, .. } => "mqtt: connecting".into(),
        }
    }

    pub(super) fn connected(&self) {
        self.lock().set(true);
    }

    pub(super) fn failed(&self, why: &str) {
        let mut link = self.lock();
        link.set(false);
        link.last_failure = Some(why.to_owned());
    }

    pub(super) fn closed(&self) {
        self.lock().set(false);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LinkState> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkState {
    fn set(&mut self, is_connected: bool) {
        if self.is_connected != is_connected {
            (self.is_connected, self.changed) = (is_connected, Instant::now());
        }
    }
}
