//! What the tests share: private topics, database and objects for each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud_core::bus::Consumer;
use cloud_core::bus::kafka::{KafkaAdmin, KafkaConfig, KafkaConsumer, KafkaProducer};
use cloud_core::bus::topics::{TopicAdmin, plans};
use cloud_core::failpoint::Failpoints;
use cloud_core::raw::metrics::RawMetrics;
use cloud_core::raw::sink::{Intake, RawSink};
use cloud_core::raw::write::Writer;
use cloud_core::raw::{ROLE, RawConfig};
use cloud_core::source::metrics::{SourceCounters, SourceMetrics};
use cloud_core::source::poison::PoisonMemory;
use cloud_core::source::runner::Runner;
use cloud_core::store::catalog::Catalog;
use cloud_core::store::object::{Objects, StoreConfig};
use cloud_core::store::postgres::{self, CatalogConfig};
use penstock_common::topic::Topic;
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) mod api;
pub(crate) mod events;
pub(crate) mod http;
pub(crate) mod letters;
pub(crate) mod proxy;
pub(crate) mod services;
pub(crate) mod stored;

pub(crate) use events::Sent;
use services::{Database, env, new_bucket};

/// Few, so that every partition gets something.
pub(crate) const PARTITIONS: i32 = 4;

/// Where objects go in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Directory,
    S3,
}

/// The surroundings of one test.
pub(crate) struct Rig {
    pub(crate) kafka: KafkaConfig,
    pub(crate) catalog_config: CatalogConfig,
    pub(crate) store_config: StoreConfig,
    pub(crate) catalog: Catalog,
    pub(crate) objects: Objects,
    pub(crate) raw: RawConfig,
    pub(crate) producer: Arc<KafkaProducer>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) database: Database,
}

/// A random word for names.
pub(crate) fn word() -> String {
    format!("{:08x}", rand::random::<u32>())
}

impl Rig {
    pub(crate) async fn new(store: Store) -> Self {
        let kafka = KafkaConfig {
            bootstrap: env("PENSTOCK_KAFKA"),
            topic_prefix: format!("t-{}.", word()),
            session_timeout_ms: 6_000,
            ..KafkaConfig::default()
        };
        let admin = KafkaAdmin::open(&kafka).unwrap();
        for mut plan in plans(&kafka.topic_prefix, 1, 1) {
            plan.partitions = PARTITIONS;
            admin.create(&plan).await.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let store_config = match store {
            Store::Directory => StoreConfig {
                url: format!("file://{}/objects", dir.path().display()),
                ..StoreConfig::default()
            },
            Store::S3 => new_bucket().await,
        };
        let database = Database::create().await;
        let catalog_config = CatalogConfig { dsn: database.dsn.clone(), connections_max: 8 };
        let pool = postgres::pool(&catalog_config).unwrap();
        postgres::migrate(&pool).await.unwrap();
        // The events of tests have fixed times.
        let raw =
            RawConfig { flush_interval_ms: 300, late_days_max: 3_650, ..RawConfig::default() };
        Self {
            producer: Arc::new(KafkaProducer::open(&kafka).unwrap()),
            catalog: Catalog::new(pool, Failpoints::default()),
            objects: Objects::open(&store_config).unwrap(),
            kafka,
            catalog_config,
            store_config,
            raw,
            dir,
            database,
        }
    }

    pub(crate) fn topic(&self) -> String {
        Topic::RawEvents.name(&self.kafka.topic_prefix)
    }

    pub(crate) fn dead_letter_topic(&self) -> String {
        Topic::DeadLetter.name(&self.kafka.topic_prefix)
    }

    pub(crate) fn group(&self) -> String {
        format!("{}raw", self.kafka.topic_prefix)
    }

    /// Runs a raw writer.
    pub(crate) fn start(&self) -> Running {
        self.start_with(Failpoints::default())
    }

    pub(crate) fn start_with(&self, failpoints: Failpoints) -> Running {
        self.run(self.consumer(), failpoints)
    }

    /// Runs a raw writer on this consumer.
    pub(crate) fn start_on(&self, consumer: Box<dyn Consumer>) -> Running {
        self.run(consumer, Failpoints::default())
    }

    fn consumer(&self) -> Box<dyn Consumer> {
        Box::new(KafkaConsumer::open(&self.kafka, &self.group(), &self.topic()).unwrap())
    }

    fn run(&self, consumer: Box<dyn Consumer>, failpoints: Failpoints) -> Running {
        let pool = postgres::pool(&self.catalog_config).unwrap();
        let registry = Registry::new();
        let metrics = RawMetrics::new(&registry).unwrap();
        let source = SourceMetrics::new(&registry).unwrap().of(ROLE, "raw-events");
        let writer = Writer {
            catalog: Catalog::new(pool, failpoints.clone()),
            objects: self.objects.clone(),
            producer: self.producer.clone(),
            topic: self.topic(),
            dead_letter_topic: self.dead_letter_topic(),
            failpoints,
            metrics: metrics.clone(),
        };
        let stop = CancellationToken::new();
        let runner = Runner {
            role: ROLE,
            consumer,
            positions: writer.catalog.positions(),
            sink: RawSink::new(writer, self.raw.clone(), Intake::Every),
            config: self.raw.runner(),
            counters: source.clone(),
            poison: PoisonMemory::default(),
            stop: stop.clone(),
        };
        Running { task: tokio::spawn(runner.run()), stop, metrics, source }
    }

    /// Waits until everything that was sent is stored or a dead letter.
    pub(crate) async fn drained(&self, sent: &[Sent]) {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for one in sent {
            let end = ends.entry(one.partition).or_default();
            *end = (*end).max(one.offset + 1);
        }
        let topic = self.topic();
        eventually("everything is stored", async || {
            let positions = self.catalog.positions().of_role(ROLE).await.unwrap();
            ends.iter().all(|(partition, end)| {
                positions.iter().any(|position| {
                    position.topic == topic
                        && position.partition == *partition
                        && position.next_offset >= *end
                })
            })
        })
        .await;
    }
}

/// A raw writer at work.
pub(crate) struct Running {
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: RawMetrics,
    pub(crate) source: SourceCounters,
}

impl Running {
    /// Drains it.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it wherever it is, as a crash does.
    pub(crate) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Waits for a condition; fails after a minute.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited a minute for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
