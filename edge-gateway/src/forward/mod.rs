//! The forwarder (spec I8): reads the spool in order, sends every entry to the bus, and retires
//! it only when the bus has acknowledged it.
//!
//! Delivery is at least once. Nothing is dropped by a client-side time-out: an entry stays in
//! flight until it is acknowledged, or its producer is given up and everything that was not
//! acknowledged is sent again by a new one, under the same (gateway, epoch, seq). Entries of a
//! device stay in order whatever happens; a partition that can't take more is passed over, and the
//! others go on.
//!
//! - [`driver`] owns the thread and the session with a pair of producers ([`link`]).
//! - [`track`] brings entries from the spool to the producers; [`settle`] applies the answers.
//! - [`lanes`] knows each partition: what is in flight, what waits, which ones don't answer.
//! - [`acks`] knows what is done, and decides what may be retired.
//! - [`fates`] decides what becomes of records that the bus refuses.
//! - [`report`] says how the spool stands, by the same producers.
//! - [`record`] turns a spool entry into a message; [`partition`] finds its partition.
//! - [`kafka`] is the only file that knows rdkafka; [`security`] secures its connection.
//!
//! What decides is pure: `lanes`, `acks`, `fates`, `record`, `partition`.

pub mod acks;
mod cursor;
pub mod driver;
pub mod fates;
pub mod flight;
pub mod kafka;
pub mod lanes;
mod link;
pub mod metrics;
pub mod partition;
pub mod probe;
pub mod record;
pub mod report;
pub mod security;
mod sending;
mod settle;
mod tell;
mod track;
pub mod view;

use std::time::Duration;

use penstock_common::codec::Headers;
use penstock_common::topic::Topic;
use serde::{Deserialize, Serialize};

use self::security::{SaslConfig, TlsConfig};

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
    /// The most payload bytes between the spool and the broker's acknowledgement. Each partition
    /// has an equal share of it.
    pub in_flight_bytes_max: usize,
    /// The most records between the spool and the broker's acknowledgement. Each partition has an
    /// equal share of it.
    pub in_flight_records_max: usize,
    /// How long the drain at shutdown waits for the broker, in milliseconds. What is not
    /// acknowledged by then stays in the spool.
    pub drain_ms_max: u64,
    /// TLS; none: plain text.
    pub tls: Option<TlsConfig>,
    /// A user's name and password, within TLS.
    pub sasl: Option<SaslConfig>,
}

/// A device's events go to one partition, whose share is all that is on the way at a time: with
/// seven records a partition, a backlog drained at 200 records/s (docs/measurements.md).
const IN_FLIGHT_RECORDS_LEAST: usize = 5_000;

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
            tls: None,
            sasl: None,
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
        if self.in_flight_records_max < IN_FLIGHT_RECORDS_LEAST {
            problems.push(format!(
                "kafka.in_flight_records_max: below {IN_FLIGHT_RECORDS_LEAST}, so a backlog would \
                 drain slowly: each partition has an equal share of it"
            ));
        }
        security::validate(self.tls.as_ref(), self.sasl.as_ref(), problems);
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

/// The token of a status. Those of records are small.
pub const STATUS_TOKEN: Token = usize::MAX;

/// The bus's word on one record.
#[derive(Debug)]
pub struct Delivery {
    /// The token it was sent with.
    pub token: Token,
    /// Whether the bus has it durably; if not, why.
    pub result: Result<(), Refusal>,
}

/// Why the bus does not have a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it speaks of.
    pub class: Class,
    /// In words.
    pub reason: String,
}

/// What a refusal speaks of. It is given to each record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The batch, or the record, is too large.
    TooLarge,
    /// A record of the batch is none that the bus takes.
    Unfit,
    /// The topic can't be written to: it is not there, or not allowed.
    Topic,
    /// Nothing: the producer gave it up, in time-out or at its end.
    GivenUp,
    /// Something else.
    Unclear,
}

/// Why a record was not taken.
#[derive(Debug)]
pub enum SendError {
    /// The producer's queue is full: poll, then try again.
    Full(OutboundRecord),
    /// The producer is of no more use: build a new one.
    Broken(String),
}

/// What a producer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Records in order, many at once. After a refusal nothing that follows in the partition is
    /// sent, and the producer is of no more use.
    Stream {
        /// The most bytes of a batch; a larger record is a batch of its own.
        batch_bytes_max: usize,
    },
    /// Each record on its own. A refusal concerns it alone.
    Single,
}

/// A connection to the bus that acknowledges each record. It is used by one thread; dropping it
/// gives up what is in flight.
pub trait Producer {
    /// Hands a record over; returns at once. Its key decides the partition, or else `partition`.
    ///
    /// # Errors
    /// See [`SendError`].
    fn send(
        &mut self,
        token: Token,
        record: OutboundRecord,
        partition: Option<u32>,
    ) -> Result<(), SendError>;

    /// Serves the connection for up to `wait` and moves the deliveries that came into `into`.
    fn poll(&mut self, wait: Duration, into: &mut Vec<Delivery>);

    /// How many partitions a topic has. Blocks for up to `wait`.
    ///
    /// # Errors
    /// When the bus does not answer, or there is no such topic.
    fn partitions(&mut self, topic: Topic, wait: Duration) -> Result<u32, Refusal>;

    /// Why it is of no more use, if it is.
    fn broken(&mut self) -> Option<String>;

    /// What the connection last complained of, for people; it is forgotten by asking.
    fn take_complaint(&mut self) -> Option<String>;
}

/// Builds producers; the forwarder asks for new ones after a failure.
pub trait Connect: Send + 'static {
    /// What it builds.
    type Producer: Producer;

    /// A producer whose records will be acknowledged by the bus's full replica set.
    ///
    /// # Errors
    /// When the settings are refused. A bus that is away is no error: records wait.
    fn connect(&self, role: Role) -> anyhow::Result<Self::Producer>;
}

#[cfg(test)]
mod tests;
