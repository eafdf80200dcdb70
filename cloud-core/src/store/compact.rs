//! What compaction asks of the catalog: which files an hour has, and the swap.
//!
//! | the inputs | the outputs | outcome of a swap |
//! |---|---|---|
//! | all published | all pending | outputs published, inputs replaced, one sequence |
//! | – | all published | done: an earlier try got through |
//! | any replaced | pending | [`Swapped::LostRace`], nothing changed |
//! | – | any swept | an error, nothing changed: merge anew |

use uuid::Uuid;

use super::catalog::Catalog;
use super::in_time;
use super::ledger;
use super::postgres::StoreError;
use super::publish::{FileFacts, FilesAre, PublishError, lock_files, next_seq, publish_file};
use crate::ledger::bits::Seen;

/// A published raw file, as compaction needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub file_id: Uuid,
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub bytes: i64,
    /// Its rows.
    pub rows: i64,
    /// Its hour since the Unix epoch.
    pub append_hour: i64,
    /// Whether compaction wrote it.
    pub compacted: bool,
    /// How long ago it was published.
    pub published_ago_ms: i64,
    /// Its fleets.
    pub fleets: Vec<String>,
}

/// Where a copy was spooled: gateway, epoch, number.
pub type Spooled = (String, i64, i64);

/// Files that take the place of others.
#[derive(Clone, Debug)]
pub struct Swap {
    /// What was merged.
    pub inputs: Vec<Uuid>,
    /// What came of it.
    pub outputs: Vec<FileFacts>,
    /// The copies that were left out.
    pub dropped: Vec<Spooled>,
    /// Those of them whose number is not kept, for the ledger.
    pub seen: Vec<Seen>,
}

/// How a swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// Readers see the new files.
    Done,
    /// Somebody else has replaced an input.
    LostRace,
}

impl Catalog {
    /// The hours that have staged files, or several compacted ones of a fleet with less than
    /// `small_rows` each; oldest first.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn hours_to_compact(&self, small_rows: i64) -> Result<Vec<i64>, StoreError> {
        in_time(async {
            let sql = "SELECT append_hour FROM raw_file \
                         WHERE kind = 'raw' AND state = 'published' AND NOT compacted \
                       UNION SELECT append_hour FROM raw_file f JOIN raw_file_fleet USING (file_id) \
                         WHERE kind = 'raw' AND state = 'published' AND compacted AND f.rows < $1 \
                         GROUP BY append_hour, fleet HAVING count(*) > 1 \
                       ORDER BY 1";
            let rows = self.client().await?.query(sql, &[&small_rows]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
        .await
    }

    /// The published files of an hour.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn files_of_hour(&self, hour: i64) -> Result<Vec<Candidate>, StoreError> {
        in_time(async {
            let sql = "SELECT file_id, path, bytes, f.rows, append_hour, compacted, \
                         (extract(epoch FROM now() - published_at) * 1000)::int8, \
                         array_agg(fleet ORDER BY fleet) \
                       FROM raw_file f JOIN raw_file_fleet USING (file_id) \
                       WHERE kind = 'raw' AND state = 'published' AND append_hour = $1 \
                       GROUP BY file_id ORDER BY catalog_seq, file_id";
            let rows = self.client().await?.query(sql, &[&hour]).await?;
            let candidate = |row: &tokio_postgres::Row| Candidate {
                file_id: row.get(0),
                path: row.get(1),
                bytes: row.get(2),
                rows: row.get(3),
                append_hour: row.get(4),
                compacted: row.get(5),
                published_ago_ms: row.get(6),
                fleets: row.get(7),
            };
            Ok(rows.iter().map(candidate).collect())
        })
        .await
    }

    /// Swaps, or changes nothing; see the table above. After an unknown commit call it again.
    ///
    /// # Errors
    /// When Postgres is away, or an output was swept.
    pub async fn swap(&self, swap: &Swap) -> Result<Swapped, PublishError> {
        let swapped = in_time(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            let outputs: Vec<Uuid> = swap.outputs.iter().map(|file| file.file_id).collect();
            if lock_files(&transaction, &outputs).await? == FilesAre::Published {
                return Ok(Swapped::Done);
            }
            let sql = "SELECT state FROM raw_file WHERE file_id = ANY($1) \
                       ORDER BY file_id FOR UPDATE";
            let states = transaction.query(sql, &[&swap.inputs]).await?;
            let is_published = |row: &tokio_postgres::Row| row.get::<_, &str>(0) == "published";
            if states.len() != swap.inputs.len() || !states.iter().all(is_published) {
                return Ok(Swapped::LostRace);
            }
            let seq = next_seq(&transaction).await?;
            for file in &swap.outputs {
                publish_file(&transaction, file, seq).await?;
            }
            let sql = "UPDATE raw_file SET compacted = true WHERE file_id = ANY($1)";
            transaction.execute(sql, &[&outputs]).await?;
            let duplicates = i64::try_from(swap.dropped.len()).unwrap_or(i64::MAX);
            // With the first: they are counted, not looked for.
            let sql = "UPDATE raw_file SET duplicates = $2 WHERE file_id = $1";
            transaction.execute(sql, &[&outputs.first(), &duplicates]).await?;
            let sql = "UPDATE raw_file SET state = 'replaced', replaced_seq = $2, \
                         replaced_at = now() WHERE file_id = ANY($1)";
            transaction.execute(sql, &[&swap.inputs, &seq]).await?;
            ledger::note_seen(&transaction, &swap.seen).await?;
            self.failpoints.hit("before_commit").await?;
            transaction.commit().await?;
            Ok::<_, PublishError>(Swapped::Done)
        })
        .await?;
        self.failpoints.hit("after_commit").await?;
        Ok(swapped)
    }
}
