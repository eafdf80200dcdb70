//! The catalog: consumer positions, and what readers ask. `files.rs` keeps the life of raw files,
//! `publish.rs` the one transaction that makes a file count.

use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::postgres::StoreError;
use crate::failpoint::Failpoints;

/// No single step waits longer than this for Postgres.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(40);

/// A handle on the catalog; clones share the pool.
#[derive(Clone)]
pub struct Catalog {
    pub(super) pool: Pool,
    pub(super) failpoints: Failpoints,
}

/// What is known about a partition when its new owner decides where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionBasis {
    /// The partition.
    pub partition: i32,
    /// The position that was stored, if there was one.
    pub stored: Option<i64>,
    /// The log's start on the bus.
    pub low: i64,
    /// The log's end on the bus.
    pub high: i64,
}

/// A partition as its owner holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What the decision was made from.
    pub basis: PositionBasis,
    /// Where to go on.
    pub next_offset: i64,
    /// The owner's right to move the position.
    pub generation: i64,
}

/// A consumer's place on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is not stored yet.
    pub next_offset: i64,
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

    /// Makes the caller the owner of these partitions: raises their generations, so that nobody
    /// who owned them before can move them any more, and stores where `decide` says to go on.
    ///
    /// # Errors
    /// When Postgres is away; nothing has changed then, or the generations alone.
    pub async fn claim(
        &self,
        role: &str,
        topic: &str,
        bounds: &[crate::bus::Watermarks],
        decide: impl Fn(&PositionBasis) -> i64,
    ) -> Result<Vec<Claim>, StoreError> {
        in_time(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            let mut bounds = bounds.to_vec();
            bounds.sort_unstable_by_key(|bound| bound.partition);
            let partitions: Vec<i32> = bounds.iter().map(|bound| bound.partition).collect();
            let lows: Vec<i64> = bounds.iter().map(|bound| bound.low).collect();
            // Generation 0: nobody has owned it yet.
            let sql = "INSERT INTO consumer_position (role, topic, \"partition\", next_offset, generation) \
                       SELECT $1, $2, p, o, 0 FROM unnest($3::int4[], $4::int8[]) AS new (p, o) \
                       ORDER BY p ON CONFLICT DO NOTHING";
            transaction.execute(sql, &[&role, &topic, &partitions, &lows]).await?;
            // Takes the locks, in one order everywhere: a publication under way ends first.
            let sql = "SELECT next_offset, generation FROM consumer_position \
                       WHERE role = $1 AND topic = $2 AND \"partition\" = ANY($3) \
                       ORDER BY \"partition\" FOR UPDATE";
            let rows = transaction.query(sql, &[&role, &topic, &partitions]).await?;
            let claim = |(bound, row): (&crate::bus::Watermarks, &tokio_postgres::Row)| {
                let (partition, low, high) = (bound.partition, bound.low, bound.high);
                let generation: i64 = row.get(1);
                let stored = (generation > 0).then(|| row.get(0));
                let basis = PositionBasis { partition, stored, low, high };
                Claim { basis, next_offset: decide(&basis), generation: generation + 1 }
            };
            let claims: Vec<Claim> = bounds.iter().zip(&rows).map(claim).collect();
            let offsets: Vec<i64> = claims.iter().map(|claim| claim.next_offset).collect();
            let generations: Vec<i64> = claims.iter().map(|claim| claim.generation).collect();
            let sql = "UPDATE consumer_position AS p \
                       SET next_offset = new.o, generation = new.g, updated_at = now() \
                       FROM unnest($3::int4[], $4::int8[], $5::int8[]) AS new (n, o, g) \
                       WHERE p.role = $1 AND p.topic = $2 AND p.\"partition\" = new.n";
            let values: [&(dyn ToSql + Sync); 5] =
                [&role, &topic, &partitions, &offsets, &generations];
            transaction.execute(sql, &values).await?;
            transaction.commit().await?;
            Ok(claims)
        })
        .await
    }

    /// The positions of a role, in order.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn positions(&self, role: &str) -> Result<Vec<Position>, StoreError> {
        in_time(async {
            let sql = "SELECT topic, \"partition\", next_offset FROM consumer_position \
                       WHERE role = $1 ORDER BY topic, \"partition\"";
            let rows = self.client().await?.query(sql, &[&role]).await?;
            let position = |row: &tokio_postgres::Row| Position {
                topic: row.get(0),
                partition: row.get(1),
                next_offset: row.get(2),
            };
            Ok(rows.iter().map(position).collect())
        })
        .await
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
                       FROM raw_file WHERE state = 'published'";
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
            let sql = format!(
                "SELECT {columns} FROM raw_file WHERE state = 'published' AND catalog_seq <= $3 \
                   AND int8range(min_effective, max_effective, '[]') && int8range($1, $2) \
                 UNION SELECT {columns} FROM raw_file WHERE state = 'published' \
                   AND catalog_seq <= $3 AND clock_ahead_count > 0 AND min_effective < $2 \
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

/// Bounds a step: a connection can be dead without anybody noticing.
pub(super) async fn in_time<T, E: From<StoreError>>(
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(STEP_TIMEOUT, step).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Timeout(STEP_TIMEOUT).into()),
    }
}
