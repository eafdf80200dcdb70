//! Rows of rollups: written only where they really change.
//!
//! `sketch` is the canonical form of the whole aggregate, so two rows are equal exactly when
//! their sketches are. Arrays and `unnest` instead of COPY into a temporary table: measured alike
//! (100k to 130k rows/s at 10,000 and at 50,000 a statement; the INSERT itself is the cost), and
//! nothing of it belongs to a session.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::Table;
use super::value::Micros;
use crate::rollup::aggregate::Aggregate;
use crate::store::postgres::StoreError;

/// Rows of one statement.
const STATEMENT_ROWS_MAX: usize = 20_000;

/// A row to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) series_id: i32,
    /// The window's begin, µs.
    pub(super) bucket: i64,
    pub(super) aggregate: &'a Aggregate,
    pub(super) last_offset: i64,
}

/// What an upsert may do with a row that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Replaced unless it covers more than the new one; the stream writes so.
    KeepCoverage,
    /// Replaced; its coverage stays. What recomputes a row from everything writes so.
    Replace,
}

/// What an upsert did; keys are (series, bucket).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Upserted {
    /// New, or with another content.
    pub(super) changed: Vec<(i32, i64)>,
    /// Left alone: it covers more, and says something else.
    pub(super) refused: Vec<(i32, i64)>,
}

/// Writes rows, each key at most once.
pub(super) async fn upsert(
    transaction: &Transaction<'_>,
    table: Table,
    rows: &mut [Row<'_>],
    rule: Rule,
) -> Result<Upserted, StoreError> {
    // One order everywhere: two transactions never wait for each other.
    rows.sort_unstable_by_key(|row| (row.series_id, row.bucket));
    let mut done = Upserted::default();
    for rows in rows.chunks(STATEMENT_ROWS_MAX) {
        let columns = Columns::of(rows)?;
        let touched = columns.upsert(transaction, table, rule, &mut done.changed).await?;
        if rule == Rule::KeepCoverage && touched < rows.len() {
            columns.refused(transaction, table, &mut done.refused).await?;
        }
    }
    Ok(done)
}

/// Rows as arrays.
struct Columns {
    series: Vec<i32>,
    buckets: Vec<Micros>,
    counts: Vec<i64>,
    sums: Vec<f64>,
    mins: Vec<f64>,
    maxs: Vec<f64>,
    p50s: Vec<f64>,
    p95s: Vec<f64>,
    sketches: Vec<Vec<u8>>,
    offsets: Vec<i64>,
}

impl Columns {
    fn of(rows: &[Row<'_>]) -> Result<Self, StoreError> {
        let counts = rows.iter().map(|row| i64::try_from(row.aggregate.count()));
        Ok(Self {
            counts: counts
                .collect::<Result<_, _>>()
                .map_err(|_| StoreError::OutOfRange("count"))?,
            series: rows.iter().map(|row| row.series_id).collect(),
            buckets: rows.iter().map(|row| Micros(row.bucket)).collect(),
            sums: rows.iter().map(|row| row.aggregate.sum()).collect(),
            mins: rows.iter().map(|row| row.aggregate.min()).collect(),
            maxs: rows.iter().map(|row| row.aggregate.max()).collect(),
            p50s: rows.iter().map(|row| row.aggregate.quantile(0.5)).collect(),
            p95s: rows.iter().map(|row| row.aggregate.quantile(0.95)).collect(),
            sketches: rows.iter().map(|row| row.aggregate.encode()).collect(),
            offsets: rows.iter().map(|row| row.last_offset).collect(),
        })
    }

    /// Says how many rows were written, and adds those that changed.
    async fn upsert(
        &self,
        transaction: &Transaction<'_>,
        table: Table,
        rule: Rule,
        changed: &mut Vec<(i32, i64)>,
    ) -> Result<usize, StoreError> {
        let table = table.name();
        let (offset, when) = match rule {
            Rule::KeepCoverage => (
                "excluded.last_offset",
                "excluded.last_offset >= r.last_offset AND (r.sketch <> excluded.sketch \
                 OR excluded.last_offset > r.last_offset)",
            ),
            Rule::Replace => {
                ("greatest(r.last_offset, excluded.last_offset)", "r.sketch <> excluded.sketch")
            }
        };
        // `updated_at` is this transaction's time exactly where the content is another.
        let sql = format!(
            "INSERT INTO {table} AS r (series_id, bucket, count, sum, min, max, p50, p95, sketch, \
                                       last_offset, revision, updated_at) \
             SELECT new.*, 1, now() FROM unnest($1::int4[], $2::timestamptz[], $3::int8[], \
               $4::float8[], $5::float8[], $6::float8[], $7::float8[], $8::float8[], $9::bytea[], \
               $10::int8[]) AS new \
             ON CONFLICT (series_id, bucket) DO UPDATE SET count = excluded.count, \
               sum = excluded.sum, min = excluded.min, max = excluded.max, p50 = excluded.p50, \
               p95 = excluded.p95, sketch = excluded.sketch, last_offset = {offset}, \
               revision = r.revision + (r.sketch <> excluded.sketch)::int, \
               updated_at = CASE WHEN r.sketch <> excluded.sketch THEN now() ELSE r.updated_at END \
             WHERE {when} RETURNING series_id, bucket, updated_at = now()"
        );
        let values: [&(dyn ToSql + Sync); 10] = [
            &self.series,
            &self.buckets,
            &self.counts,
            &self.sums,
            &self.mins,
            &self.maxs,
            &self.p50s,
            &self.p95s,
            &self.sketches,
            &self.offsets,
        ];
        let rows = transaction.query(&sql, &values).await?;
        let new = rows.iter().filter(|row| row.get(2));
        changed.extend(new.map(|row| (row.get(0), row.get::<_, Micros>(1).0)));
        Ok(rows.len())
    }

    async fn refused(
        &self,
        transaction: &Transaction<'_>,
        table: Table,
        refused: &mut Vec<(i32, i64)>,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT r.series_id, r.bucket FROM unnest($1::int4[], $2::timestamptz[], $3::bytea[], \
               $4::int8[]) AS new (series_id, bucket, sketch, last_offset) \
             JOIN {} r USING (series_id, bucket) \
             WHERE r.last_offset > new.last_offset AND r.sketch <> new.sketch",
            table.name()
        );
        let values: [&(dyn ToSql + Sync); 4] =
            [&self.series, &self.buckets, &self.sketches, &self.offsets];
        let rows = transaction.query(&sql, &values).await?;
        refused.extend(rows.iter().map(|row| (row.get(0), row.get::<_, Micros>(1).0)));
        Ok(())
    }
}

/// Deletes rows by key; says which were there.
pub(super) async fn delete(
    transaction: &Transaction<'_>,
    table: Table,
    keys: &[(i32, i64)],
) -> Result<Vec<(i32, i64)>, StoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let series: Vec<i32> = keys.iter().map(|key| key.0).collect();
    let buckets: Vec<Micros> = keys.iter().map(|key| Micros(key.1)).collect();
    let sql = format!(
        "DELETE FROM {} r USING unnest($1::int4[], $2::timestamptz[]) AS gone (series_id, bucket) \
         WHERE r.series_id = gone.series_id AND r.bucket = gone.bucket \
         RETURNING r.series_id, r.bucket",
        table.name()
    );
    let rows = transaction.query(&sql, &[&series, &buckets]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, Micros>(1).0)).collect())
}
