//! What one numbered entry of the spool holds.

use std::sync::Arc;

use bytes::Bytes;
use penstock_common::event::{Flags, UnixMicros};

/// One event or dead letter on its way to the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// For `raw-events`.
    Event(EventEntry),
    /// For `dead-letter`.
    DeadLetter(DeadLetterEntry),
}

/// An admitted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventEntry {
    /// The message key.
    pub device_id: String,
    /// The schema version that admitted it.
    pub schema_version: u32,
    /// The device's fleet.
    pub fleet: Arc<str>,
    /// When the whole request had arrived.
    pub received_at: UnixMicros,
    /// Facts noted at admission.
    pub flags: Flags,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The event exactly as the device sent it.
    pub payload: Bytes,
}

/// A rejected event, or a body that could not be split into events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterEntry {
    /// The message key, where a device id could be read.
    pub device_id: Option<String>,
    /// The stage that gave up, e.g. `gateway.admit`.
    pub stage: String,
    /// A stable code, e.g. `schema_violation`.
    pub reason: String,
    /// JSON: what was wrong, where, expected, got.
    pub detail: String,
    /// The schema it was held against, where one was chosen.
    pub schema_version: Option<u32>,
    /// The fleet that brought it.
    pub fleet: Arc<str>,
    /// When the whole request had arrived.
    pub first_seen: UnixMicros,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The original bytes.
    pub payload: Bytes,
}
