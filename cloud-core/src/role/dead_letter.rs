//! Wires the dead-letter store, and the replays of the API.

use std::sync::Arc;
use std::time::Duration;

use penstock_common::clock::SystemClock;
use penstock_common::schema::SchemaSet;
use penstock_common::topic::Topic;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Role, Shared};
use crate::bus::kafka::{KafkaConsumer, KafkaProducer};
use crate::deadletter;
use crate::deadletter::replay::Replayer;
use crate::deadletter::resolve::Resolver;
use crate::deadletter::sink::LetterSink;
use crate::deadletter::write::LetterWriter;
use crate::failpoint::Failpoints;
use crate::query::Queries;
use crate::source::runner::Runner;

/// Stores dead letters, and looks for those whose event is stored after all.
pub(super) async fn run(shared: Shared, stop: CancellationToken) -> anyhow::Result<()> {
    let Shared { config, catalog, objects, dead_letter_metrics: metrics, .. } = shared;
    let (prefix, settings) = (&config.kafka.topic_prefix, &config.deadletter);
    let topic = Topic::DeadLetter.name(prefix);
    let group = format!("{prefix}{}", settings.group);
    let writer = LetterWriter {
        catalog: catalog.clone(),
        objects: objects.clone(),
        topic: topic.clone(),
        look_after_ms: settings.resolve_first_ms,
        failpoints: Failpoints::default(),
        metrics: metrics.clone(),
    };
    let runner = Runner {
        role: deadletter::ROLE,
        consumer: Box::new(KafkaConsumer::open(&config.kafka, &group, &topic)?),
        sink: LetterSink::new(writer, settings.clone()),
        positions: catalog.positions(),
        config: settings.runner(),
        counters: shared.source_metrics.of(deadletter::ROLE, Topic::DeadLetter.base_name()),
        poison: shared.poison,
        stop,
    };
    shared.readiness.ready(Role::DeadLetter.name());
    // Dropped with this future: a look may end anywhere.
    let mut resolving = JoinSet::new();
    let queries = Queries::new(catalog.clone(), objects);
    resolving.spawn(Resolver { catalog, queries, config: settings.clone(), metrics }.run());
    runner.run().await
}

/// Replays dead letters for the API.
pub(super) fn replayer(shared: &Shared) -> anyhow::Result<Replayer> {
    let config = &shared.config;
    Ok(Replayer {
        catalog: shared.catalog.clone(),
        objects: shared.objects.clone(),
        producer: Arc::new(KafkaProducer::open(&config.kafka)?),
        topic: Topic::ReplayEvents.name(&config.kafka.topic_prefix),
        schemas: SchemaSet::baked()?,
        late_days_max: config.raw.late_days_max,
        look_after_ms: config.deadletter.resolve_first_ms,
        send_timeout: Duration::from_millis(config.api.query_timeout_ms),
        clock: Arc::new(SystemClock),
        failpoints: Failpoints::default(),
        metrics: shared.dead_letter_metrics.clone(),
    })
}
