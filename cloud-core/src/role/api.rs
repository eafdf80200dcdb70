//! Wires the HTTP API and its live view.

use std::time::Duration;

use penstock_common::clock::SystemClock;
use penstock_common::retry::Backoff;
use penstock_common::schema::SchemaSet;
use penstock_common::topic::Topic;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Role, Shared, dead_letter};
use crate::api::{self, Api, Stores};
use crate::live::stage::Live;
use crate::query::Queries;
use crate::rollup::counted::CountedMetrics;

/// Serves until `stop`.
pub(super) async fn run(
    shared: Shared,
    listener: &std::net::TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let replayer = dead_letter::replayer(&shared)?;
    let schemas = SchemaSet::baked()?;
    let live = Live::new(CountedMetrics::new(&schemas), shared.config.live.clone());
    // Both end with this future. The API serves while the rollups' database is away.
    let _following =
        AbortOnDropHandle::new(tokio::spawn(follow(live.clone(), shared.clone(), stop.clone())));
    let (rollups, stop_too) = (shared.rollups.clone(), stop.clone());
    let _migrating = AbortOnDropHandle::new(tokio::spawn(async move {
        super::rollup::migrate(&rollups, &stop_too).await
    }));
    let Shared { config, catalog, objects, rollups, readiness, .. } = shared;
    let listener = TcpListener::from_std(listener.try_clone()?)?;
    let stores = Stores { queries: Queries::new(catalog.clone(), objects), catalog, rollups };
    readiness.ready(Role::Api.name());
    let (router, _) = Api::new(stores, &schemas, &config.api)
        .with_replays(replayer)
        .with_live(live)
        .until(stop.clone())
        .silent_after_ms(config.ledger.silent_after_ms)
        .router();
    Ok(api::serve(listener, router, stop).await?)
}

/// Tails the bus, again and again, until `stop`.
async fn follow(live: Live, shared: Shared, stop: CancellationToken) {
    let kafka = &shared.config.kafka;
    let topic = Topic::RawEvents.name(&kafka.topic_prefix);
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
    while let Err(error) = live.run(kafka, &topic, &SystemClock, stop.clone()).await {
        let delay = backoff.next_delay();
        tracing::warn!(%error, ?delay, "the live view begins anew");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}
