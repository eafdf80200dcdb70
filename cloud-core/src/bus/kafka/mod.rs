//! The bus on Kafka, by rdkafka. No other folder of the core knows it.

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Deserialize;

use super::BusError;

mod admin;
mod consumer;
mod producer;
mod tail;
mod worker;

pub use admin::KafkaAdmin;
pub use consumer::KafkaConsumer;
pub use producer::KafkaProducer;
pub use tail::{Piece, Tailed, tail};

/// Where Kafka is and how topics are made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port`, several joined by commas.
    pub bootstrap: String,
    /// Put before every topic and group name, so that installations can share a cluster.
    pub topic_prefix: String,
    /// Copies of every partition, for topics that are created.
    pub replication: i32,
    /// Copies that must have a record before it is acknowledged.
    pub min_insync_replicas: i32,
    /// After how long without a heartbeat a consumer's partitions go to others.
    pub session_timeout_ms: u32,
    /// A name of this process that its successor will have too (a pod of a stateful set): one that
    /// is back within the session's time-out gets its partitions again and nobody else notices.
    /// Empty: every start is a new member.
    pub instance_id: String,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap: "127.0.0.1:9092".into(),
            topic_prefix: String::new(),
            replication: 1,
            min_insync_replicas: 1,
            session_timeout_ms: 10_000,
            instance_id: String::new(),
        }
    }
}

impl KafkaConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        if self.bootstrap.trim().is_empty() {
            problems.push("kafka.bootstrap is empty: give host:port".into());
        }
        let name_char = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !self.topic_prefix.chars().all(name_char) || self.topic_prefix.len() > 100 {
            problems.push(format!(
                "kafka.topic_prefix {:?}: at most 100 letters, digits, '.', '_' and '-'",
                self.topic_prefix
            ));
        }
        if !self.instance_id.chars().all(name_char) || self.instance_id.len() > 100 {
            problems.push(format!(
                "kafka.instance_id {:?}: at most 100 letters, digits, '.', '_' and '-'",
                self.instance_id
            ));
        }
        if self.replication < 1 || !(1..=self.replication).contains(&self.min_insync_replicas) {
            problems.push(format!(
                "kafka.replication {} and kafka.min_insync_replicas {}: want 1 ≤ insync ≤ replication",
                self.replication, self.min_insync_replicas
            ));
        }
        if !(1_000..=300_000).contains(&self.session_timeout_ms) {
            problems.push(
                "kafka.session_timeout_ms: 1000 to 300000, and brokers take less than 6000 only \
                 with a lower group.min.session.timeout.ms"
                    .into(),
            );
        }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.bootstrap).set("client.id", "penstock-core");
        client
    }
}

impl From<KafkaError> for BusError {
    fn from(error: KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        let retryable = !matches!(error, KafkaError::MessageConsumptionFatal(_))
            && !matches!(
                error.rdkafka_error_code(),
                Some(
                    Code::Fatal
                        | Code::MessageSizeTooLarge
                        | Code::InvalidArgument
                        | Code::Authentication
                        | Code::TopicAuthorizationFailed
                        | Code::GroupAuthorizationFailed
                )
            );
        Self { message: format!("Kafka: {error}"), retryable }
    }
}
