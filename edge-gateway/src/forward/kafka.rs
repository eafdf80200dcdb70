//! The bus is Kafka. Settings that carry a promise:
//!
//! - `enable.idempotence`, `acks=all`: no duplicate and no reordering within a producer's life,
//!   and an acknowledgement means every in-sync replica has it (spec I8).
//! - `message.timeout.ms=0`: librdkafka's default gives a message up after 5 minutes.
//! - `partitioner=murmur2_random`: the same key finds the same partition from any client in any
//!   language.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::{Connect, Delivery, KafkaConfig, OutboundRecord, Producer, SendError, Token};

/// The largest message of any topic (`penstock_common::topic`) and room for its headers.
const MESSAGE_BYTES_MAX: usize = (2 << 20) + (64 << 10);

/// A status needs a place beside the records in flight.
const STATUSES_MAX: usize = 8;

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
}

impl Connect for KafkaConnect {
    type Producer = KafkaProducer;

    fn connect(&self) -> anyhow::Result<KafkaProducer> {
        let config = &self.config;
        let records_max = config.in_flight_records_max.saturating_add(STATUSES_MAX);
        let producer: BaseProducer<Reports> = ClientConfig::new()
            .set("bootstrap.servers", &config.bootstrap)
            .set("client.id", format!("penstock-gateway-{}", self.client_id))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            .set("partitioner", "murmur2_random")
            .set("compression.codec", &config.compression)
            .set("linger.ms", config.linger_ms.to_string())
            .set("queue.buffering.max.messages", records_max.to_string())
            .set("queue.buffering.max.kbytes", (config.in_flight_bytes_max / 512).to_string())
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.keepalive.enable", "true")
            .set_log_level(RDKafkaLogLevel::Warning)
            .create_with_context(Reports::default())
            .context("set up the Kafka producer")?;
        Ok(KafkaProducer { producer, topic_prefix: config.topic_prefix.clone() })
    }
}

/// One librdkafka producer, polled by its only user.
pub struct KafkaProducer {
    producer: BaseProducer<Reports>,
    topic_prefix: String,
}

impl Producer for KafkaProducer {
    fn send(&mut self, token: Token, record: OutboundRecord) -> Result<(), SendError> {
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            return Err(SendError::Broken(format!("{code}: {reason}")));
        }
        let topic = record.topic.name(&self.topic_prefix);
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
        match self.producer.send(message) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                Err(SendError::Full(record))
            }
            Err((error, _)) => Err(SendError::Broken(error.to_string())),
        }
    }

    fn poll(&mut self, wait: Duration, into: &mut Vec<Delivery>) {
        self.producer.poll(wait);
        if let Ok(mut deliveries) = self.producer.context().deliveries.lock() {
            into.append(&mut deliveries);
        }
    }

    fn take_complaint(&mut self) -> Option<String> {
        self.producer.context().complaint.lock().ok()?.take()
    }
}

/// Collects what librdkafka says between two polls; its callbacks run on the polling thread.
#[derive(Default)]
struct Reports {
    deliveries: Mutex<Vec<Delivery>>,
    complaint: Mutex<Option<String>>,
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
        // Broker connections come and go; it matters once nothing is acknowledged any more.
        tracing::debug!(%error, reason, "librdkafka");
        if let Ok(mut complaint) = self.complaint.lock() {
            *complaint = Some(format!("{error}: {reason}"));
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Token;

    fn delivery(&self, report: &DeliveryResult<'_>, token: Token) {
        let result = match report {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.to_string()),
        };
        if let Ok(mut deliveries) = self.deliveries.lock() {
            deliveries.push(Delivery { token, result });
        }
    }
}
