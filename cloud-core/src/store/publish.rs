//! Publishing: the one transaction in which records begin to count as stored.
//!
//! | the files' rows | the positions | outcome |
//! |---|---|---|
//! | all pending | all at `from`, generations ours | files published, positions at `to` |
//! | all pending | any other | [`PublishError::Fenced`], nothing changed |
//! | all published | – | done: an earlier try of ours got through, its answer did not |
//! | any abandoned or gone | – | [`PublishError::NotPending`], nothing changed: upload anew |
//! | (no file) | all at `to`, generations ours | done: an earlier try got through |
//! | (no file) | all at `from`, generations ours | positions at `to` |
//!
//! So a publication whose COMMIT had no answer is simply tried again. Locks are taken in one
//! order: the files by id, the positions by partition, the catalog's head.

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::catalog::Catalog;
use super::in_time;
use super::ledger;
use super::positions::{self, Standing};
use super::postgres::StoreError;
use crate::failpoint::Tripped;
use crate::ledger::bits::Seen;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Its id, as announced.
    pub file_id: Uuid,
    /// Rows.
    pub rows: i64,
    /// Bytes.
    pub bytes: i64,
    /// The least effective time, µs.
    pub min_effective: i64,
    /// The greatest effective time, µs.
    pub max_effective: i64,
    /// Rows flagged clock_ahead.
    pub clock_ahead_count: i64,
    /// The hour since the Unix epoch in which the bus appended all its rows.
    pub append_hour: i64,
    /// Its fleets and how many rows each has.
    pub fleets: Vec<(String, i64)>,
}

/// The offsets of one partition that a publication covers: `from` up to but not including `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// The partition.
    pub partition: i32,
    /// The stored position it begins at.
    pub from: i64,
    /// The position it ends at.
    pub to: i64,
    /// The owner's generation.
    pub generation: i64,
}

/// One publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The consumer's role.
    pub role: String,
    /// The topic's full name.
    pub topic: String,
    /// The files; none when the offsets brought no row (all of them dead letters).
    pub files: Vec<FileFacts>,
    /// The partitions, in order, each once, none empty.
    pub covered: Vec<Covered>,
    /// What the records were, by gateway and number, for the ledger: files and dead letters alike.
    pub seen: Vec<Seen>,
}

/// Why a publication changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else owns a partition, or has moved it.
    #[error(
        "the position of partition {partition} is not ours: want offset {from} of generation {generation}, found {found}"
    )]
    Fenced {
        /// The partition.
        partition: i32,
        /// The offset that we would go on from.
        from: i64,
        /// Our generation.
        generation: i64,
        /// What stands there.
        found: String,
    },
    /// The sweep took a file for dead.
    #[error("a file is no longer pending")]
    NotPending,
    /// Nothing is known: try again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for PublishError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<Tripped> for PublishError {
    fn from(error: Tripped) -> Self {
        Self::Store(error.into())
    }
}

/// What the files' rows say.
#[derive(PartialEq, Eq)]
pub(super) enum FilesAre {
    Pending,
    Published,
}

impl Catalog {
    /// Publishes, or changes nothing; see the table above.
    ///
    /// # Errors
    /// As the table says, or when Postgres is away.
    pub async fn publish(&self, publication: &Publication) -> Result<(), PublishError> {
        let done = in_time(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            if !prepare(&transaction, publication).await? {
                return Ok(());
            }
            self.failpoints.hit("before_commit").await?;
            transaction.commit().await?;
            Ok::<_, PublishError>(())
        });
        done.await?;
        self.failpoints.hit("after_commit").await?;
        Ok(())
    }
}

/// Does everything but the commit; `false` when an earlier try has done it.
async fn prepare(
    transaction: &Transaction<'_>,
    publication: &Publication,
) -> Result<bool, PublishError> {
    let Publication { role, topic, files, covered, seen } = publication;
    let ids: Vec<Uuid> = files.iter().map(|file| file.file_id).collect();
    if lock_files(transaction, &ids).await? == FilesAre::Published {
        return Ok(false);
    }
    match positions::check(transaction, role, topic, covered).await? {
        Standing::Ours => {}
        Standing::AlreadyMoved if files.is_empty() => return Ok(false),
        // Our files are pending: whoever moved the positions, it was not this publication.
        Standing::AlreadyMoved => return Err(moved_without_us(covered)),
    }
    positions::advance(transaction, role, topic, covered, &[]).await?;
    ledger::note_seen(transaction, seen).await?;
    if let Some(first) = files.first() {
        note_ranges(transaction, topic, first.file_id, covered).await?;
        let seq = next_seq(transaction).await?;
        for file in files {
            publish_file(transaction, file, seq).await?;
        }
    }
    Ok(true)
}

pub(super) fn moved_without_us(covered: &[Covered]) -> PublishError {
    let first = covered.first().copied();
    let c = first.unwrap_or(Covered { partition: -1, from: 0, to: 0, generation: 0 });
    let found = format!("offset {} of generation {}", c.to, c.generation);
    PublishError::Fenced { partition: c.partition, from: c.from, generation: c.generation, found }
}

/// Locks the rows of announced files.
pub(super) async fn lock_files(
    transaction: &Transaction<'_>,
    ids: &[Uuid],
) -> Result<FilesAre, PublishError> {
    let sql = "SELECT state FROM raw_file WHERE file_id = ANY($1) ORDER BY file_id FOR UPDATE";
    let rows = transaction.query(sql, &[&ids]).await?;
    let all = |state: &str| rows.iter().all(|row| row.get::<_, &str>(0) == state);
    if rows.len() == ids.len() && all("pending") {
        return Ok(FilesAre::Pending);
    }
    // Compaction may have replaced them since.
    let is_done = |state: &str| state == "published" || state == "replaced";
    if rows.len() == ids.len() && rows.iter().all(|row| is_done(row.get(0))) {
        return Ok(FilesAre::Published);
    }
    Err(PublishError::NotPending)
}

/// Takes the next number of the catalog. From here on every other publication waits.
pub(super) async fn next_seq(transaction: &Transaction<'_>) -> Result<i64, StoreError> {
    let sql = "UPDATE catalog_head SET seq = seq + 1 RETURNING seq";
    Ok(transaction.query_one(sql, &[]).await?.get(0))
}

pub(super) async fn note_ranges(
    transaction: &Transaction<'_>,
    topic: &str,
    file_id: Uuid,
    covered: &[Covered],
) -> Result<(), StoreError> {
    let partitions: Vec<i32> = covered.iter().map(|c| c.partition).collect();
    let from: Vec<i64> = covered.iter().map(|c| c.from).collect();
    let to: Vec<i64> = covered.iter().map(|c| c.to).collect();
    transaction
        .execute(
            "INSERT INTO raw_file_range (file_id, topic, \"partition\", from_offset, to_offset) \
             SELECT $1, $2, p, f, t FROM unnest($3::int4[], $4::int8[], $5::int8[]) AS new (p, f, t)",
            &[&file_id, &topic, &partitions, &from, &to],
        )
        .await?;
    Ok(())
}

/// Turns a pending file into one that readers see from `seq` on.
pub(super) async fn publish_file(
    transaction: &Transaction<'_>,
    file: &FileFacts,
    seq: i64,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "UPDATE raw_file SET state = 'published', published_at = now(), rows = $2, \
               bytes = $3, min_effective = $4, max_effective = $5, clock_ahead_count = $6, \
               append_hour = $7, catalog_seq = $8 WHERE file_id = $1",
            &[
                &file.file_id,
                &file.rows,
                &file.bytes,
                &file.min_effective,
                &file.max_effective,
                &file.clock_ahead_count,
                &file.append_hour,
                &seq,
            ],
        )
        .await?;
    let (fleets, rows): (Vec<&str>, Vec<i64>) =
        file.fleets.iter().map(|(fleet, rows)| (fleet.as_str(), *rows)).unzip();
    transaction
        .execute(
            "INSERT INTO raw_file_fleet (file_id, fleet, rows) \
             SELECT $1, f, r FROM unnest($2::text[], $3::int8[]) AS new (f, r)",
            &[&file.file_id, &fleets, &rows],
        )
        .await?;
    Ok(())
}
