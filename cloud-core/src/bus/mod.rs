//! The bus as the core needs it: a consumer with explicit events, a producer, and topic
//! administration. `kafka/` is the only folder that knows rdkafka.
//!
//! The consumer has no opinion about positions: it says which partitions it was given, its owner
//! looks up where to go on, and only then does anything flow. What is committed to the bus only
//! shows lag to operators; it is never read back.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use penstock_common::codec::Headers;
use penstock_common::event::UnixMicros;
use tokio::sync::oneshot;

pub mod kafka;
pub mod topics;

/// What a consumer tells its owner.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// These partitions are ours now. Nothing flows before [`Consumer::start`].
    Assigned {
        /// Counts the assignments of this consumer; records carry it.
        assignment: u64,
        /// The partitions, in order.
        partitions: Vec<i32>,
    },
    /// All partitions are taken away. The owner finishes or discards, then drops or sends `ack`;
    /// it is waited for only for a bounded time.
    Revoked {
        /// The assignment that ends.
        assignment: u64,
        /// Somebody else may own the partitions already.
        lost: bool,
        /// Lets the rebalance go on.
        ack: oneshot::Sender<()>,
    },
    /// Records, in offset order within each partition.
    Records(RecordBatch),
    /// The bus no longer has a position that was asked for. Nothing more comes from that
    /// partition until the positions are decided again.
    PositionLost,
    /// The consumer can't go on; it must be opened anew.
    Failed(BusError),
}

/// Records of one assignment.
#[derive(Debug)]
pub struct RecordBatch {
    /// The assignment they were read under; those of an older one must be passed over.
    pub assignment: u64,
    /// The records.
    pub records: Vec<Record>,
}

/// One record, in one allocation (and one for its header index).
#[derive(Clone, Debug)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When the bus appended it.
    pub append_time: UnixMicros,
    data: Vec<u8>,
    key: Option<Range<usize>>,
    payload: Range<usize>,
    headers: Vec<(Range<usize>, Range<usize>)>,
}

impl Record {
    /// A record with copies of these parts.
    pub fn new<'a>(
        place: (i32, i64),
        append_time: UnixMicros,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        // Room for key and headers as gateways write them: it grows seldom and is not shrunk.
        let mut data = Vec::with_capacity(payload.len() + 256);
        let mut push = |bytes: &[u8]| {
            let start = data.len();
            data.extend_from_slice(bytes);
            start..data.len()
        };
        let key = key.map(&mut push);
        let payload = push(payload);
        let headers =
            headers.into_iter().map(|(name, value)| (push(name.as_bytes()), push(value))).collect();
        let (partition, offset) = place;
        Self { partition, offset, append_time, data, key, payload, headers }
    }

    /// The message key.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.clone().map(|range| &self.data[range])
    }

    /// The message value.
    pub fn payload(&self) -> &[u8] {
        &self.data[self.payload.clone()]
    }

    /// The headers in order. A name that is not UTF-8 can't occur: it came as a `str`.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| {
            (std::str::from_utf8(&self.data[name.clone()]).unwrap_or(""), &self.data[value.clone()])
        })
    }

    /// The memory it holds.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.data.capacity()
            + self.headers.len() * size_of::<[Range<usize>; 2]>()
    }
}

/// The first offset that a partition still has, and the one that its next record gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The partition.
    pub partition: i32,
    /// The log's start.
    pub low: i64,
    /// The log's end.
    pub high: i64,
}

/// A member of a consumer group, on one topic.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// The topic's full name.
    fn topic(&self) -> &str;

    /// The next event; rebalances and failures come before records. Cancel-safe.
    async fn next(&mut self) -> ConsumerEvent;

    /// The next event that is not records, which stay queued. Cancel-safe.
    async fn next_control(&mut self) -> ConsumerEvent;

    /// Where these partitions begin and end on the bus.
    async fn watermarks(&self, partitions: &[i32]) -> Result<Vec<Watermarks>, BusError>;

    /// Begins an assignment at these offsets. Without effect when it has ended meanwhile.
    fn start(&self, assignment: u64, positions: &BTreeMap<i32, i64>);

    /// Notes progress on the bus, for whoever looks at lag. Not awaited, not relied upon.
    fn commit(&self, positions: &BTreeMap<i32, i64>);

    /// The ends of the partitions, as last heard of.
    fn known_ends(&self) -> BTreeMap<i32, i64>;

    /// Leaves the group and waits for it.
    async fn close(self: Box<Self>);
}

/// Says where a topic's partitions begin and end.
#[async_trait]
pub trait LogEnds: Send + Sync {
    /// The bounds of every partition of the topic, now.
    async fn ends(&self, topic: &str) -> Result<Vec<Watermarks>, BusError>;
}

/// Says what a topic's partitions held at a time.
#[async_trait]
pub trait LogTimes: Send + Sync {
    /// For every partition, the offset of the first record that the bus appended then or later:
    /// the next one where it has none.
    async fn first_since(
        &self,
        topic: &str,
        time: UnixMicros,
    ) -> Result<BTreeMap<i32, i64>, BusError>;
}

/// Writes single messages; for the rare ones, not for volume.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Returns once the bus has made the message durable. It never gives up by time.
    async fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: &Headers,
    ) -> Result<(), BusError>;
}

/// Why the bus did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BusError {
    /// In the words of the client library.
    pub message: String,
    /// Whether the same may work later.
    pub retryable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_its_parts() {
        let headers = [("a", b"1".as_slice()), ("b", b"")];
        let record = Record::new((3, 7), UnixMicros(9), Some(b"key"), b"payload", headers);
        assert_eq!(record.key(), Some(b"key".as_slice()));
        assert_eq!(record.payload(), b"payload");
        assert_eq!(record.headers().collect::<Vec<_>>(), headers);
        assert!(record.size_bytes() > 12);
        assert_eq!(Record::new((0, 0), UnixMicros(0), None, b"", []).key(), None);
    }
}
