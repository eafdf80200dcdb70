//! Topic administration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use penstock_common::event::UnixMicros;
use rdkafka::Offset;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaErrorCode;

use super::KafkaConfig;
use super::tail::starts;
use crate::bus::topics::{TopicAdmin, TopicPlan, TopicState};
use crate::bus::{BusError, LogEnds, LogTimes, Watermarks};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A Kafka admin client.
pub struct KafkaAdmin {
    client: Arc<AdminClient<DefaultClientContext>>,
    config: KafkaConfig,
}

impl KafkaAdmin {
    /// A client; it connects when first used.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn open(config: &KafkaConfig) -> Result<Self, BusError> {
        Ok(Self { client: Arc::new(config.client().create()?), config: config.clone() })
    }

    /// A created topic reaches the brokers' metadata a moment later.
    async fn until_visible(&self, name: &str) -> Result<(), BusError> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.exists(name)? {
            if Instant::now() >= deadline {
                let message = format!("{name} was created but does not appear");
                return Err(BusError { message, retryable: true });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn exists(&self, name: &str) -> Result<bool, BusError> {
        let metadata = self.metadata()?;
        Ok(metadata.topics().iter().any(|topic| topic.name() == name))
    }

    /// Of all topics: some brokers create one that is asked for by name.
    fn metadata(&self) -> Result<Metadata, BusError> {
        let fetch = || self.client.inner().fetch_metadata(None, TIMEOUT);
        Ok(tokio::task::block_in_place(fetch)?)
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
    }
}

fn refused(code: RDKafkaErrorCode) -> BusError {
    KafkaError::AdminOp(code).into()
}

#[async_trait]
impl TopicAdmin for KafkaAdmin {
    async fn describe(&self, name: &str) -> Result<Option<TopicState>, BusError> {
        let metadata = self.metadata()?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(None);
        };
        let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
        let resources = [ResourceSpecifier::Topic(name)];
        let described = self.client.describe_configs(&resources, &Self::options()).await?;
        let mut settings = BTreeMap::new();
        let mut overridden = Vec::new();
        for resource in described {
            for entry in resource.map_err(refused)?.entries {
                if entry.source == ConfigSource::DynamicTopic {
                    overridden.push(entry.name.clone());
                }
                settings.insert(entry.name, entry.value.unwrap_or_default());
            }
        }
        Ok(Some(TopicState { partitions, settings, overridden }))
    }

    async fn create(&self, plan: &TopicPlan) -> Result<(), BusError> {
        let replication = TopicReplication::Fixed(plan.replication);
        let mut topic = NewTopic::new(&plan.name, plan.partitions, replication);
        for (key, value) in &plan.settings {
            topic = topic.set(key, value);
        }
        for result in self.client.create_topics([&topic], &Self::options()).await? {
            match result {
                // Somebody else was faster: the next look reconciles.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(refused(code)),
            }
        }
        self.until_visible(&plan.name).await
    }

    async fn set(&self, name: &str, settings: &BTreeMap<String, String>) -> Result<(), BusError> {
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in settings {
            alter = alter.set(key, value);
        }
        for result in self.client.alter_configs([&alter], &Self::options()).await? {
            result.map_err(|(_, code)| refused(code))?;
        }
        Ok(())
    }
}

#[async_trait]
impl LogEnds for KafkaAdmin {
    async fn ends(&self, topic: &str) -> Result<Vec<Watermarks>, BusError> {
        let (client, topic) = (Arc::clone(&self.client), topic.to_owned());
        let ask = move || -> Result<Vec<Watermarks>, BusError> {
            let client = client.inner();
            let metadata = client.fetch_metadata(None, TIMEOUT)?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
                let message = format!("there is no topic {topic}");
                return Err(BusError { message, retryable: true });
            };
            let ids = found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id);
            ids.map(|partition| {
                let (low, high) = client.fetch_watermarks(&topic, partition, TIMEOUT)?;
                Ok(Watermarks { partition, low, high })
            })
            .collect()
        };
        tokio::task::spawn_blocking(ask).await.unwrap_or_else(|error| {
            Err(BusError { message: format!("ask for the ends: {error}"), retryable: true })
        })
    }
}

#[async_trait]
impl LogTimes for KafkaAdmin {
    async fn first_since(
        &self,
        topic: &str,
        time: UnixMicros,
    ) -> Result<BTreeMap<i32, i64>, BusError> {
        // Only a consumer can ask. It joins no group.
        let mut client = self.config.client();
        let consumer: BaseConsumer = client.set("group.id", "penstock-times").create()?;
        let topic = topic.to_owned();
        let ask = move || -> Result<BTreeMap<i32, i64>, BusError> {
            // Brokers count in milliseconds; the one that has begun counts as old.
            let starts =
                starts(&consumer, &topic, time.0.max(0).unsigned_abs().div_ceil(1_000) as i64)?;
            let offset = |element: &TopicPartitionListElem<'_>| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            };
            Ok(starts.elements().iter().filter_map(offset).collect())
        };
        tokio::task::spawn_blocking(ask).await.unwrap_or_else(|error| {
            Err(BusError { message: format!("ask for offsets by time: {error}"), retryable: true })
        })
    }
}
