//! Reads every partition of a topic from some time ago on, without a group: everybody who tails
//! sees everything, and nobody's position is anybody else's.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::KafkaConfig;
use super::worker::record;
use crate::bus::{BusError, Record};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Records handed over at once.
const CHUNK_RECORDS_MAX: usize = 1_000;
/// Chunks that wait for their reader at most.
const CHUNKS_QUEUED_MAX: usize = 16;

/// What a tail brings, or why it ended.
pub type Tailed = Result<Piece, BusError>;

/// A piece of a tail.
pub enum Piece {
    /// Comes first: partitions, and where in them the tail begins.
    Begins(Vec<(i32, i64)>),
    /// Records, in order by partition.
    Records(Vec<Record>),
}

/// Begins a tail at the first record of each partition that the bus appended `since` ago or
/// later. It ends when the receiver is dropped, and with an error when the client can't go on;
/// whoever reads then begins anew.
///
/// # Errors
/// When the client or its thread can't be created.
pub fn tail(
    config: &KafkaConfig,
    topic: &str,
    since: Duration,
) -> Result<mpsc::Receiver<Tailed>, BusError> {
    let consumer: BaseConsumer = config
        .client()
        // Required, and not used: nothing is committed and no group is joined.
        .set("group.id", "penstock-live")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // What was deleted meanwhile is too old anyway.
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "32768")
        .create()?;
    let (sender, receiver) = mpsc::channel(CHUNKS_QUEUED_MAX);
    let topic = topic.to_owned();
    std::thread::Builder::new()
        .name(format!("tail {topic}"))
        .spawn(move || {
            if let Err(error) = run(&consumer, &topic, since, &sender) {
                // Nobody listens any more: fine.
                let _ = sender.blocking_send(Err(error));
            }
        })
        .map_err(|error| BusError {
            message: format!("start the tail's thread: {error}"),
            retryable: true,
        })?;
    Ok(receiver)
}

fn run(
    consumer: &BaseConsumer,
    topic: &str,
    since: Duration,
    sender: &mpsc::Sender<Tailed>,
) -> Result<(), BusError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let from = now.unwrap_or_default().saturating_sub(since).as_millis();
    let starts = starts(consumer, topic, i64::try_from(from).unwrap_or(i64::MAX))?;
    consumer.assign(&starts)?;
    let begins = starts.elements().into_iter().filter_map(|start| match start.offset() {
        Offset::Offset(offset) => Some((start.partition(), offset)),
        _ => None,
    });
    if sender.blocking_send(Ok(Piece::Begins(begins.collect()))).is_err() {
        return Ok(());
    }
    let mut chunk = Vec::new();
    loop {
        let timeout = if chunk.is_empty() { POLL } else { Duration::ZERO };
        match consumer.poll(timeout) {
            Some(Ok(message)) => chunk.push(record(&message)),
            // The client reconnects by itself; what it can't mend it says as fatal.
            Some(Err(error)) => {
                if let Some((code, reason)) = consumer.client().fatal_error() {
                    return Err(BusError { message: format!("{code}: {reason}"), retryable: true });
                }
                tracing::debug!(%error, topic, "the tail has trouble");
            }
            None if sender.is_closed() => return Ok(()),
            None => {}
        }
        let is_due = chunk.len() >= CHUNK_RECORDS_MAX || timeout == Duration::ZERO;
        if is_due && !chunk.is_empty() && hand_over(&mut chunk, sender) {
            return Ok(());
        }
    }
}

/// Hands the chunk over if it is full or there is room; whether nobody listens any more.
fn hand_over(chunk: &mut Vec<Record>, sender: &mpsc::Sender<Tailed>) -> bool {
    if chunk.len() >= CHUNK_RECORDS_MAX {
        return sender.blocking_send(Ok(Piece::Records(std::mem::take(chunk)))).is_err();
    }
    match sender.try_reserve() {
        Ok(place) => {
            place.send(Ok(Piece::Records(std::mem::take(chunk))));
            false
        }
        Err(mpsc::error::TrySendError::Full(())) => false,
        Err(mpsc::error::TrySendError::Closed(())) => true,
    }
}

/// Where what was appended from then on begins, in ms since the Unix epoch.
pub(super) fn starts(
    consumer: &BaseConsumer,
    topic: &str,
    from: i64,
) -> Result<TopicPartitionList, BusError> {
    let metadata = consumer.fetch_metadata(Some(topic), CALL_TIMEOUT)?;
    let found = metadata.topics().first().filter(|found| found.error().is_none());
    let Some(found) = found else {
        return Err(BusError { message: format!("topic {topic} is not there"), retryable: true });
    };
    // The ends first: what comes between the two questions is then found by its time, or stands
    // behind the end. The other way round it would be skipped, and never shown.
    let mut ends = BTreeMap::new();
    let mut times = TopicPartitionList::new();
    for partition in found.partitions() {
        let (_, end) = consumer.fetch_watermarks(topic, partition.id(), CALL_TIMEOUT)?;
        ends.insert(partition.id(), end);
        times.add_partition_offset(topic, partition.id(), Offset::Offset(from))?;
    }
    let found = consumer.offsets_for_times(times, CALL_TIMEOUT)?;
    let mut starts = TopicPartitionList::new();
    for element in found.elements() {
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            // Nothing is as young as that; what comes next is.
            _ => ends.get(&element.partition()).copied().unwrap_or_default(),
        };
        starts.add_partition_offset(topic, element.partition(), Offset::Offset(offset))?;
    }
    Ok(starts)
}
