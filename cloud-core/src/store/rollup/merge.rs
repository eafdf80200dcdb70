//! Merging: due marks are taken, finer rows read, coarser rows written or deleted, the next
//! level marked, the marks removed; one transaction.
//!
//! Work is divided by group (level, window, shard). A worker takes a group with an advisory lock
//! of its transaction, so that neither the stream nor other workers ever wait for a merge, and
//! nothing is left behind by a worker that dies. A mark that was changed meanwhile has another
//! version and stays: whoever changed it committed rows that the merge may not have read.
//!
//! Failpoints: `merge_before_commit`.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use futures::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::marks::{Because, Key, MergeMarks};
use super::rows::{self, Row, Rule};
use super::series::{self, Name};
use super::value::Micros;
use super::{Level, RollupStore};
use crate::rollup::merge::{self, Merging};
use crate::rollup::window;
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// After so long nothing more is expected for a fleet's window.
const FLEET_CLOSED_MICROS: i64 = 15 * window::MINUTE;

/// Marks that are worked on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// What is merged.
    pub level: Level,
    /// The window's begin, µs.
    pub bucket: i64,
    shard: i16,
}

/// What a merge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Marks worked on.
    pub marks: usize,
    /// Finer rows read.
    pub read: usize,
    /// Rows new or with another content.
    pub changed: usize,
    /// Rows whose last finer row is gone.
    pub deleted: usize,
}

/// A mark as it was taken.
struct Taken {
    device: String,
    fleet: String,
    version: i64,
    urgent: bool,
    closed: bool,
}

impl RollupStore {
    /// Groups with due marks among the `limit` marks that are due for the longest time.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn merge_groups(&self, limit: i64) -> Result<Vec<Group>, StoreError> {
        in_time(async {
            let sql = "SELECT level, is_fleet, bucket, shard FROM ( \
                         SELECT level, device = '' AS is_fleet, bucket, shard, due_at \
                         FROM merge_mark WHERE due_at <= now() ORDER BY due_at LIMIT $1) due \
                       GROUP BY level, is_fleet, bucket, shard ORDER BY min(due_at)";
            let rows = self.client().await?.query(sql, &[&limit]).await?;
            let group = |row: &tokio_postgres::Row| {
                let level = Level::from_name(row.get(0), row.get(1))?;
                Some(Group { level, bucket: row.get(2), shard: row.get(3) })
            };
            Ok(rows.iter().filter_map(group).collect())
        })
        .await
    }

    /// How many marks are waiting, and for how long the oldest is due, seconds.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn merge_backlog(&self) -> Result<(i64, f64), StoreError> {
        in_time(async {
            let sql = "SELECT count(*), coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8 \
                       FROM merge_mark";
            let row = self.client().await?.query_one(sql, &[]).await?;
            Ok((row.get(0), row.get::<_, f64>(1).max(0.0)))
        })
        .await
    }

    /// Merges a group, `marks_max` of its marks at most; `None` when another worker is at it.
    ///
    /// # Errors
    /// When Postgres is away or a stored row is damaged; nothing has changed then.
    pub async fn merge(&self, group: Group, marks_max: i64) -> Result<Option<Merged>, StoreError> {
        in_time(async {
            let mut client = self.client().await?;
            let table = group.level.table();
            self.partitions.ensure(&mut client, table, [group.bucket].into_iter()).await?;
            let transaction = client.transaction().await?;
            let sql = "SELECT pg_try_advisory_xact_lock($1)";
            if !transaction.query_one(sql, &[&group.lock()]).await?.get::<_, bool>(0) {
                return Ok(None);
            }
            let marks_max = if group.level == Level::FleetMinute { 1 } else { marks_max };
            let taken = take(&transaction, group, marks_max).await?;
            if taken.is_empty() {
                return Ok(Some(Merged::default()));
            }
            let merged = self.merge_taken(&transaction, group, &taken).await?;
            self.failpoints.hit("merge_before_commit").await?;
            transaction.commit().await?;
            Ok(Some(merged))
        })
        .await
        .inspect_err(|_| self.partitions.forget())
    }

    async fn merge_taken(
        &self,
        transaction: &Transaction<'_>,
        group: Group,
        taken: &[Taken],
    ) -> Result<Merged, StoreError> {
        let level = group.level;
        let (owners, finer, read) = if level == Level::FleetMinute {
            read_fleet(transaction, group, &taken[0].fleet).await?
        } else {
            read_finer(transaction, group, taken).await?
        };
        let mut rows: Vec<Row<'_>> = finer
            .iter()
            .map(|(series_id, merged)| Row {
                series_id: *series_id,
                bucket: group.bucket,
                aggregate: &merged.aggregate,
                // A fleet's devices are on many partitions, whose offsets say nothing together.
                last_offset: if level.is_fleet() { -1 } else { merged.last_offset },
            })
            .collect();
        let gone: Vec<(i32, i64)> = owners
            .keys()
            .filter(|series_id| !finer.contains_key(series_id))
            .map(|series_id| (*series_id, group.bucket))
            .collect();
        let changed = rows::upsert(transaction, level.table(), &mut rows, Rule::Replace).await?;
        let deleted = rows::delete(transaction, level.table(), &gone).await?;
        finish(transaction, group, taken, &self.delays).await?;
        if let Some(parent) = level.parent() {
            let mut marks = MergeMarks::default();
            let bucket = group.bucket - group.bucket.rem_euclid(parent.table().width());
            for (series_id, _) in changed.changed.iter().chain(&deleted) {
                if let Some(taken) = owners.get(series_id).and_then(|n| taken.get(*n)) {
                    let Taken { fleet, device, urgent, closed, .. } = taken;
                    let because = Because { closed: *closed, urgent: *urgent };
                    marks.add(Key { level: parent, fleet, device, bucket }, because);
                }
            }
            marks.write(transaction, &self.delays).await?;
        }
        let (changed, deleted) = (changed.changed.len(), deleted.len());
        Ok(Merged { marks: taken.len(), read, changed, deleted })
    }

    /// Puts the marks of a group off, after a failure that is its own.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn postpone(&self, group: Group) -> Result<(), StoreError> {
        in_time(async {
            let sql = "UPDATE merge_mark SET due_at = now() + interval '1 minute' \
                       WHERE level = $1 AND (device = '') = $2 AND bucket = $3 AND shard = $4";
            let Group { level, bucket, shard } = group;
            let values: [&(dyn ToSql + Sync); 4] =
                [&level.name(), &level.is_fleet(), &bucket, &shard];
            self.client().await?.execute(sql, &values).await?;
            Ok(())
        })
        .await
    }
}

impl Group {
    /// FNV-1a. Two groups with one number only wait for each other.
    fn lock(self) -> i64 {
        let (level, bucket) = (self.level as u64, self.bucket.cast_unsigned());
        let parts = [0x6d65_7267_6500, level, bucket, u64::from(self.shard.cast_unsigned())];
        let bytes = parts.into_iter().flat_map(u64::to_le_bytes);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash.cast_signed()
    }
}

async fn take(
    transaction: &Transaction<'_>,
    group: Group,
    marks_max: i64,
) -> Result<Vec<Taken>, StoreError> {
    let Group { level, bucket, shard } = group;
    // The end of the window that the parent covers: it is closed when that is.
    let width = level.parent().map_or(0, |parent| parent.table().width());
    let end = if width == 0 { i64::MAX } else { bucket - bucket.rem_euclid(width) + width };
    let sql = "SELECT m.fleet, m.device, m.version, m.urgent, \
                 CASE WHEN $2 THEN $5 <= (extract(epoch FROM now()) * 1000000)::int8 - $6 \
                      ELSE coalesce(s.closed_through >= $5, false) END \
               FROM merge_mark m LEFT JOIN device_state s USING (fleet, device) \
               WHERE m.level = $1 AND (m.device = '') = $2 AND m.bucket = $3 AND m.shard = $4 \
                 AND m.due_at <= now() \
               ORDER BY m.fleet COLLATE \"C\", m.device COLLATE \"C\" LIMIT $7";
    let values: [&(dyn ToSql + Sync); 7] =
        [&level.name(), &level.is_fleet(), &bucket, &shard, &end, &FLEET_CLOSED_MICROS, &marks_max];
    let rows = transaction.query(sql, &values).await?;
    let taken = |row: &tokio_postgres::Row| Taken {
        fleet: row.get(0),
        device: row.get(1),
        version: row.get(2),
        urgent: row.get(3),
        closed: row.get(4),
    };
    Ok(rows.iter().map(taken).collect())
}

/// By series, whose mark it belongs to; what its finer rows give; how many they were.
type Finer = (BTreeMap<i32, usize>, BTreeMap<i32, merge::Merged>, usize);

/// The finer rows of the same series.
async fn read_finer(
    transaction: &Transaction<'_>,
    group: Group,
    taken: &[Taken],
) -> Result<Finer, StoreError> {
    let fleets: Vec<&str> = taken.iter().map(|taken| &*taken.fleet).collect();
    let devices: Vec<&str> = taken.iter().map(|taken| &*taken.device).collect();
    let sql = "SELECT s.series_id, m.n FROM unnest($1::text[], $2::text[]) \
                 WITH ORDINALITY AS m (fleet, device, n) JOIN series s USING (fleet, device)";
    let rows = transaction.query(sql, &[&fleets, &devices]).await?;
    let owner = |row: &tokio_postgres::Row| {
        let number = usize::try_from(row.get::<_, i64>(1)).unwrap_or(1);
        (row.get::<_, i32>(0), number.saturating_sub(1))
    };
    let owners: BTreeMap<i32, usize> = rows.iter().map(owner).collect();
    let ids: Vec<i32> = owners.keys().copied().collect();
    let sql = format!(
        "SELECT series_id, sketch, last_offset FROM {} \
         WHERE series_id = ANY($1) AND bucket >= $2 AND bucket < $3",
        group.level.source().name()
    );
    let (from, to) = (group.bucket, group.bucket + group.level.table().width());
    let values: [&(dyn ToSql + Sync); 3] = [&ids, &Micros(from), &Micros(to)];
    let (merging, read) = merge_rows(transaction, &sql, &values, |row| row.get(0)).await?;
    Ok((owners, merging.into_rows(), read))
}

/// The rows of all devices of a fleet.
async fn read_fleet(
    transaction: &Transaction<'_>,
    group: Group,
    fleet: &str,
) -> Result<Finer, StoreError> {
    let sql = "SELECT s.metric, r.sketch, r.last_offset \
               FROM series s JOIN rollup_1m r USING (series_id) \
               WHERE s.fleet = $1 AND s.device <> '' AND r.bucket = $2";
    // A fleet has few metrics.
    let mut metrics: Vec<String> = Vec::new();
    let by_metric = |row: &tokio_postgres::Row| {
        let metric: &str = row.get(0);
        metrics.iter().position(|known| known == metric).unwrap_or_else(|| {
            metrics.push(metric.to_owned());
            metrics.len() - 1
        })
    };
    let values: [&(dyn ToSql + Sync); 2] = [&fleet, &Micros(group.bucket)];
    let (merging, read) = merge_rows(transaction, sql, &values, by_metric).await?;
    let names: Vec<Name<'_>> =
        metrics.iter().map(|metric| Name { fleet, device: "", metric }).collect();
    // Not by the cache: if this transaction fails, numbers made here are nobody's.
    let made = series::make(&**transaction, &names).await?;
    let id = |(number, merged): (usize, _)| Some((*made.get(names.get(number)?)?, merged));
    let merged = merging.into_rows().into_iter().filter_map(id).collect();
    let sql = "SELECT series_id FROM series WHERE fleet = $1 AND device = ''";
    let owners = transaction.query(sql, &[&fleet]).await?;
    Ok((owners.iter().map(|row| (row.get(0), 0)).collect(), merged, read))
}

/// Merges rows (something, sketch, last offset) as they come, by what `key` says of them.
async fn merge_rows<K: Ord>(
    transaction: &Transaction<'_>,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
    mut key: impl FnMut(&tokio_postgres::Row) -> K,
) -> Result<(Merging<K>, usize), StoreError> {
    let (mut merging, mut read) = (Merging::default(), 0);
    let rows = transaction.query_raw(sql, values.iter().copied()).await?;
    futures::pin_mut!(rows);
    while let Some(row) = rows.try_next().await? {
        read += 1;
        merging
            .add(key(&row), row.get(1), row.get(2))
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
    }
    Ok((merging, read))
}

/// Removes the marks that are as they were taken; the others wait again.
async fn finish(
    transaction: &Transaction<'_>,
    group: Group,
    taken: &[Taken],
    delays: &super::MergeDelays,
) -> Result<(), StoreError> {
    let Group { level, bucket, .. } = group;
    let fleets: Vec<&str> = taken.iter().map(|taken| &*taken.fleet).collect();
    let devices: Vec<&str> = taken.iter().map(|taken| &*taken.device).collect();
    let versions: Vec<i64> = taken.iter().map(|taken| taken.version).collect();
    let lock = "SELECT FROM merge_mark WHERE level = $1 AND bucket = $2 \
                  AND (fleet, device) IN (SELECT * FROM unnest($3::text[], $4::text[])) \
                ORDER BY fleet COLLATE \"C\", device COLLATE \"C\" FOR UPDATE";
    transaction.execute(lock, &[&level.name(), &bucket, &fleets, &devices]).await?;
    let done = "DELETE FROM merge_mark m USING unnest($3::text[], $4::text[], $5::int8[]) \
                  AS taken (fleet, device, version) \
                WHERE m.level = $1 AND m.bucket = $2 AND m.fleet = taken.fleet \
                  AND m.device = taken.device AND m.version = taken.version";
    let values: [&(dyn ToSql + Sync); 5] = [&level.name(), &bucket, &fleets, &devices, &versions];
    let gone = transaction.execute(done, &values).await?;
    if gone < taken.len() as u64 {
        let delay = delays.of(level, &Because { closed: false, urgent: false });
        let again = "UPDATE merge_mark SET due_at = now() + $5::int8 * interval '1 millisecond' \
                     WHERE level = $1 AND bucket = $2 AND NOT urgent \
                       AND (fleet, device) IN (SELECT * FROM unnest($3::text[], $4::text[]))";
        let values: [&(dyn ToSql + Sync); 5] = [&level.name(), &bucket, &fleets, &devices, &delay];
        transaction.execute(again, &values).await?;
    }
    Ok(())
}
