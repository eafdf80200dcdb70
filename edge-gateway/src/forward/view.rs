//! How forwarding stands, for the status page and for whoever else wants to know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_common::topic::Topic;

/// How forwarding stood a moment ago.
#[derive(Clone, Debug, Default)]
pub struct ForwardView {
    /// When the bus last acknowledged a record or a status.
    pub acknowledged_at: Option<Instant>,
    /// Since when the bus is waited for in vain; none while it answers or has nothing to answer.
    pub silent_since: Option<Instant>,
    /// What last went wrong with the connection, while it is silent or was just lost.
    pub complaint: Option<String>,
    /// Records acknowledged since the start.
    pub acknowledged_total: u64,
    /// Records between the spool and the bus's acknowledgement.
    pub in_flight_records: usize,
    /// Entries that wait in the spool because their partition is passed over.
    pub parked_entries: u64,
    /// Partitions that don't answer.
    pub stalled_partitions: usize,
    /// Topics that can't be written to, and why.
    pub blocked_topics: Vec<(Topic, String)>,
    /// Records that became dead letters because the bus refused them.
    pub redirected_total: u64,
    /// Whether events are held back.
    pub is_held: bool,
}

impl ForwardView {
    /// For how long the bus has been waited for in vain.
    pub fn silent_for(&self) -> Option<Duration> {
        self.silent_since.map(|since| since.elapsed())
    }
}

/// Shared between the forwarder, which writes it, and others.
#[derive(Clone, Debug, Default)]
pub struct SharedView(Arc<Mutex<ForwardView>>);

impl SharedView {
    /// How forwarding stood a moment ago.
    pub fn get(&self) -> ForwardView {
        self.lock().clone()
    }

    pub(super) fn update(&self, update: impl FnOnce(&mut ForwardView)) {
        update(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, ForwardView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
