//! How MQTT stands, for readiness and the status page.

use std::sync::{Arc, Mutex, PoisonError};

/// How MQTT stands; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct MqttState(Arc<Mutex<Standing>>);

/// A moment's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the subscription is confirmed.
    pub is_connected: bool,
    /// Why there is no connection, or why the last one ended.
    pub last_failure: Option<String>,
}

impl MqttState {
    /// The present state.
    pub fn standing(&self) -> Standing {
        self.lock().clone()
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
        self.lock().is_connected = true;
    }

    pub(super) fn failed(&self, why: &str) {
        *self.lock() = Standing { is_connected: false, last_failure: Some(why.to_owned()) };
    }

    pub(super) fn closed(&self) {
        self.lock().is_connected = false;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
