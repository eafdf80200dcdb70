//! Ranges that somebody asked to be rebuilt. A range is marked hour by hour, and only while few
//! marks wait, so that a request for a month holds up no correction.

use std::sync::Arc;

use tokio_postgres::types::ToSql;

use super::value::Micros;
use super::{Mark, RollupStore, marks};
use crate::rollup::window::HOUR;
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// Whose rollups a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// One fleet; all if not given.
    pub fleet: Option<String>,
    /// One device; all if not given.
    pub device: Option<String>,
}

/// The next hour of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHour {
    /// The request.
    pub request: i64,
    /// The hour's begin, µs.
    pub hour: i64,
    /// Whose.
    pub whose: Whose,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestState {
    /// Nothing is left to be done.
    pub done: bool,
    /// Hours that are not marked yet.
    pub hours_left: i64,
    /// Hours of devices that are marked and not done.
    pub marks_left: i64,
    /// Hours of devices that were marked.
    pub marks: i64,
    /// Rows written.
    pub rows_changed: i64,
    /// Rows deleted.
    pub rows_deleted: i64,
    /// Hours of devices left as they are, because raw is no longer kept whole.
    pub hours_refused: i64,
}

impl RollupStore {
    /// Asks for the hours that a range [`from`, `to`) touches (µs); says the request's number.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn request_rebuild(
        &self,
        from: i64,
        to: i64,
        whose: &Whose,
    ) -> Result<i64, StoreError> {
        in_time(async {
            let from = from - from.rem_euclid(HOUR);
            let to = to + (-to).rem_euclid(HOUR);
            let sql = "INSERT INTO rebuild_request (fleet, device, from_hour, to_hour, next_hour) \
                       VALUES ($1, $2, $3, $4, $3) RETURNING request_id";
            let Whose { fleet, device } = whose;
            let row = self.client().await?.query_one(sql, &[fleet, device, &from, &to]).await?;
            Ok(row.get(0))
        })
        .await
    }

    /// The next hour that is to be marked, unless `marks_max` requested ones wait already.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn next_hour(&self, marks_max: i64) -> Result<Option<NextHour>, StoreError> {
        in_time(async {
            let sql = "SELECT request_id, next_hour, fleet, device FROM rebuild_request \
                       WHERE done_at IS NULL AND next_hour < to_hour \
                         AND (SELECT count(*) FROM rebuild_mark WHERE requests <> '{}') < $1 \
                       ORDER BY request_id LIMIT 1";
            let row = self.client().await?.query_opt(sql, &[&marks_max]).await?;
            Ok(row.map(|row| NextHour {
                request: row.get(0),
                hour: row.get(1),
                whose: Whose { fleet: row.get(2), device: row.get(3) },
            }))
        })
        .await
    }

    /// The devices with rows in an hour: fleet and device.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn devices_with_rows(
        &self,
        hour: i64,
        whose: &Whose,
    ) -> Result<Vec<(Arc<str>, Arc<str>)>, StoreError> {
        in_time(async {
            let sql = "SELECT DISTINCT s.fleet, s.device FROM rollup_1m r \
                         JOIN series s USING (series_id) \
                       WHERE r.bucket >= $1 AND r.bucket < $2 AND s.device <> '' \
                         AND ($3::text IS NULL OR s.fleet = $3) \
                         AND ($4::text IS NULL OR s.device = $4)";
            let Whose { fleet, device } = whose;
            let values: [&(dyn ToSql + Sync); 4] =
                [&Micros(hour), &Micros(hour + HOUR), fleet, device];
            let rows = self.client().await?.query(sql, &values).await?;
            let pair = |row: &tokio_postgres::Row| {
                (row.get::<_, &str>(0).into(), row.get::<_, &str>(1).into())
            };
            Ok(rows.iter().map(pair).collect())
        })
        .await
    }

    /// Marks the hour for these devices and moves the request on; unless somebody else has.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn mark_hour(
        &self,
        next: &NextHour,
        devices: &[(Arc<str>, Arc<str>)],
    ) -> Result<(), StoreError> {
        in_time(async {
            let mark = |(fleet, device): &(Arc<str>, Arc<str>)| Mark {
                fleet: Arc::clone(fleet),
                device: Arc::clone(device),
                hour: next.hour,
                partition: -1,
                event_offset: None,
                replay_offset: None,
                ready_through: i64::MIN,
                done_through: i64::MIN,
                reason: "request",
            };
            let marks: Vec<Mark> = devices.iter().map(mark).collect();
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            // Marks first: the order of locks.
            marks::add_rebuild(&transaction, &marks, Some(next.request)).await?;
            let sql = "UPDATE rebuild_request SET next_hour = next_hour + $3, marks = marks + $4 \
                       WHERE request_id = $1 AND next_hour = $2";
            let count = i64::try_from(marks.len()).unwrap_or(i64::MAX);
            let values: [&(dyn ToSql + Sync); 4] = [&next.request, &next.hour, &HOUR, &count];
            if transaction.execute(sql, &values).await? == 1 {
                transaction.commit().await?;
            }
            Ok(())
        })
        .await
    }

    /// Passes over the hours before `oldest`; says how many.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn refuse_hours(&self, next: &NextHour, oldest: i64) -> Result<u64, StoreError> {
        in_time(async {
            let sql = "UPDATE rebuild_request SET next_hour = least(to_hour, $3), \
                         hours_refused = hours_refused + (least(to_hour, $3) - next_hour) / $4 \
                       WHERE request_id = $1 AND next_hour = $2 RETURNING next_hour";
            let values: [&(dyn ToSql + Sync); 4] = [&next.request, &next.hour, &oldest, &HOUR];
            let row = self.client().await?.query_opt(sql, &values).await?;
            let to = row.map_or(next.hour, |row| row.get::<_, i64>(0));
            Ok(((to - next.hour) / HOUR).unsigned_abs())
        })
        .await
    }

    /// Notes which requests are done; says how many.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn finish_requests(&self) -> Result<u64, StoreError> {
        in_time(async {
            let sql = "UPDATE rebuild_request q SET done_at = now() \
                       WHERE done_at IS NULL AND next_hour >= to_hour AND NOT EXISTS \
                         (SELECT FROM rebuild_mark WHERE requests @> ARRAY[q.request_id] \
                            AND requests <> '{}')";
            Ok(self.client().await?.execute(sql, &[]).await?)
        })
        .await
    }

    /// How far a request is; nothing if it is not known.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn request_state(&self, request: i64) -> Result<Option<RequestState>, StoreError> {
        in_time(async {
            let sql = "SELECT done_at IS NOT NULL, (to_hour - next_hour) / $2, \
                         (SELECT count(*) FROM rebuild_mark WHERE requests @> ARRAY[$1::int8] \
                            AND requests <> '{}'), \
                         marks, rows_changed, rows_deleted, hours_refused \
                       FROM rebuild_request WHERE request_id = $1";
            let row = self.client().await?.query_opt(sql, &[&request, &HOUR]).await?;
            Ok(row.map(|row| RequestState {
                done: row.get(0),
                hours_left: row.get(1),
                marks_left: row.get(2),
                marks: row.get(3),
                rows_changed: row.get(4),
                rows_deleted: row.get(5),
                hours_refused: row.get(6),
            }))
        })
        .await
    }
}
