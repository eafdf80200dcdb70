//! Reads the topics from their beginning to their end, with a plain consumer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use penstock_common::codec;
use penstock_common::topic::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::checker::Checker;
use super::record::ToldFleet;

const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const STALL_MAX: Duration = Duration::from_secs(60);

/// Shows the checker everything on `raw-events` and `dead-letter`. Blocking.
///
/// # Errors
/// When a topic can't be read to its end.
pub fn read(
    kafka: &str,
    topic_prefix: &str,
    told: &ToldFleet,
    checker: &mut Checker<'_>,
) -> anyhow::Result<()> {
    let raw = Topic::RawEvents.name(topic_prefix);
    read_topic(kafka, &raw, |message| raw_event(told, checker, message))?;
    let dead = Topic::DeadLetter.name(topic_prefix);
    read_topic(kafka, &dead, |message| dead_letter(told, checker, message))
}

/// The end offset of every partition of a topic. Blocking.
///
/// # Errors
/// When the broker does not answer.
pub fn end_offsets(kafka: &str, topic: &str) -> anyhow::Result<HashMap<i32, i64>> {
    let ends = watermarks(&consumer(kafka)?, topic)?;
    Ok(ends.into_iter().map(|(partition, (_, end))| (partition, end)).collect())
}

fn raw_event(told: &ToldFleet, checker: &mut Checker<'_>, message: &BorrowedMessage<'_>) {
    let place = (message.partition(), message.offset());
    let meta = match codec::decode_event(headers(message)) {
        Ok(meta) => meta,
        Err(error) => return checker.malformed(|| format!("raw-events {place:?}: {error}")),
    };
    if *meta.fleet != *told.fleet {
        return checker.malformed(|| format!("raw-events {place:?}: fleet {}", meta.fleet));
    }
    let key = String::from_utf8_lossy(message.key().unwrap_or_default());
    checker.on_topic(&key, &meta.provenance.gateway, message.payload().unwrap_or_default());
}

fn dead_letter(told: &ToldFleet, checker: &mut Checker<'_>, message: &BorrowedMessage<'_>) {
    let place = (message.partition(), message.offset());
    match codec::decode_dead_letter(headers(message)) {
        Err(error) => checker.malformed(|| format!("dead-letter {place:?}: {error}")),
        Ok(meta) if *meta.fleet != *told.fleet => {
            checker.malformed(|| format!("dead-letter {place:?}: fleet {}", meta.fleet));
        }
        Ok(meta) => checker.dead_letter(&meta.reason, message.payload().unwrap_or_default()),
    }
}

/// A message's headers as the codec takes them.
pub fn headers<'m>(message: &'m BorrowedMessage<'_>) -> impl Iterator<Item = (&'m str, &'m [u8])> {
    message
        .headers()
        .into_iter()
        .flat_map(Headers::iter)
        .map(|header| (header.key, header.value.unwrap_or_default()))
}

/// Shows `each` every message of a topic up to the end offsets at the beginning of the call, in
/// the order of each partition. Blocking.
///
/// # Errors
/// When nothing comes for a minute before the end, or the broker reports an error.
pub fn read_topic(
    kafka: &str,
    topic: &str,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> anyhow::Result<()> {
    let consumer = consumer(kafka)?;
    let mut ends = watermarks(&consumer, topic)?;
    ends.retain(|_, (low, end)| low < end);
    let mut assignment = TopicPartitionList::new();
    for (partition, (low, _)) in &ends {
        assignment
            .add_partition_offset(topic, *partition, Offset::Offset(*low))
            .with_context(|| format!("assign {topic}/{partition}"))?;
    }
    if ends.is_empty() {
        return Ok(());
    }
    consumer.assign(&assignment).with_context(|| format!("assign {topic}"))?;
    let mut moved = Instant::now();
    while !ends.is_empty() {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(message)) => {
                moved = Instant::now();
                let partition = message.partition();
                let Some((_, end)) = ends.get(&partition) else { continue };
                each(&message);
                if message.offset() + 1 >= *end {
                    ends.remove(&partition);
                }
            }
            Some(Err(error)) if moved.elapsed() > STALL_MAX => {
                return Err(error).with_context(|| format!("read {topic}"));
            }
            None if moved.elapsed() > STALL_MAX => {
                bail!("read {topic}: nothing for {STALL_MAX:?}, not at the end of {ends:?}");
            }
            // librdkafka reconnects by itself.
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

fn consumer(kafka: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "hw-tests-oracle")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create()
        .context("create a consumer")
}

fn watermarks(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<HashMap<i32, (i64, i64)>> {
    let metadata = consumer
        .fetch_metadata(Some(topic), CALL_TIMEOUT)
        .with_context(|| format!("ask for the partitions of {topic}"))?;
    let found = metadata.topics().first().filter(|found| found.error().is_none());
    let found = found.with_context(|| format!("topic {topic} does not exist"))?;
    let mut ends = HashMap::new();
    for partition in found.partitions() {
        let ask = || consumer.fetch_watermarks(topic, partition.id(), CALL_TIMEOUT);
        let marks = ask().with_context(|| format!("end of {topic}/{}", partition.id()))?;
        ends.insert(partition.id(), marks);
    }
    Ok(ends)
}
