//! The ways in which a simulated event is wrong on purpose.

/// One mistake. Every event with one must be rejected and dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `timestamp` is missing.
    MissingTimestamp,
    /// `device_id` is missing.
    MissingDeviceId,
    /// A firmware that no rule covers.
    UnknownFirmware,
    /// A metric is a string.
    WrongType,
    /// A metric is far outside of its range.
    OutOfRange,
    /// `event_id` is no UUID.
    BadEventId,
    /// `timestamp` is no RFC 3339.
    BadTimestamp,
    /// A line of a line-delimited body ends too early.
    BrokenLine,
    /// The whole body ends too early; it is one unit to the oracle.
    BrokenBody,
}

impl Fault {
    /// Faults that an event can have in any kind of body.
    pub(super) const ANYWHERE: [Self; 7] = [
        Self::MissingTimestamp,
        Self::MissingDeviceId,
        Self::UnknownFirmware,
        Self::WrongType,
        Self::OutOfRange,
        Self::BadEventId,
        Self::BadTimestamp,
    ];
}
