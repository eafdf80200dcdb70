//! The event as the pipeline knows it: identity, provenance, flags and times.
//!
//! **Frozen** (spec E0, architecture "Contracts"): an event's identity is
//! (fleet, device_id, event_id); its provenance is (gateway, epoch, seq); of several copies of one
//! identity the least (received_at, gateway, epoch, seq) is canonical.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How far ahead of the received time a timestamp may be before it is flagged (spec I10).
pub const CLOCK_AHEAD_LIMIT_MICROS: i64 = 60 * 1_000_000;

/// How old a timestamp may be at reception before the event is flagged late (spec I10).
/// It equals the aggregator's default lateness horizon of 10 minutes.
pub const LATE_LIMIT_MICROS: i64 = 10 * 60 * 1_000_000;

/// Whether a gateway or a fleet may be called so: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    /// RFC 3339 in UTC, with as many fractional digits as needed.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => timestamp.to_string(),
            Err(_) => format!("{}us", self.0),
        }
    }

    /// Parses RFC 3339; digits finer than a microsecond are cut off (toward the past).
    pub fn parse_rfc3339(text: &str) -> Result<Self, jiff::Error> {
        let timestamp: jiff::Timestamp = text.parse()?;
        Ok(Self(timestamp.as_nanosecond().div_euclid(1_000).try_into().unwrap_or(i64::MAX)))
    }
}

/// A run of a gateway's spool: random, 63 bits so that it is a positive `BIGINT` everywhere,
/// written as 16 hexadecimal digits. Every opening of a spool begins a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// A new random epoch; never zero.
    pub fn random() -> Self {
        Self((rand::random::<u64>() >> 1).max(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Where a record was first made durable. No (gateway, epoch, seq) is ever used twice for
/// different records; the same one may arrive several times (at-least-once delivery).
///
/// The derived order (gateway, epoch, seq) breaks ties between copies received at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Provenance {
    /// The gateway's configured name.
    pub gateway: Arc<str>,
    /// The opening of its spool.
    pub epoch: Epoch,
    /// The record's number in that epoch, from 0, without gaps.
    pub seq: u64,
}

/// Facts noted about an event at admission (spec I10, E4). Stored as a bit set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

impl Flags {
    /// No flag set.
    pub const NONE: Self = Self(0);
    /// The timestamp is more than [`LATE_LIMIT_MICROS`] older than the received time.
    pub const LATE: Self = Self(1);
    /// The timestamp is more than [`CLOCK_AHEAD_LIMIT_MICROS`] ahead of the received time.
    pub const CLOCK_AHEAD: Self = Self(1 << 1);
    /// The gateway's own clock was not set when it received the event.
    pub const CLOCK_UNSET: Self = Self(1 << 2);
    /// The event has fields or metrics that its schema does not know.
    pub const UNKNOWN_FIELDS: Self = Self(1 << 3);
    /// It came from the facility's MQTT broker (spec I12), not by HTTP.
    pub const MQTT: Self = Self(1 << 4);

    const NAMES: [(Self, &'static str); 5] = [
        (Self::LATE, "late"),
        (Self::CLOCK_AHEAD, "clock_ahead"),
        (Self::CLOCK_UNSET, "clock_unset"),
        (Self::UNKNOWN_FIELDS, "unknown_fields"),
        (Self::MQTT, "mqtt"),
    ];

    /// The bit set as it is stored in the spool and in Parquet.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Reads a stored bit set; bits unknown to this version are kept.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// This set with the flags of `other` added.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of the set flags, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| *name)
    }

    /// The flag of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(flag, _)| *flag)
    }

    /// The time flags of an event with this timestamp, received at that time (spec I10).
    pub const fn of_times(event_time: UnixMicros, received_at: UnixMicros) -> Self {
        let ahead = event_time.0.saturating_sub(received_at.0);
        if ahead > CLOCK_AHEAD_LIMIT_MICROS {
            Self::CLOCK_AHEAD
        } else if ahead < -LATE_LIMIT_MICROS {
            Self::LATE
        } else {
            Self::NONE
        }
    }
}

/// The time used for ordering and windows: the event's timestamp, or the received time of its
/// canonical copy where the device's clock was ahead (spec I10).
pub const fn effective_time(
    event_time: UnixMicros,
    received_at: UnixMicros,
    flags: Flags,
) -> UnixMicros {
    if flags.contains(Flags::CLOCK_AHEAD) { received_at } else { event_time }
}

/// What travels in the headers of a message on `raw-events`, beside the event's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// The schema version that admitted the event.
    pub schema_version: u32,
    /// The device's fleet.
    pub fleet: Arc<str>,
    /// Where it was spooled.
    pub provenance: Provenance,
    /// When the gateway had received the request.
    pub received_at: UnixMicros,
    /// Facts noted at admission.
    pub flags: Flags,
    /// W3C trace context of the request, where it had one.
    pub traceparent: Option<String>,
}

/// What travels in the headers of a message on `dead-letter`, beside the original bytes (spec N4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterMeta {
    /// The stage that gave up on it, e.g. `gateway.admit`.
    pub stage: String,
    /// A stable code, e.g. `schema_violation`.
    pub reason: String,
    /// JSON: what was wrong, where, what was expected, what was found.
    pub detail: String,
    /// The schema it was held against, where one was chosen.
    pub schema_version: Option<u32>,
    /// The fleet whose key (or configuration) brought it.
    pub fleet: Arc<str>,
    /// Where it was spooled.
    pub provenance: Provenance,
    /// When it was first seen.
    pub first_seen: UnixMicros,
    /// How often processing was tried.
    pub attempts: u32,
    /// Where it was read from, if from a topic.
    pub source: Option<SourceOffset>,
    /// W3C trace context of the request, where it had one.
    pub traceparent: Option<String>,
}

/// One message's place on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceOffset {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_flags_follow_the_limits_exactly() {
        let received = UnixMicros(1_000_000_000_000);
        let flags = |delta| Flags::of_times(UnixMicros(received.0 + delta), received);
        assert_eq!(flags(CLOCK_AHEAD_LIMIT_MICROS), Flags::NONE);
        assert_eq!(flags(CLOCK_AHEAD_LIMIT_MICROS + 1), Flags::CLOCK_AHEAD);
        assert_eq!(flags(-LATE_LIMIT_MICROS), Flags::NONE);
        assert_eq!(flags(-LATE_LIMIT_MICROS - 1), Flags::LATE);
    }

    #[test]
    fn effective_time_is_the_received_time_only_when_the_clock_is_ahead() {
        let (event, received) = (UnixMicros(9), UnixMicros(5));
        assert_eq!(effective_time(event, received, Flags::CLOCK_AHEAD), received);
        assert_eq!(effective_time(event, received, Flags::LATE), event);
    }

    #[test]
    fn rfc3339_is_cut_to_microseconds_toward_the_past() {
        let parse = |text| UnixMicros::parse_rfc3339(text).unwrap();
        assert_eq!(parse("1970-01-01T00:00:01.0000019Z"), UnixMicros(1_000_001));
        assert_eq!(parse("1969-12-31T23:59:59.9999999Z"), UnixMicros(-1));
        assert_eq!(parse("2026-01-01T01:00:00+01:00"), parse("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn epochs_round_trip_and_fit_a_signed_column() {
        for _ in 0..1000 {
            let epoch = Epoch::random();
            assert!(i64::try_from(epoch.0).is_ok() && epoch.0 != 0);
            assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        }
    }
}
