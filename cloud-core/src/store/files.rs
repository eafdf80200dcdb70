//! The life of a raw file before and after it counts.
//!
//! ```text
//!            announce                publish (publish.rs)
//! (nothing) ──────────▶ pending ───────────────────────────▶ published
//!                          │ abandon_stale: nobody finished it
//!                          ▼
//!                      abandoned ──▶ object deleted ──▶ (after a day: deleted again, row gone)
//! published ──(compaction)──▶ replaced ──▶ after a while: object deleted, row gone
//! ```
//! A row is abandoned before its object is deleted, and publishing requires a pending row: a
//! published file can't lose its object, whoever is slow. The object is deleted once more before
//! the row goes, because a writer that was slow may have uploaded in between.

use uuid::Uuid;

use super::catalog::Catalog;
use super::in_time;
use super::postgres::StoreError;

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Events.
    Raw,
    /// Dead letters.
    Dead,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Dead => "dead",
        }
    }
}

/// A file whose object is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// Its id.
    pub file_id: Uuid,
    /// Its path in the object store.
    pub path: String,
    /// Whether its object was deleted before, so that its row goes this time.
    pub again: bool,
}

impl Catalog {
    /// Announces a file before anything of it is uploaded. Announcing it again changes nothing.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn announce(&self, kind: Kind, file_id: Uuid, path: &str) -> Result<(), StoreError> {
        in_time(async {
            let sql = "INSERT INTO raw_file (file_id, path, kind, state) \
                       VALUES ($1, $2, $3, 'pending') ON CONFLICT (file_id) DO NOTHING";
            self.client().await?.execute(sql, &[&file_id, &path, &kind.name()]).await?;
            Ok(())
        })
        .await
    }

    /// Abandons pending files older than this; says how many.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn abandon_stale(&self, older_than_ms: u64) -> Result<u64, StoreError> {
        in_time(async {
            let sql = "UPDATE raw_file SET state = 'abandoned', abandoned_at = now() \
                       WHERE state = 'pending' \
                       AND created_at < now() - $1::int8 * interval '1 millisecond'";
            let age = i64::try_from(older_than_ms).unwrap_or(i64::MAX);
            Ok(self.client().await?.execute(sql, &[&age]).await?)
        })
        .await
    }

    /// Abandoned files whose object is to be deleted now, some of them at most.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn abandoned(&self, limit: i64) -> Result<Vec<Abandoned>, StoreError> {
        in_time(async {
            let sql = "SELECT file_id, path, object_deleted_at IS NOT NULL FROM raw_file \
                       WHERE state = 'abandoned' AND (object_deleted_at IS NULL \
                         OR object_deleted_at < now() - interval '1 day') \
                       ORDER BY created_at LIMIT $1";
            let rows = self.client().await?.query(sql, &[&limit]).await?;
            let abandoned = |row: &tokio_postgres::Row| Abandoned {
                file_id: row.get(0),
                path: row.get(1),
                again: row.get(2),
            };
            Ok(rows.iter().map(abandoned).collect())
        })
        .await
    }

    /// Notes that an abandoned file's object is deleted.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn object_deleted(&self, file: &Abandoned) -> Result<(), StoreError> {
        in_time(async {
            let sql = if file.again {
                "DELETE FROM raw_file WHERE file_id = $1 AND state = 'abandoned'"
            } else {
                "UPDATE raw_file SET object_deleted_at = now() \
                 WHERE file_id = $1 AND state = 'abandoned'"
            };
            self.client().await?.execute(sql, &[&file.file_id]).await?;
            Ok(())
        })
        .await
    }

    /// Files that compaction replaced so long ago that no reader can still want them, some of
    /// them at most.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn replaced_before(
        &self,
        age_ms: u64,
        limit: i64,
    ) -> Result<Vec<(Uuid, String)>, StoreError> {
        in_time(async {
            let sql = "SELECT file_id, path FROM raw_file WHERE state = 'replaced' \
                       AND replaced_at < now() - $1::int8 * interval '1 millisecond' \
                       ORDER BY replaced_at LIMIT $2";
            let age = i64::try_from(age_ms).unwrap_or(i64::MAX);
            let rows = self.client().await?.query(sql, &[&age, &limit]).await?;
            Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        })
        .await
    }

    /// Forgets a replaced file whose object is deleted.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn forget_replaced(&self, file_id: Uuid) -> Result<(), StoreError> {
        in_time(async {
            let sql = "DELETE FROM raw_file WHERE file_id = $1 AND state = 'replaced'";
            self.client().await?.execute(sql, &[&file_id]).await?;
            Ok(())
        })
        .await
    }
}
