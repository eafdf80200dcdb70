//! Letters whose event is stored after all: the device sent it again once its schema was known, or
//! a replay got through. They are marked resolved, so that what is open needs a person.
//!
//! Letters are looked for in batches, each ever less often. One that never turns up costs one look
//! a day; a look that fails for an outage does not count. Only letters whose whole identity could
//! be read can be found. Not looked for are those that lost an id conflict, and those of stages
//! behind the raw writer: their identity is stored in any case.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::DeadLetterConfig;
use super::metrics::DeadLetterMetrics;
use crate::query::Queries;
use crate::query::presence::Sought;
use crate::store::catalog::Catalog;

/// Letters of one look.
pub const LETTERS_MAX: i64 = 5_000;
/// A look that takes longer is somebody else's.
const LEASE_MS: u64 = 10 * 60_000;

/// Looks for letters' events.
#[derive(Clone)]
pub struct Resolver {
    /// The index.
    pub catalog: Catalog,
    /// The raw store.
    pub queries: Queries,
    /// How often.
    pub config: DeadLetterConfig,
    /// Counted here.
    pub metrics: DeadLetterMetrics,
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Letters whose event is stored.
    pub resolved: u64,
    /// Letters whose event is not.
    pub in_vain: usize,
}

impl Resolver {
    /// Looks for ever; may be dropped anywhere.
    pub async fn run(self) {
        let mut interval =
            tokio::time::interval(Duration::from_millis(self.config.resolve_interval_ms));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Err(error) = self.round().await {
                self.metrics.retries.with_label_values(&["resolve"]).inc();
                tracing::warn!(%error, "can't look for the events of dead letters; later again");
            }
        }
    }

    /// Looks until nothing is due.
    async fn round(&self) -> anyhow::Result<()> {
        loop {
            let Looked { resolved, in_vain } = self.look().await?;
            if resolved > 0 {
                tracing::info!(resolved, "events of dead letters are stored after all");
            }
            if in_vain.saturating_add(usize::try_from(resolved)?) < LETTERS_MAX.try_into()? {
                break;
            }
        }
        let unresolved = self.catalog.unresolved().await?;
        self.metrics.open.set(unresolved.open);
        self.metrics.waiting.set(unresolved.replayed);
        Ok(())
    }

    /// One batch of letters that are due.
    ///
    /// # Errors
    /// When a store is away; the letters are due again after a while.
    pub async fn look(&self) -> anyhow::Result<Looked> {
        let looks = self.catalog.take_looks(LETTERS_MAX, LEASE_MS).await?;
        if looks.is_empty() {
            return Ok(Looked::default());
        }
        let sought: Vec<Sought> = looks
            .iter()
            .map(|look| Sought {
                fleet: look.fleet.as_str().into(),
                device: look.device.as_str().into(),
                event_id: look.event_id,
                event_time: look.event_time,
            })
            .collect();
        let stored = self.queries.stored(&sought).await?;
        let ids = |wanted: bool| -> Vec<i64> {
            let those = looks.iter().zip(&stored).filter(|(_, stored)| **stored == wanted);
            those.map(|(look, _)| look.letter_id).collect()
        };
        let (found, missing) = (ids(true), ids(false));
        let resolved = self.catalog.looked(&found, &missing, self.config.patience()).await?;
        self.metrics.resolved.inc_by(resolved);
        self.metrics.looks_in_vain.inc_by(missing.len() as u64);
        Ok(Looked { resolved, in_vain: missing.len() })
    }
}
