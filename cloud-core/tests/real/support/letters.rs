//! Dead letters as gateways send them, and the roles that deal with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cloud_core::bus::Consumer;
use cloud_core::bus::kafka::KafkaConsumer;
use cloud_core::deadletter::letter::Letter;
use cloud_core::deadletter::metrics::DeadLetterMetrics;
use cloud_core::deadletter::replay::Replayer;
use cloud_core::deadletter::resolve::Resolver;
use cloud_core::deadletter::sink::LetterSink;
use cloud_core::deadletter::stored::read_rows;
use cloud_core::deadletter::write::LetterWriter;
use cloud_core::deadletter::{self, DeadLetterConfig};
use cloud_core::failpoint::Failpoints;
use cloud_core::query::Queries;
use cloud_core::raw::ROLE;
use cloud_core::raw::metrics::RawMetrics;
use cloud_core::raw::sink::{Intake, RawSink};
use cloud_core::raw::write::Writer;
use cloud_core::source::metrics::SourceMetrics;
use cloud_core::source::poison::PoisonMemory;
use cloud_core::source::runner::Runner;
use cloud_core::store::catalog::Catalog;
use cloud_core::store::postgres;
use penstock_common::clock::SystemClock;
use penstock_common::codec::encode_dead_letter;
use penstock_common::event::{DeadLetterMeta, Epoch, Provenance, UnixMicros};
use penstock_common::schema::SchemaSet;
use penstock_common::topic::Topic;
use prometheus::Registry;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::api::TestApi;
use super::events::{SECOND, T0};
use super::{Rig, eventually};

/// A letter to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// An event of that firmware which schema 1 admits, `second` seconds after T0.
pub(crate) fn event(device: &str, second: i64, firmware: &str) -> (Uuid, String) {
    let id = Uuid::new_v4();
    let time = UnixMicros(T0 + second * SECOND).to_rfc3339();
    let text = format!(
        r#"{{ "event_id":"{id}","device_id":"{device}","device_firmware_version":"{firmware}","timestamp":"{time}","metrics":{{"cpu_temp":61.5,"vibration_rms":2.31,"supply_voltage":23.9}} }}"#
    );
    (id, text)
}

pub(crate) fn meta(reason: &str, second: i64) -> DeadLetterMeta {
    DeadLetterMeta {
        stage: "gateway.admit".into(),
        reason: reason.into(),
        detail: r#"{"index":0,"errors":[]}"#.into(),
        schema_version: None,
        fleet: "press-line".into(),
        provenance: Provenance {
            gateway: "plant-7".into(),
            epoch: Epoch(255),
            seq: second.unsigned_abs(),
        },
        first_seen: UnixMicros(T0 + second * SECOND + SECOND / 2),
        attempts: 1,
        source: None,
        traceparent: None,
    }
}

/// A letter with this context and these bytes.
pub(crate) fn draft(device: &str, meta: &DeadLetterMeta, payload: impl Into<Vec<u8>>) -> Draft {
    let headers = encode_dead_letter(meta).into_iter();
    let headers = headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).collect();
    Draft { key: device.into(), payload: payload.into(), headers }
}

/// Letters of several devices.
pub(crate) fn drafts(devices: usize, each: i64) -> Vec<Draft> {
    let one = |device: usize, n: i64| {
        let device = format!("dev-{device}");
        let (_, text) = event(&device, n * 10, "9.0.0");
        draft(&device, &meta("unknown_firmware", n * 10), text)
    };
    (0..each).flat_map(|n| (0..devices).map(move |device| one(device, n))).collect()
}

/// A role at work.
pub(crate) struct Role {
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: DeadLetterMetrics,
}

impl Role {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    pub(crate) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

impl Rig {
    /// Sends letters, one after the other in each partition; returns their ids.
    pub(crate) async fn send_letters(&self, drafts: &[Draft]) -> Vec<String> {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka.bootstrap)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", "2097152")
            .set("linger.ms", "5")
            .create()
            .unwrap();
        let topic = self.dead_letter_topic();
        let send = async |draft: &Draft| {
            let mut owned = OwnedHeaders::new();
            for (key, value) in &draft.headers {
                owned = owned.insert(Header { key, value: Some(value) });
            }
            let record = FutureRecord::to(&topic).key(&draft.key).payload(&draft.payload);
            let sent = producer.send(record.headers(owned), Timeout::Never).await.unwrap();
            format!("{topic}:{}:{}", sent.partition, sent.offset)
        };
        futures::future::join_all(drafts.iter().map(send)).await
    }

    pub(crate) fn letters_config(&self) -> DeadLetterConfig {
        DeadLetterConfig { flush_interval_ms: 200, resolve_first_ms: 1, ..Default::default() }
    }

    /// Runs the dead-letter store.
    pub(crate) fn start_letters(&self, failpoints: Failpoints) -> Role {
        let registry = Registry::new();
        let metrics = DeadLetterMetrics::new(&registry).unwrap();
        let (topic, config) = (self.dead_letter_topic(), self.letters_config());
        let group = format!("{}letters", self.kafka.topic_prefix);
        let pool = postgres::pool(&self.catalog_config).unwrap();
        let writer = LetterWriter {
            catalog: Catalog::new(pool, failpoints.clone()),
            objects: self.objects.clone(),
            topic: topic.clone(),
            look_after_ms: config.resolve_first_ms,
            failpoints,
            metrics: metrics.clone(),
        };
        let stop = CancellationToken::new();
        let runner = Runner {
            role: deadletter::ROLE,
            consumer: Box::new(KafkaConsumer::open(&self.kafka, &group, &topic).unwrap()),
            positions: writer.catalog.positions(),
            sink: LetterSink::new(writer, config.clone()),
            config: config.runner(),
            counters: SourceMetrics::new(&registry).unwrap().of(deadletter::ROLE, "dead-letter"),
            poison: PoisonMemory::default(),
            stop: stop.clone(),
        };
        Role { task: tokio::spawn(runner.run()), stop, metrics }
    }

    /// Waits until the store has passed all these letters.
    pub(crate) async fn letters_stored(&self, ids: &[String]) {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for id in ids {
            let mut parts = id.rsplit(':');
            let offset: i64 = parts.next().unwrap().parse().unwrap();
            let end = ends.entry(parts.next().unwrap().parse().unwrap()).or_default();
            *end = (*end).max(offset + 1);
        }
        eventually("all dead letters are stored", async || {
            let positions = self.catalog.positions().of_role(deadletter::ROLE).await.unwrap();
            ends.iter().all(|(partition, end)| {
                positions.iter().any(|p| p.partition == *partition && p.next_offset >= *end)
            })
        })
        .await;
    }

    /// All letters of all published files.
    pub(crate) async fn letters(&self) -> Vec<Letter> {
        let sql = "SELECT path, bytes, rows FROM raw_file \
                   WHERE kind = 'dead' AND state = 'published'";
        let mut letters = Vec::new();
        for file in self.database.client().await.query(sql, &[]).await.unwrap() {
            let (bytes, rows): (i64, i64) = (file.get(1), file.get(2));
            let rows: Vec<usize> = (0..usize::try_from(rows).unwrap()).collect();
            let path: &str = file.get(0);
            assert!(path.starts_with("dead-letters/date=20"), "{path}");
            letters
                .extend(read_rows(&self.objects, path, bytes.unsigned_abs(), &rows).await.unwrap());
        }
        letters
    }

    /// Files and index have every letter exactly once, with its bytes.
    pub(crate) async fn assert_letters_exactly(&self, ids: &[String], drafts: &[Draft]) {
        let id = |letter: &Letter| {
            let place = &letter.place;
            format!("{}:{}:{}", place.topic, place.partition, place.offset)
        };
        let stored: Vec<Letter> = self.letters().await;
        let by_id: BTreeMap<String, &Letter> = stored.iter().map(|l| (id(l), l)).collect();
        assert_eq!((stored.len(), by_id.len()), (ids.len(), ids.len()));
        for (id, draft) in ids.iter().zip(drafts) {
            let letter = by_id[id];
            assert_eq!(
                (&letter.payload, letter.key.as_deref()),
                (&draft.payload, Some(draft.key.as_bytes()))
            );
        }
        let sql = "SELECT topic || ':' || \"partition\" || ':' || \"offset\" FROM dead_letter";
        let rows = self.database.client().await.query(sql, &[]).await.unwrap();
        let mut indexed: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let mut wanted = ids.to_vec();
        indexed.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(indexed, wanted);
    }

    pub(crate) fn resolver(&self) -> Resolver {
        Resolver {
            catalog: self.catalog.clone(),
            queries: Queries::new(self.catalog.clone(), self.objects.clone()),
            config: self.letters_config(),
            metrics: DeadLetterMetrics::new(&Registry::new()).unwrap(),
        }
    }

    pub(crate) fn replayer(&self, schemas: SchemaSet, failpoints: Failpoints) -> Replayer {
        Replayer {
            catalog: self.catalog.clone(),
            objects: self.objects.clone(),
            producer: self.producer.clone(),
            topic: Topic::ReplayEvents.name(&self.kafka.topic_prefix),
            schemas,
            late_days_max: self.raw.late_days_max,
            look_after_ms: 1,
            send_timeout: Duration::from_secs(30),
            clock: Arc::new(SystemClock),
            failpoints,
            metrics: DeadLetterMetrics::new(&Registry::new()).unwrap(),
        }
    }

    /// Runs a raw writer on the replays.
    pub(crate) fn start_replays(&self) -> (JoinHandle<anyhow::Result<()>>, CancellationToken) {
        let registry = Registry::new();
        let topic = Topic::ReplayEvents.name(&self.kafka.topic_prefix);
        let group = format!("{}raw-replay", self.kafka.topic_prefix);
        let consumer: Box<dyn Consumer> =
            Box::new(KafkaConsumer::open(&self.kafka, &group, &topic).unwrap());
        let writer = Writer {
            catalog: self.catalog.clone(),
            objects: self.objects.clone(),
            producer: self.producer.clone(),
            topic,
            dead_letter_topic: self.dead_letter_topic(),
            failpoints: Failpoints::default(),
            metrics: RawMetrics::new(&registry).unwrap(),
        };
        let stop = CancellationToken::new();
        let runner = Runner {
            role: ROLE,
            consumer,
            positions: writer.catalog.positions(),
            sink: RawSink::new(writer, self.raw.clone(), Intake::DeadLetterOrigin),
            config: self.raw.runner(),
            counters: SourceMetrics::new(&registry).unwrap().of(ROLE, "replay-events"),
            poison: PoisonMemory::default(),
            stop: stop.clone(),
        };
        (tokio::spawn(runner.run()), stop)
    }
}

/// The API of a rig, with replays.
pub(crate) struct LetterApi(TestApi);

impl LetterApi {
    pub(crate) async fn start(rig: &Rig, replayer: Replayer) -> Self {
        Self(TestApi::start(rig, Some(replayer)).await)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.0.get(path).await
    }

    pub(crate) async fn replay(&self, json: &Value) -> (u16, Value) {
        self.0.post("/v1/dead-letters/replay", json).await
    }

    pub(crate) async fn one(&self, id: &str) -> Value {
        let (status, letter) = self.get(&format!("/v1/dead-letters/{id}")).await;
        assert_eq!(status, 200, "{letter}");
        letter
    }
}
