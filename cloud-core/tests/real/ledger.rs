//! The loss ledger on real parts: what the raw writer and dead letters account for, what is left
//! out on purpose and found, and that nothing else is ever called missing.

use std::sync::Arc;
use std::time::Duration;

use cloud_core::bus::kafka::{KafkaAdmin, KafkaConsumer};
use cloud_core::bus::{Producer, Record};
use cloud_core::cli;
use cloud_core::config::CoreConfig;
use cloud_core::ledger::answer::{Answer, ask};
use cloud_core::ledger::bits::{Kind, SeenBuilder};
use cloud_core::ledger::check::{Checker, Reader};
use cloud_core::ledger::metrics::LedgerMetrics;
use cloud_core::ledger::sink::StatusSink;
use cloud_core::ledger::{DEAD_LETTER_ROLE, LedgerConfig, ROLE};
use cloud_core::source::metrics::SourceMetrics;
use cloud_core::source::poison::PoisonMemory;
use cloud_core::source::runner::{Runner, Sink};
use cloud_core::store::catalog::Catalog;
use cloud_core::store::ledger::{LedgerStore, Question};
use cloud_core::store::positions::Claim;
use cloud_core::store::publish::{Covered, Publication};
use futures::FutureExt;
use futures::future::BoxFuture;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::codec::{decode_dead_letter, encode_dead_letter};
use penstock_common::event::{DeadLetterMeta, Epoch, Provenance, UnixMicros};
use penstock_common::status::{EpochStatus, GatewayStatus};
use penstock_common::topic::Topic;
use prometheus::Registry;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::events::Event;
use crate::support::{Rig, Store, eventually};

const E: Epoch = Epoch(255);
const GATEWAY: &str = "plant-7";

/// What the dead-letter writer does for the ledger.
struct DeadLetters {
    catalog: Catalog,
    topic: String,
    held: SeenBuilder,
    due: Option<Instant>,
}

impl Sink for DeadLetters {
    fn assigned<'a>(&'a mut self, _claims: &'a [Claim]) -> BoxFuture<'a, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn hold(&mut self, record: &Record) -> anyhow::Result<()> {
        let meta = decode_dead_letter(record.headers())?;
        self.held.add_provenance(Kind::Dead, &meta.provenance);
        self.due.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn poison(&mut self, _record: &Record, _attempts: u32) -> anyhow::Result<()> {
        Ok(())
    }

    fn is_full(&self) -> bool {
        false
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn flush(&mut self, mut covered: Vec<Covered>) -> BoxFuture<'static, anyhow::Result<()>> {
        covered.retain(|c| c.to > c.from);
        self.due = None;
        let publication = Publication {
            role: DEAD_LETTER_ROLE.into(),
            topic: self.topic.clone(),
            files: Vec::new(),
            covered,
            seen: std::mem::take(&mut self.held).finish(),
        };
        let catalog = self.catalog.clone();
        async move { Ok(catalog.publish(&publication).await?) }.boxed()
    }

    fn flushed(&mut self) {}

    fn discard(&mut self) {
        self.held = SeenBuilder::default();
    }
}

/// The ledger at work beside a rig.
struct Ledger {
    rig: Rig,
    store: LedgerStore,
    metrics: LedgerMetrics,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

fn config() -> LedgerConfig {
    LedgerConfig { flush_interval_ms: 50, check_interval_ms: 50, ..LedgerConfig::default() }
}

impl Ledger {
    async fn new() -> Self {
        let mut rig = Rig::new(Store::Directory).await;
        rig.raw.flush_interval_ms = 50;
        let store = LedgerStore::new(rig.catalog.pool().clone());
        let metrics = LedgerMetrics::new(&Registry::new()).unwrap();
        let (stop, tasks) = (CancellationToken::new(), JoinSet::new());
        let mut this = Self { rig, store, metrics, stop, tasks };
        let topic = this.topic(Topic::GatewayStatus);
        let (store, metrics) = (this.store.clone(), this.metrics.clone());
        this.run(ROLE, &topic, StatusSink::new(store, topic.clone(), config(), metrics));
        let reader =
            |role: &str, topic: Topic| Reader { role: role.into(), topic: this.topic(topic) };
        let checker = Checker {
            store: this.store.clone(),
            positions: this.rig.catalog.positions(),
            ends: Arc::new(KafkaAdmin::open(&this.rig.kafka).unwrap()),
            readers: vec![
                reader("raw", Topic::RawEvents),
                reader(DEAD_LETTER_ROLE, Topic::DeadLetter),
            ],
            config: config(),
            clock: Arc::new(SystemClock),
            metrics: this.metrics.clone(),
        };
        this.tasks.spawn(checker.run(this.stop.clone()));
        this
    }

    fn topic(&self, topic: Topic) -> String {
        topic.name(&self.rig.kafka.topic_prefix)
    }

    fn run<S: Sink + 'static>(&mut self, role: &'static str, topic: &str, sink: S) {
        let group = format!("{topic}-{role}");
        let runner = Runner {
            role,
            consumer: Box::new(KafkaConsumer::open(&self.rig.kafka, &group, topic).unwrap()),
            sink,
            positions: self.rig.catalog.positions(),
            config: config().runner(),
            counters: SourceMetrics::new(&Registry::new()).unwrap().of(role, topic),
            poison: PoisonMemory::default(),
            stop: self.stop.clone(),
        };
        self.tasks.spawn(async move { runner.run().await.unwrap() });
    }

    fn read_dead_letters(&mut self) {
        let topic = self.topic(Topic::DeadLetter);
        let (held, due) = (SeenBuilder::default(), None);
        let catalog = self.rig.catalog.clone();
        self.run(
            DEAD_LETTER_ROLE,
            &topic,
            DeadLetters { catalog, topic: topic.clone(), held, due },
        );
    }

    async fn send(&self, numbers: impl IntoIterator<Item = u64>) {
        let event = |seq: u64| {
            let mut event = Event::new(&format!("dev-{}", seq % 7), seq as i64);
            (event.epoch, event.seq) = (E.0, seq);
            event
        };
        let events: Vec<Event> = numbers.into_iter().map(event).collect();
        self.rig.send(&events).await;
    }

    async fn reject(&self, numbers: impl IntoIterator<Item = u64>) {
        let topic = self.topic(Topic::DeadLetter);
        let sends = numbers.into_iter().map(async |seq| {
            let meta = DeadLetterMeta {
                stage: "gateway.admit".into(),
                reason: "schema_violation".into(),
                detail: "{}".into(),
                schema_version: None,
                fleet: "press-line".into(),
                provenance: Provenance { gateway: GATEWAY.into(), epoch: E, seq },
                first_seen: UnixMicros(0),
                attempts: 1,
                source: None,
                traceparent: None,
            };
            let headers = encode_dead_letter(&meta);
            self.rig.producer.send(&topic, None, b"{}", &headers).await.unwrap();
        });
        futures::future::join_all(sends).await;
    }

    async fn tell(&self, next: u64, retired: u64) {
        let status = GatewayStatus {
            epochs: vec![EpochStatus { epoch: E, next, retired, not_kept: 0 }],
            ..GatewayStatus::new(GATEWAY.into(), SystemClock.now(), E)
        };
        let (topic, bytes) = (self.topic(Topic::GatewayStatus), status.encode().unwrap());
        let key = GATEWAY.as_bytes();
        self.rig.producer.send(&topic, Some(key), &bytes, &Vec::new()).await.unwrap();
    }

    async fn ask(&self) -> Answer {
        let question = Question { gateway: Some(GATEWAY.into()), ..Question::default() };
        ask(&self.store, &question, SystemClock.now(), 60_000).await.unwrap()
    }

    /// Waits until everything up to `retired` is judged.
    async fn judged(&self, retired: u64) -> Answer {
        let sql = "SELECT coalesce(max(judged), 0) FROM ledger_epoch";
        let client = self.rig.database.client().await;
        eventually("the verdict", async || {
            let judged: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
            judged.unsigned_abs() >= retired
        })
        .await;
        self.ask().await
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_left_out_is_found_named_and_forgiven_when_it_comes_after_all() {
    let mut ledger = Ledger::new().await;
    let raw = ledger.rig.start();
    ledger.read_dead_letters();
    ledger.send((0..300).filter(|seq| *seq != 123)).await;
    ledger.reject(300..320).await;
    ledger.tell(330, 320).await;
    let answer = ledger.judged(320).await;
    let sums = &answer.total;
    assert_eq!((sums.received, sums.stored, sums.dead_lettered), (330, 299, 20), "{sums:?}");
    assert_eq!((sums.in_flight, sums.missing), (10, 1));
    let missing = &answer.gateways[0].missing_ranges;
    assert_eq!(missing.len(), 1);
    assert_eq!((missing[0].epoch.as_str(), missing[0].from_seq), ("00000000000000ff", 123));
    assert!(answer.to_text().contains("MISSING: plant-7/00000000000000ff/123..124"));
    eventually("the metric", async || ledger.metrics.missing(GATEWAY) == 1).await;
    let config = CoreConfig { catalog: ledger.rig.catalog_config.clone(), ..CoreConfig::default() };
    assert!(!cli::ledger(config.clone(), Vec::new(), false).await.unwrap());

    ledger.send([123]).await;
    eventually("forgiven", async || ledger.ask().await.total.missing == 0).await;
    eventually("the metric", async || ledger.metrics.missing(GATEWAY) == 0).await;
    assert!(cli::ledger(config, Vec::new(), true).await.unwrap());
    let resolved = "SELECT count(*) FROM ledger_missing WHERE resolved_at IS NOT NULL";
    eventually("resolved", async || ledger.rig.database.number(resolved).await == 1).await;
    raw.stop().await;
    ledger.end().await;
}

/// Heavy rejection, events that the raw writer can't store, and the same record more than once:
/// no false loss.
#[tokio::test(flavor = "multi_thread")]
async fn rejections_poison_and_repeats_are_no_loss() {
    let mut ledger = Ledger::new().await;
    let raw = ledger.rig.start();
    ledger.read_dead_letters();
    ledger.send((0..200).chain(50..120)).await;
    ledger.reject((200..1_000).chain(300..400)).await;
    let poison = |seq: u64| {
        let mut event = Event::new("dev-1", 1);
        (event.epoch, event.seq) = (E.0, seq);
        ("dev-1".to_owned(), b"{".to_vec(), event.headers())
    };
    ledger.rig.send_raw((1_000..1_010).map(poison).collect()).await;
    ledger.tell(1_010, 1_010).await;
    let sums = ledger.judged(1_010).await.total;
    assert_eq!((sums.stored, sums.dead_lettered, sums.missing), (200, 810, 0), "{sums:?}");
    assert_eq!(sums.in_flight, 0);
    assert_eq!(ledger.rig.database.number("SELECT count(*) FROM ledger_missing").await, 0);
    raw.stop().await;
    ledger.end().await;
}

/// A reader that stands still delays the verdict; it raises no false alarm.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_partition_delays_the_verdict() {
    let mut ledger = Ledger::new().await;
    ledger.read_dead_letters();
    ledger.send((0..100).filter(|seq| *seq != 7)).await;
    ledger.tell(100, 100).await;
    let waiting = async || ledger.metrics.waiting.get() == 1;
    eventually("the verdict waits", waiting).await;
    // Everything has been looked at several times since.
    let checks = ledger.metrics.statuses.get();
    for _ in 0..5 {
        ledger.tell(100, 100).await;
    }
    eventually("statuses", async || ledger.metrics.statuses.get() > checks).await;
    tokio::time::timeout(Duration::from_secs(1), async {
        while ledger.ask().await.total.missing == 0 && ledger.metrics.waiting.get() == 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect_err("no verdict while nobody has read the events");
    let raw = ledger.rig.start();
    let answer = ledger.judged(100).await;
    assert_eq!((answer.total.stored, answer.total.missing), (99, 1));
    raw.stop().await;
    ledger.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_statuses_are_passed_over() {
    let mut ledger = Ledger::new().await;
    let raw = ledger.rig.start();
    ledger.read_dead_letters();
    let topic = ledger.topic(Topic::GatewayStatus);
    for bytes in [b"{".as_slice(), b"{\"format\":9}"] {
        let key = GATEWAY.as_bytes();
        ledger.rig.producer.send(&topic, Some(key), bytes, &Vec::new()).await.unwrap();
    }
    ledger.send(0..10).await;
    ledger.tell(10, 10).await;
    assert_eq!(ledger.judged(10).await.total.missing, 0);
    assert_eq!(ledger.metrics.unreadable.get(), 2);
    raw.stop().await;
    ledger.end().await;
}
