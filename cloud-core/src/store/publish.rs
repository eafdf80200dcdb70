//! Publishing: the one transaction in which events begin to count as stored.
//!
//! | the file's row | the positions | outcome |
//! |---|---|---|
//! | pending | all at `from`, generations ours | file published, positions at `to` |
//! | pending | any other | [`PublishError::Fenced`], nothing changed |
//! | published | – | done: an earlier try of ours got through, its answer did not |
//! | abandoned or gone | – | [`PublishError::NotPending`], nothing changed: upload anew |
//! | (no file) | all at `to`, generations ours | done: an earlier try got through |
//! | (no file) | all at `from`, generations ours | positions at `to` |
//!
//! So a publication whose COMMIT had no answer is simply tried again. Locks are taken in one
//! order: the file, the positions by partition, the catalog's head.

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::catalog::{Catalog, in_time};
use super::postgres::StoreError;
use crate::failpoint::Tripped;

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
    /// The file; none when the offsets brought no row (all of them dead letters).
    pub file: Option<FileFacts>,
    /// The partitions, in order, each once, none empty.
    pub covered: Vec<Covered>,
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
    /// The sweep took the file for dead.
    #[error("the file is no longer pending")]
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
    if let Some(file) = &publication.file {
        let sql = "SELECT state FROM raw_file WHERE file_id = $1 FOR UPDATE";
        let row = transaction.query_opt(sql, &[&file.file_id]).await?;
        match row.as_ref().map(|row| row.get::<_, &str>(0)) {
            Some("pending") => {}
            Some("published") => return Ok(false),
            _ => return Err(PublishError::NotPending),
        }
    }
    if check_positions(transaction, publication).await? == AlreadyMoved(true) {
        return Ok(false);
    }
    move_positions(transaction, publication).await?;
    if let Some(file) = &publication.file {
        publish_file(transaction, publication, file).await?;
    }
    Ok(true)
}

#[derive(PartialEq, Eq)]
struct AlreadyMoved(bool);

async fn check_positions(
    transaction: &Transaction<'_>,
    publication: &Publication,
) -> Result<AlreadyMoved, PublishError> {
    let Publication { role, topic, file, covered } = publication;
    let partitions: Vec<i32> = covered.iter().map(|c| c.partition).collect();
    let rows = transaction
        .query(
            "SELECT \"partition\", next_offset, generation FROM consumer_position \
             WHERE role = $1 AND topic = $2 AND \"partition\" = ANY($3) \
             ORDER BY \"partition\" FOR UPDATE",
            &[role, topic, &partitions],
        )
        .await?;
    let found = |partition: i32| {
        let row = rows.iter().find(|row| row.get::<_, i32>(0) == partition);
        row.map(|row| (row.get::<_, i64>(1), row.get::<_, i64>(2)))
    };
    let at = |want: fn(&Covered) -> i64| {
        move |c: &&Covered| found(c.partition) == Some((want(c), c.generation))
    };
    // With a file, its row has already said that no earlier try got through.
    if file.is_none() && covered.iter().all(|c| at(|c| c.to)(&c)) {
        return Ok(AlreadyMoved(true));
    }
    match covered.iter().find(|c| !at(|c| c.from)(c)) {
        None => Ok(AlreadyMoved(false)),
        Some(c) => Err(PublishError::Fenced {
            partition: c.partition,
            from: c.from,
            generation: c.generation,
            found: found(c.partition).map_or("nothing".into(), |(offset, generation)| {
                format!("offset {offset} of generation {generation}")
            }),
        }),
    }
}

async fn move_positions(
    transaction: &Transaction<'_>,
    publication: &Publication,
) -> Result<(), PublishError> {
    let Publication { role, topic, covered, .. } = publication;
    let partitions: Vec<i32> = covered.iter().map(|c| c.partition).collect();
    let to: Vec<i64> = covered.iter().map(|c| c.to).collect();
    transaction
        .execute(
            "UPDATE consumer_position AS p SET next_offset = new.o, updated_at = now() \
             FROM unnest($3::int4[], $4::int8[]) AS new (n, o) \
             WHERE p.role = $1 AND p.topic = $2 AND p.\"partition\" = new.n",
            &[role, topic, &partitions, &to],
        )
        .await?;
    Ok(())
}

async fn publish_file(
    transaction: &Transaction<'_>,
    publication: &Publication,
    file: &FileFacts,
) -> Result<(), PublishError> {
    let Publication { topic, covered, .. } = publication;
    let partitions: Vec<i32> = covered.iter().map(|c| c.partition).collect();
    let from: Vec<i64> = covered.iter().map(|c| c.from).collect();
    let to: Vec<i64> = covered.iter().map(|c| c.to).collect();
    transaction
        .execute(
            "INSERT INTO raw_file_range (file_id, topic, \"partition\", from_offset, to_offset) \
             SELECT $1, $2, p, f, t FROM unnest($3::int4[], $4::int8[], $5::int8[]) AS new (p, f, t)",
            &[&file.file_id, topic, &partitions, &from, &to],
        )
        .await?;
    // Last: from here on every other publication waits.
    transaction
        .execute(
            "WITH head AS (UPDATE catalog_head SET seq = seq + 1 RETURNING seq) \
             UPDATE raw_file SET state = 'published', published_at = now(), rows = $2, \
               bytes = $3, min_effective = $4, max_effective = $5, clock_ahead_count = $6, \
               catalog_seq = head.seq FROM head WHERE file_id = $1",
            &[
                &file.file_id,
                &file.rows,
                &file.bytes,
                &file.min_effective,
                &file.max_effective,
                &file.clock_ahead_count,
            ],
        )
        .await?;
    Ok(())
}
