//! Wires the rebuild.

use std::sync::Arc;

use penstock_common::clock::SystemClock;
use penstock_common::schema::SchemaSet;
use penstock_common::topic::Topic;
use tokio_util::sync::CancellationToken;

use super::{Role, Shared, rollup};
use crate::rebuild::worker::RebuildWorker;
use crate::rollup::counted::CountedMetrics;

/// Works off rebuild marks.
pub(super) async fn run(shared: Shared, stop: CancellationToken) -> anyhow::Result<()> {
    if !rollup::migrate(&shared.rollups, &stop).await {
        return Ok(());
    }
    let Shared { config, catalog, objects, rollups, readiness, .. } = shared;
    let prefix = &config.kafka.topic_prefix;
    let worker = RebuildWorker {
        rollups,
        catalog,
        objects,
        counted: CountedMetrics::new(&SchemaSet::baked()?),
        config: config.rebuild.clone(),
        lateness: i64::try_from(config.rollup.lateness_ms.saturating_mul(1_000))?,
        late_days_max: config.raw.late_days_max,
        events_topic: Topic::RawEvents.name(prefix),
        replay_topic: Topic::ReplayEvents.name(prefix),
        clock: Arc::new(SystemClock),
        metrics: shared.rebuild_metrics,
    };
    readiness.ready(Role::Rebuild.name());
    worker.run(stop).await;
    Ok(())
}
