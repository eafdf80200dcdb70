//! Removes what crashed or fenced flushes left behind, and what compaction replaced.
//!
//! Abandon first, delete then: see `store/files.rs`. Any number of processes may sweep at once,
//! and a sweep that dies anywhere is finished by the next.

use std::time::Duration;

use super::RawConfig;
use super::metrics::RawMetrics;
use crate::store::catalog::Catalog;
use crate::store::object::Objects;

/// Objects deleted in one go.
const BATCH: i64 = 100;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Pending files given up.
    pub abandoned: u64,
    /// Objects deleted (or found gone).
    pub deleted: usize,
}

/// Sweeps once.
///
/// # Errors
/// When the catalog or the object store are away; the next sweep goes on.
pub async fn sweep(
    catalog: &Catalog,
    objects: &Objects,
    config: &RawConfig,
) -> anyhow::Result<Swept> {
    let abandoned = catalog.abandon_stale(config.stale_pending_ms).await?;
    let mut deleted = 0;
    loop {
        let files = catalog.abandoned(BATCH).await?;
        for file in &files {
            objects.delete(&file.path).await?;
            catalog.object_deleted(file).await?;
        }
        let replaced = catalog.replaced_before(config.replaced_keep_ms, BATCH).await?;
        for (file_id, path) in &replaced {
            objects.delete(path).await?;
            catalog.forget_replaced(*file_id).await?;
        }
        if files.is_empty() && replaced.is_empty() {
            return Ok(Swept { abandoned, deleted });
        }
        deleted += files.len() + replaced.len();
    }
}

/// Sweeps for ever; may be dropped anywhere.
pub async fn run(catalog: Catalog, objects: Objects, config: RawConfig, metrics: RawMetrics) {
    let mut interval = tokio::time::interval(Duration::from_millis(config.sweep_interval_ms));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match sweep(&catalog, &objects, &config).await {
            Ok(swept) => {
                metrics.abandoned.inc_by(swept.abandoned);
                if swept != Swept::default() {
                    let Swept { abandoned, deleted } = swept;
                    tracing::info!(abandoned, deleted, "removed leftovers of unfinished flushes");
                }
            }
            Err(error) => tracing::warn!(%error, "the sweep did not finish; the next one goes on"),
        }
    }
}
