//! The topics of the bus (spec Q1) and their settings.
//!
//! **Frozen**: `message.timestamp.type=LogAppendTime` on every topic, so that neither a backlog
//! looks old to the broker's retention nor a wrong device clock is refused.

use std::time::Duration;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A topic of the pipeline, independent of the prefix of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Admitted events, keyed by device.
    RawEvents,
    /// Events replayed by an operator.
    ReplayEvents,
    /// Everything that was refused or could not be processed, with its reason.
    DeadLetter,
    /// Anomalies on their way to webhooks.
    AlertEvents,
    /// What gateways say about their spools, for the ledger.
    GatewayStatus,
}

/// How a topic is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// How many partitions. It never changes after creation: order is kept by partition.
    pub partitions: i32,
    /// How long the broker keeps records.
    pub retention: Duration,
    /// How many bytes the broker keeps per partition.
    pub retention_bytes_per_partition: u64,
    /// The largest message the broker takes.
    pub message_bytes_max: u64,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 5] = [
        Self::RawEvents,
        Self::ReplayEvents,
        Self::DeadLetter,
        Self::AlertEvents,
        Self::GatewayStatus,
    ];

    /// The name without an installation's prefix.
    pub const fn base_name(self) -> &'static str {
        match self {
            Self::RawEvents => "raw-events",
            Self::ReplayEvents => "replay-events",
            Self::DeadLetter => "dead-letter",
            Self::AlertEvents => "alert-events",
            Self::GatewayStatus => "gateway-status",
        }
    }

    /// The name on the broker.
    pub fn name(self, prefix: &str) -> String {
        format!("{prefix}{}", self.base_name())
    }

    /// The settings it is created and reconciled with.
    ///
    /// Bytes: the peak of 15,000 events/s at ~300 B for 6 h is ~97 GB over 30 partitions, so
    /// 4 GiB a partition bounds the disk without biting before time does.
    pub const fn spec(self) -> TopicSpec {
        match self {
            // The buffer is 4 h; the broker keeps 6 h so that the guard can copy before deletion (Q2).
            Self::RawEvents => spec(30, hours(6), 4 * GIB, MIB),
            Self::ReplayEvents => spec(30, hours(6), 4 * GIB, MIB),
            // A dead letter can be a whole unparseable body of 1 MiB, and its context.
            Self::DeadLetter => spec(12, days(30), 8 * GIB, 2 * MIB),
            Self::AlertEvents => spec(6, days(7), GIB, MIB),
            Self::GatewayStatus => spec(6, days(7), GIB, MIB),
        }
    }
}

const fn spec(
    partitions: i32,
    retention: Duration,
    retention_bytes_per_partition: u64,
    message_bytes_max: u64,
) -> TopicSpec {
    TopicSpec { partitions, retention, retention_bytes_per_partition, message_bytes_max }
}

const fn hours(n: u32) -> Duration {
    HOUR.saturating_mul(n)
}

const fn days(n: u32) -> Duration {
    DAY.saturating_mul(n)
}
