//! A member of a consumer group, seen from async code.
//!
//! librdkafka wants one thread that polls; `worker.rs` is that thread. Rebalances and failures
//! reach the owner by a channel of their own, ahead of records, so that an owner who is busy
//! writing still hears that its partitions are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::{mpsc, oneshot};

use super::KafkaConfig;
use super::worker::{Command, Context, Worker};
use crate::bus::{BusError, Consumer, ConsumerEvent, RecordBatch, Watermarks};

/// How many chunks of records (each bounded in count and bytes, see `worker.rs`) wait for the
/// owner at most.
const CHUNKS_QUEUED_MAX: usize = 32;

const WATERMARK_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A Kafka consumer.
pub struct KafkaConsumer {
    topic: String,
    consumer: Arc<BaseConsumer<Context>>,
    control: mpsc::UnboundedReceiver<ConsumerEvent>,
    records: mpsc::Receiver<RecordBatch>,
    commands: std::sync::mpsc::Sender<Command>,
}

impl KafkaConsumer {
    /// Joins `group` for `topic`.
    ///
    /// # Errors
    /// When the client or its thread can't be created. A broker that is away is not an error: the
    /// client keeps trying.
    pub fn open(config: &KafkaConfig, group: &str, topic: &str) -> Result<Self, BusError> {
        let mut client = config.client();
        if !config.instance_id.is_empty() {
            // One process has a member in each group and on each topic.
            client.set("group.instance.id", format!("{}-{topic}", config.instance_id));
        }
        let consumer: BaseConsumer<Context> = client
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A position that the log no longer has is the owner's business.
            .set("auto.offset.reset", "error")
            // Eager: a rebalance takes everything and gives anew. What was not yet stored is read
            // again, which is cheap next to the states that incremental rebalances have.
            .set("partition.assignment.strategy", "range,roundrobin")
            .set("session.timeout.ms", config.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (config.session_timeout_ms / 5).min(3_000).to_string())
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.wait.max.ms", "200")
            .set("statistics.interval.ms", "5000")
            .create_with_context(Context::default())?;
        consumer.subscribe(&[topic])?;
        let consumer = Arc::new(consumer);
        let (control_tx, control) = mpsc::unbounded_channel();
        let (records_tx, records) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let (commands, commands_rx) = std::sync::mpsc::channel();
        let worker = Worker::new(topic, Arc::clone(&consumer), control_tx, records_tx, commands_rx);
        std::thread::Builder::new()
            .name(format!("consume {topic}"))
            .spawn(move || worker.run())
            .map_err(|error| BusError {
                message: format!("start the consumer's thread: {error}"),
                retryable: true,
            })?;
        Ok(Self { topic: topic.to_owned(), consumer, control, records, commands })
    }
}

fn thread_is_gone() -> ConsumerEvent {
    let message = "the consumer's thread has ended".to_owned();
    ConsumerEvent::Failed(BusError { message, retryable: true })
}

#[async_trait]
impl Consumer for KafkaConsumer {
    fn topic(&self) -> &str {
        &self.topic
    }

    async fn next(&mut self) -> ConsumerEvent {
        tokio::select! {
            biased;
            event = self.control.recv() => event.unwrap_or_else(thread_is_gone),
            Some(records) = self.records.recv() => ConsumerEvent::Records(records),
        }
    }

    async fn next_control(&mut self) -> ConsumerEvent {
        self.control.recv().await.unwrap_or_else(thread_is_gone)
    }

    async fn watermarks(&self, partitions: &[i32]) -> Result<Vec<Watermarks>, BusError> {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.clone());
        let partitions = partitions.to_vec();
        let fetch = move || {
            let fetch_one = |partition| {
                let (low, high) =
                    consumer.fetch_watermarks(&topic, partition, WATERMARK_TIMEOUT)?;
                Ok(Watermarks { partition, low, high })
            };
            partitions.into_iter().map(fetch_one).collect()
        };
        tokio::task::spawn_blocking(fetch).await.unwrap_or_else(|error| {
            Err(BusError { message: format!("read the watermarks: {error}"), retryable: true })
        })
    }

    fn start(&self, assignment: u64, positions: &BTreeMap<i32, i64>) {
        // A worker that is gone has said so on the control channel.
        let _ = self.commands.send(Command::Start { assignment, positions: positions.clone() });
    }

    fn commit(&self, positions: &BTreeMap<i32, i64>) {
        let _ = self.commands.send(Command::Commit(positions.clone()));
    }

    fn known_ends(&self) -> BTreeMap<i32, i64> {
        self.consumer.context().known_ends(&self.topic)
    }

    async fn close(self: Box<Self>) {
        let (done, closed) = oneshot::channel();
        let Self { topic, consumer, commands, .. } = *self;
        // The last owner of the client closes it, and that blocks: it must be the worker.
        drop(consumer);
        if commands.send(Command::Close(done)).is_err() {
            return;
        }
        // With the broker away leaving can take for ever; the session then ends by its time-out.
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::warn!(topic, "could not leave the group in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_settings_are_known_to_the_library() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = KafkaConfig { bootstrap: "127.0.0.1:1".into(), ..KafkaConfig::default() };
        let consumer = KafkaConsumer::open(&config, "g", "t").unwrap();
        runtime.block_on(Box::new(consumer).close());
    }
}
