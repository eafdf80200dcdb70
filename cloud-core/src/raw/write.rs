//! One flush, from memory to published.
//!
//! Every step is tried until it succeeds: an outage of Postgres, the object store or the bus
//! holds the batch and nothing else. Only two things end a flush early: the position is somebody
//! else's ([`WriteError::Fenced`]), or the future is dropped; either way nothing has been
//! published and the events are read again by whoever owns the partitions.
//!
//! Failpoints: `after_pending`, `after_upload`, and the catalog's `before_commit`, `after_commit`.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, stream};
use penstock_common::event::{Epoch, UnixMicros};
use uuid::Uuid;

use super::ROLE;
use super::batch::Batch;
use super::dead::Dead;
use super::encode::{EncodeError, Encoded, encode};
use super::metrics::RawMetrics;
use crate::bus::{BusError, Producer};
use crate::failpoint::Failpoints;
use crate::ledger::bits::{Kind, Seen, SeenBuilder};
use crate::source::patience::until_done;
use crate::store::catalog::Catalog;
use crate::store::files;
use crate::store::object::Objects;
use crate::store::publish::{Covered, FileFacts, Publication, PublishError};

/// Dead letters in flight.
const DEAD_IN_FLIGHT_MAX: usize = 64;

/// What a flush carries.
#[derive(Debug, Default)]
pub struct Flush {
    /// The events.
    pub batch: Batch,
    /// The records that are none.
    pub dead: Vec<Dead>,
    /// The offsets that both come from.
    pub covered: Vec<Covered>,
}

/// Why a flush can't succeed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another owner has a partition.
    #[error(transparent)]
    Fenced(PublishError),
    /// A mistake of ours.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The encoder's thread is gone.
    #[error("encode on another thread: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// Everything that a flush needs.
#[derive(Clone)]
pub struct Writer {
    /// The catalog.
    pub catalog: Catalog,
    /// The object store.
    pub objects: Objects,
    /// For dead letters.
    pub producer: Arc<dyn Producer>,
    /// Where the records come from.
    pub topic: String,
    /// Where dead letters go.
    pub dead_letter_topic: String,
    /// For tests.
    pub failpoints: Failpoints,
    /// Counted here.
    pub metrics: RawMetrics,
}

impl Writer {
    /// Carries a flush through.
    ///
    /// # Errors
    /// When it can't succeed; nothing is published then.
    pub async fn write(&self, flush: Flush) -> Result<(), WriteError> {
        let started = Instant::now();
        let Flush { batch, dead, covered } = flush;
        self.bury(&dead).await;
        let rows = batch.rows().len();
        let seen = seen(&batch, &dead);
        let encoded = tokio::task::spawn_blocking(move || encode(&batch)).await??;
        let (role, topic) = (ROLE.to_owned(), self.topic.clone());
        self.store(&encoded, Publication { role, topic, files: Vec::new(), covered, seen }).await?;
        self.metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
        let took_ms = started.elapsed().as_millis();
        tracing::info!(rows, dead = dead.len(), took_ms, "flushed");
        Ok(())
    }

    /// Delivers dead letters; they count before the position passes them.
    async fn bury(&self, dead: &[Dead]) {
        stream::iter(0..dead.len())
            .map(|number| self.bury_one(&dead[number]))
            .buffer_unordered(DEAD_IN_FLIGHT_MAX)
            .collect::<()>()
            .await;
    }

    async fn bury_one(&self, dead: &Dead) {
        self.until_done("dead_letter", || self.send(dead)).await;
        self.metrics.poison.with_label_values(&[dead.reason]).inc();
    }

    async fn send(&self, dead: &Dead) -> Result<(), BusError> {
        let topic = &self.dead_letter_topic;
        self.producer.send(topic, dead.key.as_deref(), &dead.payload, &dead.headers).await
    }

    async fn store(
        &self,
        encoded: &[Encoded],
        mut publication: Publication,
    ) -> Result<(), WriteError> {
        loop {
            publication.files.clear();
            for encoded in encoded {
                let file_id = Uuid::new_v4();
                let path = staging_path(encoded.append_hour, file_id);
                self.until_done("announce", || self.announce(file_id, &path)).await;
                self.until_done("upload", || self.upload(&path, encoded)).await;
                publication.files.push(facts(file_id, encoded));
            }
            match self.publish(&publication).await {
                Ok(()) => break,
                Err(PublishError::NotPending) => {
                    tracing::warn!("took too long and was swept: writing it anew");
                }
                Err(fenced) => return Err(WriteError::Fenced(fenced)),
            }
        }
        for encoded in encoded {
            self.metrics.files.inc();
            self.metrics.events.inc_by(encoded.rows as u64);
            self.metrics.file_bytes.inc_by(encoded.bytes.len() as u64);
        }
        Ok(())
    }

    async fn announce(&self, file_id: Uuid, path: &str) -> anyhow::Result<()> {
        self.catalog.announce(files::Kind::Raw, file_id, path).await?;
        Ok(self.failpoints.hit("after_pending").await?)
    }

    async fn upload(&self, path: &str, encoded: &Encoded) -> anyhow::Result<()> {
        self.objects.put(path, encoded.bytes.clone()).await?;
        Ok(self.failpoints.hit("after_upload").await?)
    }

    /// Publishes, trying again while the outcome is unknown.
    async fn publish(&self, publication: &Publication) -> Result<(), PublishError> {
        let outcome = self
            .until_done("publish", || async {
                match self.catalog.publish(publication).await {
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

/// What became of each record, for the ledger.
fn seen(batch: &Batch, dead: &[Dead]) -> Vec<Seen> {
    let mut seen = SeenBuilder::default();
    for row in batch.rows() {
        // Both came from unsigned numbers that fit.
        let (epoch, seq) = (Epoch(row.epoch.unsigned_abs()), row.seq.unsigned_abs());
        seen.add(Kind::Raw, batch.name(row.gateway), epoch, seq);
    }
    for number in dead.iter().filter_map(|dead| dead.number.as_ref()) {
        seen.add_provenance(Kind::Dead, number);
    }
    seen.finish()
}

/// `staging/date=<day>/hour=<hour>/<uuid>.parquet`: compaction moves events to their final place.
fn staging_path(append_hour: i64, file_id: Uuid) -> String {
    format!("staging/{}/{file_id}.parquet", hour_path(append_hour))
}

/// The hive partition of an hour since the Unix epoch: `date=2026-11-24/hour=07`.
pub fn hour_path(append_hour: i64) -> String {
    let time = UnixMicros(append_hour.saturating_mul(3_600 * 1_000_000)).to_rfc3339();
    match time.split_once('T') {
        Some((date, time)) => format!("date={date}/hour={}", &time[..2.min(time.len())]),
        None => format!("date=unknown/hour={append_hour}"),
    }
}

fn facts(file_id: Uuid, encoded: &Encoded) -> FileFacts {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    FileFacts {
        file_id,
        rows: count(encoded.rows),
        bytes: count(encoded.bytes.len()),
        min_effective: encoded.min_effective,
        max_effective: encoded.max_effective,
        clock_ahead_count: count(encoded.clock_ahead_count),
        append_hour: encoded.append_hour,
        fleets: encoded.fleets.iter().map(|(fleet, rows)| (fleet.clone(), count(*rows))).collect(),
    }
}
