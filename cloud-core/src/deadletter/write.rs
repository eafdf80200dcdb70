//! One flush of letters, from memory to published, as `raw/write.rs` does with events: every step
//! is tried until it succeeds; only another owner of the position, or being dropped, ends it early.
//!
//! Failpoints: `after_pending`, `after_upload`, and the catalog's `before_commit`, `after_commit`.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use penstock_common::event::UnixMicros;
use uuid::Uuid;

use super::ROLE;
use super::encode::{Encoded, encode};
use super::letter::Letter;
use super::metrics::DeadLetterMetrics;
use crate::failpoint::Failpoints;
use crate::ledger::bits::{Kind as SeenKind, SeenBuilder};
use crate::raw::write::WriteError;
use crate::source::patience::until_done;
use crate::store::catalog::Catalog;
use crate::store::dead_letters::publish::IndexRow;
use crate::store::files::Kind;
use crate::store::object::Objects;
use crate::store::publish::{Covered, FileFacts, Publication, PublishError};

/// What a flush carries.
#[derive(Debug, Default)]
pub struct Flush {
    /// The letters.
    pub letters: Vec<Letter>,
    /// The offsets that they come from.
    pub covered: Vec<Covered>,
}

/// Everything that a flush needs.
#[derive(Clone)]
pub struct LetterWriter {
    /// The catalog.
    pub catalog: Catalog,
    /// The object store.
    pub objects: Objects,
    /// Where the letters come from.
    pub topic: String,
    /// When the raw store is first asked for a letter's event, ms after its publication.
    pub look_after_ms: u64,
    /// For tests.
    pub failpoints: Failpoints,
    /// Counted here.
    pub metrics: DeadLetterMetrics,
}

impl LetterWriter {
    /// Carries a flush through.
    ///
    /// # Errors
    /// When it can't succeed; nothing is published then.
    pub async fn write(&self, flush: Flush) -> Result<(), WriteError> {
        let started = Instant::now();
        let Flush { letters, covered } = flush;
        let letters = Arc::new(letters);
        let shared = Arc::clone(&letters);
        let encoded = tokio::task::spawn_blocking(move || encode(&shared)).await??;
        let (role, topic) = (ROLE.to_owned(), self.topic.clone());
        let mut seen = SeenBuilder::default();
        for letter in letters.iter() {
            seen.add_provenance(SeenKind::Dead, &letter.meta.provenance);
        }
        let seen = seen.finish();
        let publication = Publication { role, topic, files: Vec::new(), covered, seen };
        self.store(&letters, &encoded, publication).await?;
        for letter in letters.iter() {
            self.metrics.stored(&letter.meta.stage, &letter.meta.reason);
        }
        self.metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
        let took_ms = started.elapsed().as_millis();
        tracing::info!(letters = letters.len(), took_ms, "stored dead letters");
        Ok(())
    }

    async fn store(
        &self,
        letters: &[Letter],
        encoded: &[Encoded],
        mut publication: Publication,
    ) -> Result<(), WriteError> {
        loop {
            publication.files.clear();
            let mut rows = Vec::with_capacity(letters.len());
            for encoded in encoded {
                let file_id = Uuid::new_v4();
                let path = path(encoded.append_hour, file_id);
                self.until_done("announce", || self.announce(file_id, &path)).await;
                self.until_done("upload", || self.upload(&path, encoded)).await;
                publication.files.push(facts(file_id, encoded, letters));
                rows.extend(index_rows(file_id, encoded, letters));
            }
            match self.publish(&publication, &rows).await {
                Ok(()) => break,
                Err(PublishError::NotPending) => {
                    tracing::warn!("took too long and was swept: writing it anew");
                }
                Err(fenced) => return Err(WriteError::Fenced(fenced)),
            }
        }
        for encoded in encoded {
            self.metrics.files.inc();
            self.metrics.file_bytes.inc_by(encoded.bytes.len() as u64);
        }
        Ok(())
    }

    async fn announce(&self, file_id: Uuid, path: &str) -> anyhow::Result<()> {
        self.catalog.announce(Kind::Dead, file_id, path).await?;
        Ok(self.failpoints.hit("after_pending").await?)
    }

    async fn upload(&self, path: &str, encoded: &Encoded) -> anyhow::Result<()> {
        self.objects.put(path, encoded.bytes.clone()).await?;
        Ok(self.failpoints.hit("after_upload").await?)
    }

    /// Publishes, trying again while the outcome is unknown.
    async fn publish(
        &self,
        publication: &Publication,
        rows: &[IndexRow],
    ) -> Result<(), PublishError> {
        let look_after_ms = self.look_after_ms;
        let outcome = self
            .until_done("publish", || async {
                match self.catalog.publish_dead_letters(publication, rows, look_after_ms).await {
                    Err(PublishError::Store(unknown)) => Err(unknown),
                    known => Ok(known),
                }
            })
            .await;
        if matches!(outcome, Err(PublishError::Fenced { .. })) {
            self.metrics.fenced.inc();
        }
        outcome
    }

    async fn until_done<T, E: Display, F: Future<Output = Result<T, E>>>(
        &self,
        step: &'static str,
        attempt: impl FnMut() -> F,
    ) -> T {
        until_done(ROLE, step, &self.metrics.retries, attempt).await
    }
}

/// `dead-letters/date=<day>/<uuid>.parquet`.
fn path(append_hour: i64, file_id: Uuid) -> String {
    let time = UnixMicros(append_hour.saturating_mul(3_600 * 1_000_000)).to_rfc3339();
    let date = time.split_once('T').map_or("unknown", |(date, _)| date);
    format!("dead-letters/date={date}/{file_id}.parquet")
}

fn facts(file_id: Uuid, encoded: &Encoded, letters: &[Letter]) -> FileFacts {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut fleets = std::collections::BTreeMap::new();
    for number in &encoded.letters {
        *fleets.entry(letters[*number].index_entry().fleet).or_insert(0) += 1;
    }
    FileFacts {
        file_id,
        rows: count(encoded.letters.len()),
        bytes: count(encoded.bytes.len()),
        min_effective: encoded.min_append,
        max_effective: encoded.max_append,
        clock_ahead_count: 0,
        append_hour: encoded.append_hour,
        fleets: fleets.into_iter().collect(),
    }
}

fn index_rows(
    file_id: Uuid,
    encoded: &Encoded,
    letters: &[Letter],
) -> impl Iterator<Item = IndexRow> {
    let row = move |(row, number): (i32, &usize)| IndexRow {
        entry: letters[*number].index_entry(),
        file_id,
        row,
    };
    (0..).zip(&encoded.letters).map(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_the_day_of_the_append() {
        let path = path(471_000, Uuid::nil());
        assert!(path.starts_with("dead-letters/date=2023-09-25/00000000-"), "{path}");
        assert!(path.ends_with(".parquet"));
    }
}
