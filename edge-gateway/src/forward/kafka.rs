//! The bus is Kafka. Settings that carry a promise:
//!
//! - `enable.idempotence`, `acks=all`: no duplicate and no reordering within a producer's life,
//!   and an acknowledgement means every in-sync replica has it (spec I8).
//! - `enable.gapless.guarantee`: after a batch that the broker refuses, nothing that follows it in
//!   its partition is sent by this producer. Without it librdkafka goes on behind the gap, and what
//!   was refused and is sent again would come out of order.
//! - `message.timeout.ms=0`: librdkafka's default gives a message up after 5 minutes.
//! - `partitioner=murmur2_random`: the same key finds the same partition from any client in any
//!   language ([`super::partition`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use penstock_common::topic::Topic;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};

use super::security::{self, Credentials};
use super::{
    Class, Connect, Delivery, KafkaConfig, OutboundRecord, Producer, Refusal, Role, SendError,
    Token,
};

/// The largest message of any topic (`penstock_common::topic`) and room for its headers.
const MESSAGE_BYTES_MAX: usize = (2 << 20) + (64 << 10);

/// How long the library waits for answers at a time, and the most that a producer outlives its
/// user. The last millisecond of each wait it waits busily, so that short ones would be dear.
const ANSWERS_WAIT: Duration = Duration::from_secs(1);

/// What goes alone is one record a partition, and a status.
const ALONE_RECORDS_MAX: usize = 10_000;

/// What goes alone is given up after this: nothing is lost by it, it is tried again.
const ALONE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a connection that fails looks whether its credentials have changed.
const CREDENTIALS_INTERVAL: Duration = Duration::from_secs(5);

/// Builds [`KafkaProducer`]s.
pub struct KafkaConnect {
    config: KafkaConfig,
    client_id: String,
}

impl KafkaConnect {
    /// `client_id` is the gateway's name, for the broker's logs and quotas.
    pub fn new(config: KafkaConfig, client_id: &str) -> Self {
        Self { config, client_id: client_id.to_owned() }
    }

    fn settings(&self, role: Role) -> ClientConfig {
        let KafkaConfig { bootstrap, compression, .. } = &self.config;
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", bootstrap)
            .set("client.id", format!("penstock-gateway-{}", self.client_id))
            .set("acks", "all")
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            .set("partitioner", "murmur2_random")
            .set("compression.codec", compression)
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.keepalive.enable", "true")
            .set_log_level(RDKafkaLogLevel::Warning);
        match role {
            Role::Stream { batch_bytes_max } => {
                let KafkaConfig { linger_ms, in_flight_bytes_max, in_flight_records_max, .. } =
                    self.config;
                settings
                    .set("enable.idempotence", "true")
                    .set("enable.gapless.guarantee", "true")
                    .set("message.timeout.ms", "0")
                    .set("linger.ms", linger_ms.to_string())
                    .set("batch.size", batch_bytes_max.to_string())
                    .set("queue.buffering.max.messages", in_flight_records_max.to_string())
                    .set("queue.buffering.max.kbytes", (in_flight_bytes_max / 512).to_string())
            }
            Role::Single => settings
                .set("batch.num.messages", "1")
                .set("linger.ms", "0")
                .set("message.timeout.ms", ALONE_TIMEOUT.as_millis().to_string())
                .set("queue.buffering.max.messages", ALONE_RECORDS_MAX.to_string()),
        };
        settings
    }
}

impl Connect for KafkaConnect {
    type Producer = KafkaProducer;

    fn connect(&self, role: Role) -> anyhow::Result<KafkaProducer> {
        let (tls, sasl) = (self.config.tls.as_ref(), self.config.sasl.as_ref());
        let credentials = Credentials::read(tls, sasl)?;
        let mut settings = self.settings(role);
        security::secure(&mut settings, tls, sasl, &credentials);
        let producer: BaseProducer<Reports> = settings
            .create_with_context(Reports::default())
            .context("set up the Kafka producer")?;
        let (producer, is_over) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        take_answers(Arc::clone(&producer), Arc::clone(&is_over))?;
        Ok(KafkaProducer {
            producer: Some(producer),
            is_over,
            config: self.config.clone(),
            credentials,
            look_at: Instant::now() + CREDENTIALS_INTERVAL,
        })
    }
}

/// One librdkafka producer.
pub struct KafkaProducer {
    /// Taken when it is dropped.
    producer: Option<Arc<BaseProducer<Reports>>>,
    /// Ends the thread that takes its answers.
    is_over: Arc<AtomicBool>,
    config: KafkaConfig,
    credentials: Credentials,
    /// When the credentials' files are looked at again, should the connection fail.
    look_at: Instant,
}

impl KafkaProducer {
    fn reports(&self) -> Option<&Reports> {
        self.producer.as_ref().map(|producer| &**producer.context())
    }
}

impl Producer for KafkaProducer {
    fn send(
        &mut self,
        token: Token,
        record: OutboundRecord,
        partition: Option<u32>,
    ) -> Result<(), SendError> {
        let Some(producer) = &self.producer else { return Err(SendError::Full(record)) };
        let topic = record.topic.name(&self.config.topic_prefix);
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value.as_str()) });
        }
        let mut message: BaseRecord<'_, str, [u8], Token> =
            BaseRecord::with_opaque_to(&topic, token)
                .payload(record.payload.as_ref())
                .headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key.as_str());
        }
        message.partition = partition.and_then(|partition| i32::try_from(partition).ok());
        let refusal = match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                return Err(SendError::Full(record));
            }
            Err((error, _)) => refusal(&error),
        };
        if refusal.class == Class::GivenUp {
            return Err(SendError::Broken(refusal.reason));
        }
        // As if the bus had refused it.
        if let Some(reports) = self.reports() {
            reports.add(Delivery { token, result: Err(refusal) });
        }
        Ok(())
    }

    fn poll(&mut self, wait: Duration, into: &mut Vec<Delivery>) {
        if let Some(reports) = self.reports() {
            reports.take(wait, into);
        }
    }

    fn partitions(&mut self, topic: Topic, wait: Duration) -> Result<u32, Refusal> {
        let Some(producer) = &self.producer else { return Ok(0) };
        let name = topic.name(&self.config.topic_prefix);
        let metadata = producer.client().fetch_metadata(Some(&name), wait);
        let metadata = metadata.map_err(|error| refusal(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == name);
        match found.map(|found| (found.error(), found.partitions().len())) {
            Some((None, partitions)) if partitions > 0 => {
                Ok(u32::try_from(partitions).unwrap_or(u32::MAX))
            }
            Some((Some(error), _)) => {
                Err(refusal(&KafkaError::MetadataFetch(RDKafkaErrorCode::from(error))))
            }
            _ => Err(refusal(&KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic))),
        }
    }

    fn broken(&mut self) -> Option<String> {
        let producer = self.producer.as_ref()?;
        if let Some((code, reason)) = producer.client().fatal_error() {
            return Some(format!("{code}: {reason}"));
        }
        let now = Instant::now();
        if now < self.look_at || !self.reports()?.is_failing() {
            return None;
        }
        self.look_at = now + CREDENTIALS_INTERVAL;
        let now = Credentials::read(self.config.tls.as_ref(), self.config.sasl.as_ref());
        // What can't be read is no reason to give up a connection that may work again.
        let is_changed = now.is_ok_and(|now| now != self.credentials);
        is_changed.then(|| "the credentials for Kafka have changed".to_owned())
    }

    fn take_complaint(&mut self) -> Option<String> {
        self.reports()?.complaint.lock().ok()?.take()
    }
}

impl Drop for KafkaProducer {
    /// Giving up what is in flight can wait for a broker or a name server: that is left to the
    /// thread.
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
        }
        self.is_over.store(true, Ordering::Release);
    }
}

/// Takes a producer's answers on a thread of its own, the last to have it: a wait for them in the
/// library is not ended by one, ours is.
fn take_answers(
    producer: Arc<BaseProducer<Reports>>,
    is_over: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let thread = thread::Builder::new().name("kafka-answers".into());
    let take = move || {
        while !is_over.load(Ordering::Acquire) {
            producer.poll(ANSWERS_WAIT);
        }
    };
    thread.spawn(take).map(drop)
}

/// Collects what librdkafka says between two polls; its callbacks run on the thread of the answers.
#[derive(Default)]
struct Reports {
    deliveries: Mutex<Vec<Delivery>>,
    /// There are some.
    delivered: Condvar,
    complaint: Mutex<Option<String>>,
    /// People were told why the connection is refused.
    is_explained: AtomicBool,
}

impl Reports {
    fn add(&self, delivery: Delivery) {
        if let Ok(mut deliveries) = self.deliveries.lock() {
            deliveries.push(delivery);
            if deliveries.len() == 1 {
                self.delivered.notify_one();
            }
        }
    }

    /// Waits up to `wait` until there are some.
    fn take(&self, wait: Duration, into: &mut Vec<Delivery>) {
        let Ok(mut deliveries) = self.deliveries.lock() else { return };
        if deliveries.is_empty() && !wait.is_zero() {
            let waited = self.delivered.wait_timeout_while(deliveries, wait, |all| all.is_empty());
            let Ok((found, _)) = waited else { return };
            deliveries = found;
        }
        into.append(&mut deliveries);
    }

    fn is_failing(&self) -> bool {
        self.complaint.lock().is_ok_and(|complaint| complaint.is_some())
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if (level as u8) <= RDKafkaLogLevel::Error as u8 {
            tracing::warn!(facility, "librdkafka: {message}");
        } else {
            tracing::debug!(facility, "librdkafka: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Broker connections come and go; it matters once nothing is acknowledged any more. What
        // is refused for what it is does not get better by itself: it is said at once.
        match security::explain(reason) {
            Some((found, todo)) if !self.is_explained.swap(true, Ordering::Relaxed) => {
                tracing::error!(reason, todo, "Kafka: {found}; events wait in the spool");
            }
            _ => tracing::debug!(%error, reason, "librdkafka"),
        }
        if let Ok(mut complaint) = self.complaint.lock() {
            // That all brokers are down says less than what was said of one.
            let is_sum = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
            if !is_sum || complaint.is_none() {
                *complaint = Some(format!("{error}: {reason}"));
            }
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Token;

    fn delivery(&self, report: &DeliveryResult<'_>, token: Token) {
        let result = match report {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(refusal(error)),
        };
        self.add(Delivery { token, result });
    }
}

/// What a refusal speaks of.
fn refusal(error: &KafkaError) -> Refusal {
    use RDKafkaErrorCode as Code;
    let class = match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize) => {
            Class::TooLarge
        }
        Some(
            Code::InvalidMessage
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::PolicyViolation
            | Code::UnsupportedForMessageFormat,
        ) => Class::Unfit,
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::InvalidTopic
            | Code::UnknownPartition,
        ) => Class::Topic,
        Some(
            Code::PurgeQueue
            | Code::PurgeInflight
            | Code::Fatal
            | Code::GaplessGuarantee
            | Code::MessageTimedOut
            | Code::OperationTimedOut
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::DestroyBroker,
        ) => Class::GivenUp,
        _ => Class::Unclear,
    };
    Refusal { class, reason: error.to_string() }
}
