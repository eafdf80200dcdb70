//! The catalog: what readers ask. `positions.rs` keeps the consumers' positions, `files.rs` the life
//! of files, `publish.rs` the one transaction that makes files count.
//!
//! **As of a sequence**: a file is seen from its `catalog_seq` on and until its `replaced_seq`, so
//! that a reader who stays with one sequence sees compaction neither twice nor half done.

use deadpool_postgres::{Object, Pool};
use uuid::Uuid;

use super::in_time;
use super::positions::Positions;
use super::postgres::StoreError;
use crate::failpoint::Failpoints;

/// A handle on the catalog; clones share the pool.
#[derive(Clone)]
pub struct Catalog {
    pub(super) pool: Pool,
    pub(super) failpoints: Failpoints,
}

/// The published files in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub files: i64,
    /// Their rows.
    pub rows: i64,
    /// Their bytes.
    pub bytes: i64,
    /// The catalog's sequence at that moment.
    pub as_of: i64,
}

/// A published file, as readers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its id.
    pub file_id: Uuid,
    /// Its path in the object store.
    pub path: String,
    /// Its size.
    pub bytes: i64,
    /// The least effective time in it, µs.
    pub min_effective: i64,
    /// The greatest effective time in it, µs.
    pub max_effective: i64,
    /// How many of its rows are flagged clock_ahead.
    pub clock_ahead_count: i64,
}

impl Catalog {
    /// A catalog behind `pool`.
    pub const fn new(pool: Pool, failpoints: Failpoints) -> Self {
        Self { pool, failpoints }
    }

    /// Its connections.
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) async fn client(&self) -> Result<Object, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// The positions of the consumers whose effects are in the catalog.
    pub fn positions(&self) -> Positions {
        Positions::new(self.pool.clone())
    }

    /// The catalog's sequence now.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn head(&self) -> Result<i64, StoreError> {
        in_time(async {
            Ok(self.client().await?.query_one("SELECT seq FROM catalog_head", &[]).await?.get(0))
        })
        .await
    }

    /// The published files in numbers.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn totals(&self) -> Result<Totals, StoreError> {
        in_time(async {
            let sql = "SELECT count(*), coalesce(sum(rows), 0)::int8, \
                       coalesce(sum(bytes), 0)::int8, (SELECT seq FROM catalog_head) \
                       FROM raw_file WHERE state = 'published' AND kind = 'raw'";
            let row = self.client().await?.query_one(sql, &[]).await?;
            Ok(Totals { files: row.get(0), rows: row.get(1), bytes: row.get(2), as_of: row.get(3) })
        })
        .await
    }

    /// The files, published up to `as_of`, that can hold an effective time in [`from`, `to`); or,
    /// before `to`, the clock-ahead copy of an event. Least time first.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn files_for(
        &self,
        from: i64,
        to: i64,
        as_of: i64,
    ) -> Result<Vec<FileEntry>, StoreError> {
        in_time(async {
            let columns = "file_id, path, bytes, min_effective, max_effective, clock_ahead_count";
            let seen = "kind = 'raw' AND catalog_seq IS NOT NULL AND catalog_seq <= $3 \
                        AND (replaced_seq IS NULL OR replaced_seq > $3)";
            let sql = format!(
                "SELECT {columns} FROM raw_file WHERE {seen} \
                   AND int8range(min_effective, max_effective, '[]') && int8range($1, $2) \
                 UNION SELECT {columns} FROM raw_file WHERE {seen} \
                   AND clock_ahead_count > 0 AND min_effective < $2 \
                 ORDER BY min_effective, file_id"
            );
            let rows = self.client().await?.query(&sql, &[&from, &to, &as_of]).await?;
            let entry = |row: &tokio_postgres::Row| FileEntry {
                file_id: row.get(0),
                path: row.get(1),
                bytes: row.get(2),
                min_effective: row.get(3),
                max_effective: row.get(4),
                clock_ahead_count: row.get(5),
            };
            Ok(rows.iter().map(entry).collect())
        })
        .await
    }
}
