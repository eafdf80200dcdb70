//! The loop of compaction: look, merge, again.

use std::sync::Arc;
use std::time::Duration;

use penstock_common::clock::Clock;
use penstock_common::codec::{self, Headers};
use penstock_common::event::{DeadLetterMeta, Epoch, Provenance, UnixMicros};
use penstock_common::retry::Backoff;
use tokio_util::sync::CancellationToken;

use super::job::Compactor;
use super::merge::{Conflict, Dropped};
use super::plan;
use crate::bus::{BusError, Producer};

const STAGE: &str = "core.compact";

/// Where copies go whose bytes differ from the canonical one's: to dead letters.
pub struct Graveyard {
    /// The bus.
    pub producer: Arc<dyn Producer>,
    /// The topic's full name.
    pub topic: String,
}

impl Graveyard {
    /// Delivers the copies with other bytes; the others need no letter.
    ///
    /// # Errors
    /// When the bus does not take them.
    pub async fn bury(&self, dropped: &[Dropped]) -> Result<(), BusError> {
        for copy in dropped {
            let Some(conflict) = &copy.conflict else { continue };
            let key = Some(conflict.device.as_bytes());
            let headers = letter(copy, conflict);
            self.producer.send(&self.topic, key, conflict.payload.as_bytes(), &headers).await?;
        }
        Ok(())
    }
}

fn letter(copy: &Dropped, conflict: &Conflict) -> Headers {
    let (gateway, epoch, seq) = &conflict.kept;
    let detail = serde_json::json!({
        "error": "another event with this id was received earlier and counts",
        "kept": { "gateway": gateway, "epoch": Epoch(epoch.cast_unsigned()).to_string(), "seq": seq },
    });
    codec::encode_dead_letter(&DeadLetterMeta {
        stage: STAGE.into(),
        reason: "id_conflict".into(),
        detail: detail.to_string(),
        schema_version: u32::try_from(conflict.schema_version).ok(),
        fleet: conflict.fleet.as_str().into(),
        provenance: Provenance {
            gateway: copy.gateway.as_str().into(),
            epoch: Epoch(copy.epoch.cast_unsigned()),
            seq: copy.seq.cast_unsigned(),
        },
        first_seen: UnixMicros(conflict.received_at),
        attempts: 1,
        source: None,
        traceparent: None,
    })
}

/// Does everything that is worth doing now; says how many merges that were.
///
/// # Errors
/// When a store is away; the next look goes on.
pub async fn look(compactor: &Compactor, clock: &dyn Clock) -> anyhow::Result<usize> {
    let mut merges = 0;
    for hour in compactor.catalog.hours_to_compact(plan::small_rows(&compactor.config)).await? {
        loop {
            let files = compactor.catalog.files_of_hour(hour).await?;
            let now_ms = clock.now().0 / 1_000;
            let Some(merge) = plan::next(hour, &files, now_ms, &compactor.config) else { break };
            if !compactor.run(&merge).await? {
                break;
            }
            merges += 1;
            tracing::info!(hour, inputs = merge.inputs.len(), "compacted");
        }
    }
    Ok(merges)
}

/// Runs until told to stop; a merge under way is left, and its files are swept.
pub async fn run(compactor: Compactor, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let interval = Duration::from_millis(compactor.config.interval_ms);
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let wait = match tokio::select! {
            () = stop.cancelled() => return,
            looked = look(&compactor, &*clock) => looked,
        } {
            Ok(_) => {
                backoff.reset();
                interval
            }
            Err(error) => {
                compactor.metrics.failures.inc();
                let delay = backoff.next_delay();
                tracing::warn!(error = format!("{error:#}"), ?delay, "compaction waits");
                delay
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
