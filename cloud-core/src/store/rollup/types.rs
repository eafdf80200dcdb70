//! What the stream hands to the store: rows, what has closed, what must be rebuilt, and the
//! positions that move together with them.

use std::sync::Arc;

use crate::rollup::aggregate::Aggregate;
use crate::store::publish::Covered;

/// One device, metric and minute, as the stream knows it now. Final once the minute's end is not
/// after the device's `closed_through`.
#[derive(Clone, Debug, PartialEq)]
pub struct MinuteRow {
    /// The fleet.
    pub fleet: Arc<str>,
    /// The device.
    pub device: Arc<str>,
    /// The metric.
    pub metric: Arc<str>,
    /// The minute's start, µs since the Unix epoch.
    pub minute: i64,
    /// Its values.
    pub aggregate: Aggregate,
    /// The greatest offset that went into this device's minute.
    pub last_offset: i64,
}

/// How far a device's minutes have closed: the stream writes those before it no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClose {
    /// The fleet.
    pub fleet: Arc<str>,
    /// The device.
    pub device: Arc<str>,
    /// The partition of its events.
    pub partition: i32,
    /// Minutes that end at or before this are closed; µs since the Unix epoch, a whole minute.
    /// It never goes back.
    pub closed_through: i64,
}

/// An hour of a device that must be computed anew from raw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The fleet.
    pub fleet: Arc<str>,
    /// The device.
    pub device: Arc<str>,
    /// The hour's start, µs since the Unix epoch.
    pub hour: i64,
    /// The partition of the device's events; negative where it is not known.
    pub partition: i32,
    /// Raw must have passed this offset of `raw-events`.
    pub event_offset: Option<i64>,
    /// Raw must have passed this offset of `replay-events`.
    pub replay_offset: Option<i64>,
    /// It may be worked on once the device has closed through this; µs. Of two marks of one hour
    /// the lesser holds.
    pub ready_through: i64,
    /// It is done with once it was worked on after the device had closed through this; µs. Of two
    /// marks of one hour the greater holds.
    pub done_through: i64,
    /// Why; a stable code.
    pub reason: &'static str,
}

/// What the stream writes at once, in one transaction with its positions.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamFlush {
    /// The consumer's role.
    pub role: String,
    /// The topic's full name.
    pub topic: String,
    /// What was read since the last flush, by partition.
    pub covered: Vec<Covered>,
    /// By partition: where reading must begin again after a restart; at most the position.
    pub rewinds: Vec<(i32, i64)>,
    /// At most one for each device, metric and minute.
    pub rows: Vec<MinuteRow>,
    /// At most one for each device.
    pub closes: Vec<DeviceClose>,
    /// At most one for each device and hour.
    pub marks: Vec<Mark>,
}
