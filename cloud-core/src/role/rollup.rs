//! Wires the rollups.

use std::sync::Arc;
use std::time::Duration;

use penstock_common::clock::SystemClock;
use penstock_common::retry::Backoff;
use penstock_common::schema::SchemaSet;
use penstock_common::topic::Topic;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Role, Shared};
use crate::bus::kafka::{KafkaConsumer, KafkaProducer};
use crate::rollup;
use crate::rollup::counted::CountedMetrics;
use crate::rollup::merge_worker::MergeWorker;
use crate::rollup::replays::ReplaySink;
use crate::rollup::stage::{RollupParts, RollupSink};
use crate::source::runner::{Runner, Sink};
use crate::store::rollup::RollupStore;

/// Runs the stream on `raw-events` and marks what comes on `replay-events`.
pub(super) async fn run(shared: Shared, stop: CancellationToken) -> anyhow::Result<()> {
    if !migrate(&shared.rollups, &stop).await {
        return Ok(());
    }
    let prefix = &shared.config.kafka.topic_prefix;
    let topic = |topic: Topic| topic.name(prefix);
    let parts = RollupParts {
        store: shared.rollups.clone(),
        counted: CountedMetrics::new(&SchemaSet::baked()?),
        config: shared.config.rollup.clone(),
        late_days_max: shared.config.raw.late_days_max,
        producer: Arc::new(KafkaProducer::open(&shared.config.kafka)?),
        topic: topic(Topic::RawEvents),
        dead_letter_topic: topic(Topic::DeadLetter),
        clock: Arc::new(SystemClock),
        metrics: shared.rollup_metrics.clone(),
    };
    let replays = ReplaySink::new(&parts, topic(Topic::ReplayEvents));
    let events = runner(&shared, Topic::RawEvents, "", RollupSink::new(parts), &stop)?;
    let replays = runner(&shared, Topic::ReplayEvents, "-replay", replays, &stop)?;
    shared.readiness.ready(Role::Rollup.name());
    // Dropped with this future: a merge may end anywhere.
    let mut merging = JoinSet::new();
    let (store, metrics) = (shared.rollups.clone(), shared.merge_metrics.clone());
    merging.spawn(MergeWorker { store, metrics }.run(stop.clone()));
    tokio::try_join!(events.run(), replays.run())?;
    Ok(())
}

fn runner<S: Sink>(
    shared: &Shared,
    topic: Topic,
    suffix: &str,
    sink: S,
    stop: &CancellationToken,
) -> anyhow::Result<Runner<S>> {
    let config = &shared.config;
    let prefix = &config.kafka.topic_prefix;
    let group = format!("{prefix}{}{suffix}", config.rollup.group);
    Ok(Runner {
        role: rollup::ROLE,
        consumer: Box::new(KafkaConsumer::open(&config.kafka, &group, &topic.name(prefix))?),
        sink,
        positions: shared.rollups.positions(),
        config: config.rollup.runner(),
        counters: shared.source_metrics.of(rollup::ROLE, topic.base_name()),
        poison: shared.poison.clone(),
        stop: stop.clone(),
    })
}

/// Migrates, waiting for the rollups' database; `false` when told to stop meanwhile.
pub(super) async fn migrate(store: &RollupStore, stop: &CancellationToken) -> bool {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    loop {
        let error = tokio::select! {
            () = stop.cancelled() => return false,
            migrated = store.migrate() => match migrated {
                Ok(()) => return true,
                Err(error) => error,
            },
        };
        let delay = backoff.next_delay();
        tracing::warn!(error = format!("{error:#}"), ?delay, "can't migrate the rollups yet");
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(delay) => {}
        }
    }
}
