//! Asks the broker once how it is, for `edge-gateway check`: without producing anything.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use penstock_common::topic::Topic;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientConfig, ClientContext};

use super::KafkaConfig;
use super::security::{self, Credentials};

/// The topics that a gateway writes to.
const TOPICS: [Topic; 3] = [Topic::RawEvents, Topic::DeadLetter, Topic::GatewayStatus];

/// How long one more complaint is waited for.
const LISTEN: Duration = Duration::from_millis(50);

/// What the broker said.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Every broker as the cluster names it to its clients: host and port.
    pub brokers: Vec<(String, u16)>,
    /// The gateway's topics and how they are.
    pub topics: Vec<(String, TopicState)>,
}

/// How a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// It is there and every partition has a leader.
    Good {
        /// How many partitions it has.
        partitions: usize,
    },
    /// Some partitions have no leader.
    Leaderless {
        /// How many have none.
        partitions: usize,
    },
    /// It is not there.
    Missing,
    /// This client may not see it.
    Forbidden,
    /// Something else.
    Other(String),
}

/// Why nothing is known of the broker.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// The files or settings of the connection can't be used; nothing was tried.
    #[error("{0}")]
    Unusable(String),
    /// No broker answered.
    #[error("{error}")]
    Silent {
        /// The error.
        error: String,
        /// What the library complained of meanwhile, oldest first.
        complaints: Vec<String>,
    },
}

/// Asks for the brokers and the gateway's topics.
///
/// # Errors
/// When the settings can't be used, or no broker answers in time.
pub fn probe(config: &KafkaConfig, timeout: Duration) -> Result<Probe, ProbeError> {
    let client = connect(config).map_err(|error| ProbeError::Unusable(format!("{error:#}")))?;
    let fail = |error: KafkaError| {
        // What went wrong is told only when it is asked for.
        for _ in 0..Complaints::MAX {
            match client.poll(LISTEN) {
                None => break,
                Some(Ok(_)) => {}
                Some(Err(complaint)) => client.context().note(complaint.to_string()),
            }
        }
        ProbeError::Silent { error: error.to_string(), complaints: client.context().take() }
    };
    let mut probe = Probe { brokers: Vec::new(), topics: Vec::new() };
    for topic in TOPICS {
        let name = topic.name(&config.topic_prefix);
        let metadata = client.fetch_metadata(Some(&name), timeout).map_err(fail)?;
        probe.brokers = metadata
            .brokers()
            .iter()
            .map(|broker| (broker.host().to_owned(), u16::try_from(broker.port()).unwrap_or(0)))
            .collect();
        let found = metadata.topics().iter().find(|found| found.name() == name);
        let state = found.map_or(TopicState::Missing, |found| match found.error() {
            Some(error) => failed(error),
            None => {
                let partitions = found.partitions();
                match partitions.iter().filter(|partition| partition.leader() < 0).count() {
                    0 => TopicState::Good { partitions: partitions.len() },
                    leaderless => TopicState::Leaderless { partitions: leaderless },
                }
            }
        });
        probe.topics.push((name, state));
    }
    Ok(probe)
}

fn failed(error: RDKafkaRespErr) -> TopicState {
    match RDKafkaErrorCode::from(error) {
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
            TopicState::Missing
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => TopicState::Forbidden,
        other => TopicState::Other(other.to_string()),
    }
}

/// A consumer that consumes nothing: unlike a producer, asking for a topic does not create it.
fn connect(config: &KafkaConfig) -> anyhow::Result<BaseConsumer<Complaints>> {
    let (tls, sasl) = (config.tls.as_ref(), config.sasl.as_ref());
    let credentials = Credentials::read(tls, sasl)?;
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &config.bootstrap)
        .set("client.id", "penstock-gateway-check")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    security::secure(&mut settings, tls, sasl, &credentials);
    settings.create_with_context(Complaints::default()).context("set up the Kafka client")
}

#[derive(Default)]
struct Complaints(Mutex<Vec<String>>);

impl Complaints {
    const MAX: usize = 50;

    fn note(&self, text: String) {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() < Self::MAX {
            texts.push(text);
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, _: &str, message: &str) {
        if (level as u8) <= RDKafkaLogLevel::Notice as u8 {
            self.note(message.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(format!("{error}: {reason}"));
    }
}

impl ConsumerContext for Complaints {}
