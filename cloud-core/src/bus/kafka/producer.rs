//! A producer for single messages: idempotent, `acks=all`, and without a time-out that drops.

use async_trait::async_trait;
use penstock_common::codec::Headers;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::KafkaConfig;
use crate::bus::{BusError, Producer};

/// Messages up to 2 MiB, as `dead-letter` takes them.
const MESSAGE_BYTES_MAX: u32 = 2 << 20;

/// A Kafka producer.
pub struct KafkaProducer {
    producer: FutureProducer,
}

impl KafkaProducer {
    /// A producer; it connects when first used.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn open(config: &KafkaConfig) -> Result<Self, BusError> {
        let producer = config
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // 0: the library keeps trying; its default of 5 minutes would give up.
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            .set("compression.type", "lz4")
            // The partition any client in any language would choose for the key.
            .set("partitioner", "murmur2_random")
            .create()?;
        Ok(Self { producer })
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: &Headers,
    ) -> Result<(), BusError> {
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(value) });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).payload(payload).headers(owned);
        if let Some(key) = key {
            record = record.key(key);
        }
        match self.producer.send(record, Timeout::Never).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.into()),
        }
    }
}
