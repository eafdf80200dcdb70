//! What the API reads of the rollups. A question that is given up is ended in the database too.

use std::collections::BTreeMap;

use deadpool_postgres::Object;
use futures::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, NoTls, Row};

use super::value::Micros;
use super::{RollupStore, Table};
use crate::rollup::aggregate::Aggregate;
use crate::store::groups::DeviceName;
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// A row of one series. Times in µs since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesRow {
    /// The begin of its window.
    pub bucket: i64,
    /// Values.
    pub count: i64,
    /// Their sum.
    pub sum: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// How often it changed.
    pub revision: i32,
    /// When it last did.
    pub updated_at: i64,
}

/// A device that has rollups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDevice {
    /// Its fleet.
    pub fleet: String,
    /// Its name.
    pub device: String,
    /// The metrics that it ever had.
    pub metrics: Vec<String>,
}

/// Ends the statement in the database when the question is dropped before it was answered.
struct Unanswered(Option<CancelToken>);

impl Unanswered {
    fn of(client: &Object) -> Self {
        Self(Some(client.cancel_token()))
    }

    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let (Some(token), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = token.cancel_query(NoTls).await {
                    tracing::debug!(%error, "a statement could not be ended");
                }
            });
        }
    }
}

impl RollupStore {
    async fn ask(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        in_time(async {
            let client = self.client().await?;
            let statement = client.prepare_cached(sql).await?;
            let unanswered = Unanswered::of(&client);
            let rows = client.query(&statement, parameters).await?;
            unanswered.answered();
            Ok(rows)
        })
        .await
    }

    /// Rows of a device (or, with the empty device, of a fleet), `from` ≤ bucket < `to`.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn series_rows(
        &self,
        table: Table,
        (fleet, device, metric): (&str, &str, &str),
        (from, to): (i64, i64),
        limit: usize,
    ) -> Result<Vec<SeriesRow>, StoreError> {
        let sql = format!(
            "SELECT bucket, count, sum, min, max, p50, p95, revision, updated_at \
             FROM {} WHERE series_id = (SELECT series_id FROM series \
                 WHERE fleet = $1 AND device = $2 AND metric = $3) \
               AND bucket >= $4 AND bucket < $5 ORDER BY bucket LIMIT $6",
            table.name()
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (from, to) = (Micros(from), Micros(to));
        let rows = self.ask(&sql, &[&fleet, &device, &metric, &from, &to, &limit]).await?;
        let row = |row: &Row| SeriesRow {
            bucket: row.get::<_, Micros>(0).0,
            count: row.get(1),
            sum: row.get(2),
            min: row.get(3),
            max: row.get(4),
            p50: row.get(5),
            p95: row.get(6),
            revision: row.get(7),
            updated_at: row.get::<_, Micros>(8).0,
        };
        Ok(rows.iter().map(row).collect())
    }

    /// The rows of many devices merged by bucket, `from` ≤ bucket < `to`. `revision` and
    /// `updated_at` are the greatest of each bucket.
    ///
    /// # Errors
    /// When Postgres is away, or a row is damaged.
    pub async fn merged_rows(
        &self,
        table: Table,
        (fleets, devices): (&[&str], &[&str]),
        metric: &str,
        (from, to): (i64, i64),
    ) -> Result<Vec<SeriesRow>, StoreError> {
        in_time(async {
            let client = self.client().await?;
            let sql = format!(
                "SELECT bucket, sketch, revision, updated_at FROM {} WHERE bucket >= $4 AND bucket < $5 AND series_id IN (\
                   SELECT series_id FROM series JOIN unnest($1::text[], $2::text[]) \
                     AS member (fleet, device) USING (fleet, device) WHERE metric = $3)",
                table.name()
            );
            let statement = client.prepare_cached(&sql).await?;
            let unanswered = Unanswered::of(&client);
            let (from, to) = (Micros(from), Micros(to));
            let parameters: [&(dyn ToSql + Sync); 5] = [&fleets, &devices, &metric, &from, &to];
            let rows = client.query_raw(&statement, parameters).await?;
            let mut rows = std::pin::pin!(rows);
            let mut merging: BTreeMap<i64, (Aggregate, i32, i64)> = BTreeMap::new();
            while let Some(row) = rows.try_next().await? {
                let finer = Aggregate::decode(row.get(1))
                    .map_err(|error| StoreError::Damaged(format!("a rollup row: {error}")))?;
                let (merged, revision, updated_at) =
                    merging.entry(row.get::<_, Micros>(0).0).or_insert_with(|| (Aggregate::new(), 0, i64::MIN));
                merged.merge(&finer);
                *revision = row.get::<_, i32>(2).max(*revision);
                *updated_at = row.get::<_, Micros>(3).0.max(*updated_at);
            }
            unanswered.answered();
            Ok(merging.into_iter().map(|(bucket, merged)| of(bucket, &merged)).collect())
        })
        .await
    }

    /// The fleets that have rollups.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn fleets(&self) -> Result<Vec<String>, StoreError> {
        // From one fleet to the next by the index: there are few fleets and many series.
        let sql = "WITH RECURSIVE walk AS (\
                     (SELECT fleet FROM series ORDER BY fleet LIMIT 1) UNION ALL \
                     SELECT (SELECT fleet FROM series s WHERE s.fleet > walk.fleet \
                             ORDER BY fleet LIMIT 1) FROM walk WHERE walk.fleet IS NOT NULL) \
                   SELECT fleet FROM walk WHERE fleet IS NOT NULL LIMIT 10000";
        let rows = self.ask(sql, &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Devices after that one, of one fleet or all, whose name contains a text in any case.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn known_devices(
        &self,
        fleet: Option<&str>,
        contains: &str,
        (after_fleet, after_device): (&str, &str),
        limit: usize,
    ) -> Result<Vec<KnownDevice>, StoreError> {
        let sql = "SELECT fleet, device, array_agg(metric ORDER BY metric) FROM series \
                   WHERE device <> '' AND (fleet, device) > ($1, $2) \
                     AND ($3::text IS NULL OR fleet = $3) \
                     AND strpos(lower(device), lower($4)) > 0 \
                   GROUP BY fleet, device ORDER BY fleet, device LIMIT $5";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.ask(sql, &[&after_fleet, &after_device, &fleet, &contains, &limit]).await?;
        Ok(rows.iter().map(known).collect())
    }

    /// These devices, as far as they have rollups, by fleet and name.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn devices_named(
        &self,
        names: &[&DeviceName],
    ) -> Result<Vec<KnownDevice>, StoreError> {
        let sql = "SELECT fleet, device, array_agg(metric ORDER BY metric) FROM series \
                   JOIN unnest($1::text[], $2::text[]) AS wanted (fleet, device) \
                     USING (fleet, device) WHERE device <> '' \
                   GROUP BY fleet, device ORDER BY fleet, device";
        let fleets: Vec<&str> = names.iter().map(|name| name.fleet.as_str()).collect();
        let devices: Vec<&str> = names.iter().map(|name| name.device.as_str()).collect();
        let rows = self.ask(sql, &[&fleets, &devices]).await?;
        Ok(rows.iter().map(known).collect())
    }

    /// How far a device has closed its minutes, µs.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn closed_through(
        &self,
        fleet: &str,
        device: &str,
    ) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT closed_through FROM device_state WHERE fleet = $1 AND device = $2";
        let rows = self.ask(sql, &[&fleet, &device]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }
}

fn known(row: &Row) -> KnownDevice {
    KnownDevice { fleet: row.get(0), device: row.get(1), metrics: row.get(2) }
}

fn of(bucket: i64, (merged, revision, updated_at): &(Aggregate, i32, i64)) -> SeriesRow {
    let [p50, p95] = merged.quantiles([0.5, 0.95]);
    SeriesRow {
        bucket,
        count: i64::try_from(merged.count()).unwrap_or(i64::MAX),
        sum: merged.sum(),
        min: merged.min(),
        max: merged.max(),
        p50,
        p95,
        revision: *revision,
        updated_at: *updated_at,
    }
}
