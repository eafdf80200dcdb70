//! The forwarder (spec I8): reads the spool in order, sends every entry to the bus, and retires
//! it only when the bus has acknowledged it.
//!
//! Delivery is at least once. Nothing is dropped by a client-side time-out: an entry stays in
//! flight until it is acknowledged, or its producer is given up and everything from the first
//! unacknowledged entry is sent again by a new one, under the same (gateway, epoch, seq).
//!
//! - [`driver`] owns the loop and the thread.
//! - [`both`] reads both lanes of the spool as one sequence.
//! - [`window`] decides, purely, what may be retired.
//! - [`report`] says how the spool stands, by the same producer.
//! - [`record`] turns a spool entry into a message, purely.
//! - [`kafka`] is the only file that knows rdkafka.

pub mod both;
pub mod driver;
pub mod kafka;
pub mod metrics;
pub mod probe;
pub mod record;
pub mod report;
pub mod window;

use std::time::Duration;

use penstock_common::codec::Headers;
use penstock_common::topic::Topic;
use serde::{Deserialize, Serialize};

/// How the gateway reaches the bus.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Comma-separated `host:port` of some brokers.
    pub bootstrap: String,
    /// Put before every topic name, so that installations can share a cluster.
    pub topic_prefix: String,
    /// `lz4`, `zstd` or `none`: batch compression on the wire and in the broker.
    pub compression: String,
    /// How long a batch waits to fill, in milliseconds.
    pub linger_ms: u64,
    /// The most payload bytes between the spool and the broker's acknowledgement.
    pub in_flight_bytes_max: usize,
    /// The most records between the spool and the broker's acknowledgement.
    pub in_flight_records_max: usize,
    /// How long the drain at shutdown waits for the broker, in milliseconds. What is not
    /// acknowledged by then stays in the spool.
    pub drain_ms_max: u64,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap: "127.0.0.1:9092".into(),
            topic_prefix: String::new(),
            compression: "lz4".into(),
            linger_ms: 20,
            in_flight_bytes_max: 32 << 20,
            in_flight_records_max: 100_000,
            drain_ms_max: 5_000,
        }
    }
}

impl KafkaConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        if self.bootstrap.trim().is_empty() {
            problems.push("kafka.bootstrap: is empty; give host:port of a broker".into());
        }
        if !["lz4", "zstd", "none"].contains(&self.compression.as_str()) {
            let got = &self.compression;
            problems.push(format!("kafka.compression: {got:?}; expected lz4, zstd or none"));
        }
        if self.in_flight_bytes_max < 2 << 20 {
            problems.push(
                "kafka.in_flight_bytes_max: below 2 MiB, so the largest dead letter would not fit"
                    .into(),
            );
        }
        if self.in_flight_records_max == 0 {
            problems.push("kafka.in_flight_records_max: must be at least 1".into());
        }
    }
}

/// A message ready for the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundRecord {
    /// Where it goes.
    pub topic: Topic,
    /// The partition key; none where no device id could be read.
    pub key: Option<String>,
    /// The headers of `penstock_common::codec`.
    pub headers: Headers,
    /// The event's original bytes.
    pub payload: bytes::Bytes,
}

/// Identifies a record between [`Producer::send`] and its [`Delivery`].
pub type Token = usize;

/// The token of a status. Those of the window never have the highest bit.
pub const STATUS_TOKEN: Token = usize::MAX;

/// The bus's word on one record.
#[derive(Debug)]
pub struct Delivery {
    /// The token it was sent with.
    pub token: Token,
    /// Whether the bus has it durably; if not, why.
    pub result: Result<(), String>,
}

/// Why a record was not taken.
#[derive(Debug)]
pub enum SendError {
    /// The producer's queue is full: poll, then try again.
    Full(OutboundRecord),
    /// The producer is of no more use: build a new one.
    Broken(String),
}

/// A connection to the bus that keeps the order of records with the same key and acknowledges
/// each one. It is used by one thread; dropping it gives up what is in flight.
pub trait Producer {
    /// Hands a record over; returns at once.
    ///
    /// # Errors
    /// See [`SendError`].
    fn send(&mut self, token: Token, record: OutboundRecord) -> Result<(), SendError>;

    /// Serves the connection for up to `wait` and moves the deliveries that came into `into`.
    fn poll(&mut self, wait: Duration, into: &mut Vec<Delivery>);

    /// What the connection last complained of, for people; it is forgotten by asking.
    fn take_complaint(&mut self) -> Option<String>;
}

/// Builds producers; the forwarder asks for a new one after a fatal error.
pub trait Connect: Send + 'static {
    /// What it builds.
    type Producer: Producer;

    /// A producer whose records will be acknowledged by the bus's full replica set.
    ///
    /// # Errors
    /// When the settings are refused. A bus that is away is no error: records wait.
    fn connect(&self) -> anyhow::Result<Self::Producer>;
}

#[cfg(test)]
mod tests;
