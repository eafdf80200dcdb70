//! What a rebuild needs of the store: marks on lease, the rows that are there, and the one
//! transaction that puts them right.
//!
//! ```text
//!          lease            apply: worked on, unchanged, device closed
//! waiting ───────▶ leased ───────────────────────────────────────────▶ gone
//!    ▲               │ apply: changed meanwhile; release; lease run out
//!    └───────────────┤
//!                    │ apply: worked on before the device was closed
//!                    └──────────▶ parked ──▶ (closed) leased ──▶ gone
//! ```
//! A lease is a name and a time, no lock: reading raw events takes long. Who has lost it finds
//! another name in the last step and changes nothing.
//!
//! Failpoints: `rebuild_before_commit`, `rebuild_after_commit`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::value::Micros;
use super::{Mark, RollupStore, marks};
use crate::rollup::window::HOUR;
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// How far raw has come, by partition: the next offsets of `raw-events` and `replay-events`.
pub type RawPositions = HashMap<i32, (i64, i64)>;

/// Poison at most that a rebuild asks for.
const POISON_MAX: i64 = 1_000_000;

/// When a mark may be worked on.
#[derive(Clone, Debug)]
pub struct Ready {
    /// How far raw has come.
    pub raw: RawPositions,
    /// Marks wait so long for more of the same.
    pub delay_ms: u64,
    /// So long for their device.
    pub settle_ms: u64,
    /// A lease holds so long.
    pub lease_ms: u64,
}

/// A mark that is ours for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The fleet.
    pub fleet: Arc<str>,
    /// The device.
    pub device: Arc<str>,
    /// Where its events come from, if that is known.
    pub partition: Option<i32>,
    /// How far it is closed, µs; nothing if the stream has never written for it.
    pub closed_through: Option<i64>,
    /// See [`Mark`].
    pub done_through: i64,
    /// See [`Mark`].
    pub event_offset: Option<i64>,
    /// When it was marked, µs.
    pub marked_at: i64,
    pub(super) ready_through: i64,
    pub(super) version: i64,
    pub(super) requests: Vec<i64>,
}

/// A minute as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMinute {
    /// The device's number in the question.
    pub device: usize,
    /// The metric.
    pub metric: String,
    /// The minute's begin, µs.
    pub minute: i64,
    /// Its aggregate, encoded.
    pub sketch: Vec<u8>,
    /// The offset that it covers.
    pub last_offset: i64,
    pub(super) series_id: i32,
}

/// Marks in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RebuildBacklog {
    /// To be worked on.
    pub waiting: i64,
    /// Worked on, and to be confirmed when their devices are closed.
    pub parked: i64,
    /// The age of the oldest that waits, seconds.
    pub oldest_s: f64,
}

impl Leased {
    /// Minutes that end at or before this may be written: the closed ones; and where the device
    /// does not come to close them, those that the mark is about.
    pub fn through(&self) -> i64 {
        let closed = self.closed_through.unwrap_or(i64::MAX);
        if closed < self.ready_through { closed.max(self.done_through) } else { closed }
    }

    /// Whether nothing is left to be confirmed later.
    pub(super) fn is_done(&self) -> bool {
        // Copies of an event are looked for within a day: what lies further ahead changes nothing.
        let is_pointless = self.done_through > self.marked_at.saturating_add(25 * HOUR);
        let closed = self.closed_through.is_some_and(|closed| closed >= self.done_through);
        self.done_through == i64::MIN || closed || is_pointless
    }
}

/// The condition on a mark `m` with its device's state `s` and the positions `raw`.
const IS_READY: &str = "m.not_before <= now() \
    AND (m.leased_until IS NULL OR m.leased_until < now()) \
    AND (m.requests <> '{}' OR m.marked_at <= now() - $4::int8 * interval '1 millisecond') \
    AND (m.ready_through = -9223372036854775808 OR s.closed_through >= m.ready_through \
         OR (NOT m.parked AND m.marked_at <= now() - $5::int8 * interval '1 millisecond')) \
    AND (m.event_offset IS NULL OR raw.event_next > m.event_offset) \
    AND (m.replay_offset IS NULL OR raw.replay_next > m.replay_offset)";

/// Marks with what [`IS_READY`] asks for.
const MARKS: &str = "rebuild_mark m LEFT JOIN device_state s USING (fleet, device) \
    LEFT JOIN unnest($1::int4[], $2::int8[], $3::int8[]) AS raw (\"partition\", event_next, \
    replay_next) ON raw.\"partition\" = coalesce(m.\"partition\", s.\"partition\")";

/// The first parameters of both.
struct Parameters {
    partitions: Vec<i32>,
    events: Vec<i64>,
    replays: Vec<i64>,
    delay_ms: i64,
    settle_ms: i64,
}

impl Parameters {
    fn of(ready: &Ready) -> Self {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Self {
            partitions: ready.raw.keys().copied().collect(),
            events: ready.raw.values().map(|next| next.0).collect(),
            replays: ready.raw.values().map(|next| next.1).collect(),
            delay_ms: signed(ready.delay_ms),
            settle_ms: signed(ready.settle_ms),
        }
    }

    fn with<'a>(&'a self, more: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let mut values: Vec<&(dyn ToSql + Sync)> =
            vec![&self.partitions, &self.events, &self.replays, &self.delay_ms, &self.settle_ms];
        values.extend_from_slice(more);
        values
    }
}

impl RollupStore {
    /// Adds marks outside of a flush.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn mark(&self, new: &[Mark]) -> Result<(), StoreError> {
        in_time(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            marks::add_rebuild(&transaction, new, None).await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// Hours with marks that may be worked on: corrections before requests, then the oldest.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn rebuild_hours(&self, ready: &Ready, limit: i64) -> Result<Vec<i64>, StoreError> {
        in_time(async {
            let sql = format!(
                "SELECT m.hour FROM {MARKS} WHERE {IS_READY} GROUP BY m.hour \
                 ORDER BY min((m.requests <> '{{}}')::int), min(m.marked_at) LIMIT $6"
            );
            let parameters = Parameters::of(ready);
            let rows = self.client().await?.query(&sql, &parameters.with(&[&limit])).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
        .await
    }

    /// Takes marks of an hour, `limit` at most, in the order of devices.
    ///
    /// # Errors
    /// When Postgres is away; leases that were taken run out then.
    pub async fn lease(
        &self,
        ready: &Ready,
        hour: i64,
        limit: i64,
        lease: Uuid,
    ) -> Result<Vec<Leased>, StoreError> {
        in_time(async {
            let sql = format!(
                "WITH taken AS (SELECT m.fleet, m.device FROM {MARKS} \
                   WHERE m.hour = $6 AND {IS_READY} \
                   ORDER BY m.device COLLATE \"C\", m.fleet COLLATE \"C\" LIMIT $7 \
                   FOR UPDATE OF m SKIP LOCKED) \
                 UPDATE rebuild_mark m SET lease = $8, \
                   leased_until = now() + $9::int8 * interval '1 millisecond' \
                 FROM taken LEFT JOIN device_state s USING (fleet, device) \
                 WHERE m.hour = $6 AND m.fleet = taken.fleet AND m.device = taken.device \
                 RETURNING m.fleet, m.device, coalesce(m.\"partition\", s.\"partition\"), \
                   s.closed_through, m.done_through, m.event_offset, m.marked_at, \
                   m.ready_through, m.version, m.requests"
            );
            let parameters = Parameters::of(ready);
            let lease_ms = i64::try_from(ready.lease_ms).unwrap_or(i64::MAX);
            let values = parameters.with(&[&hour, &limit, &lease, &lease_ms]);
            let rows = self.client().await?.query(&sql, &values).await?;
            Ok(rows.iter().map(leased).collect())
        })
        .await
    }

    /// Gives marks back unworked, for `after_ms` at least.
    ///
    /// # Errors
    /// When Postgres is away; their leases run out then.
    pub async fn release(
        &self,
        hour: i64,
        lease: Uuid,
        devices: &[&Leased],
        after_ms: u64,
    ) -> Result<(), StoreError> {
        in_time(async {
            let fleets: Vec<&str> = devices.iter().map(|mark| &*mark.fleet).collect();
            let names: Vec<&str> = devices.iter().map(|mark| &*mark.device).collect();
            let after = i64::try_from(after_ms).unwrap_or(i64::MAX);
            let sql = "UPDATE rebuild_mark SET lease = NULL, leased_until = NULL, \
                         not_before = now() + $5::int8 * interval '1 millisecond' \
                       WHERE hour = $1 AND lease = $2 \
                         AND (fleet, device) IN (SELECT * FROM unnest($3::text[], $4::text[]))";
            let values: [&(dyn ToSql + Sync); 5] = [&hour, &lease, &fleets, &names, &after];
            self.client().await?.execute(sql, &values).await?;
            Ok(())
        })
        .await
    }

    /// The minutes of an hour that are there for these devices.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn minutes_of(
        &self,
        hour: i64,
        devices: &[Leased],
    ) -> Result<Vec<StoredMinute>, StoreError> {
        in_time(async {
            let client = self.client().await?;
            let fleets: Vec<&str> = devices.iter().map(|mark| &*mark.fleet).collect();
            let names: Vec<&str> = devices.iter().map(|mark| &*mark.device).collect();
            let sql = "SELECT s.series_id, d.n, s.metric FROM unnest($1::text[], $2::text[]) \
                         WITH ORDINALITY AS d (fleet, device, n) JOIN series s USING (fleet, device)";
            let rows = client.query(sql, &[&fleets, &names]).await?;
            let of = |row: &SqlRow| {
                let number = usize::try_from(row.get::<_, i64>(1)).unwrap_or(1);
                (row.get::<_, i32>(0), (number.saturating_sub(1), row.get::<_, String>(2)))
            };
            let series: HashMap<i32, (usize, String)> = rows.iter().map(of).collect();
            let ids: Vec<i32> = series.keys().copied().collect();
            let sql = "SELECT series_id, bucket, sketch, last_offset FROM rollup_1m \
                       WHERE series_id = ANY($1) AND bucket >= $2 AND bucket < $3";
            let values: [&(dyn ToSql + Sync); 3] = [&ids, &Micros(hour), &Micros(hour + HOUR)];
            let rows = client.query(sql, &values).await?;
            let minute = |row: &SqlRow| {
                let series_id = row.get(0);
                let (device, metric) = series.get(&series_id)?.clone();
                let minute = row.get::<_, Micros>(1).0;
                let (sketch, last_offset) = (row.get(2), row.get(3));
                Some(StoredMinute { device, metric, minute, sketch, last_offset, series_id })
            };
            Ok(rows.iter().filter_map(minute).collect())
        })
        .await
    }

    /// Removes marks of hours before this; says how many. Their rows stay as they are.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn refuse_before(&self, hour: i64) -> Result<u64, StoreError> {
        in_time(async {
            let sql = "WITH gone AS (DELETE FROM rebuild_mark WHERE hour < $1 RETURNING requests), \
                         asked AS (SELECT unnest(requests) AS id, count(*) AS n FROM gone GROUP BY 1), \
                         told AS (UPDATE rebuild_request r SET hours_refused = r.hours_refused + n \
                                  FROM asked WHERE r.request_id = asked.id) \
                       SELECT count(*) FROM gone";
            let row = self.client().await?.query_one(sql, &[&hour]).await?;
            Ok(row.get::<_, i64>(0).unsigned_abs())
        })
        .await
    }

    /// Marks in numbers.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn rebuild_backlog(&self) -> Result<RebuildBacklog, StoreError> {
        in_time(async {
            let sql = "SELECT count(*) FILTER (WHERE NOT parked), count(*) FILTER (WHERE parked), \
                         coalesce(extract(epoch FROM now() - min(marked_at) \
                                  FILTER (WHERE NOT parked)), 0)::float8 FROM rebuild_mark";
            let row = self.client().await?.query_one(sql, &[]).await?;
            Ok(RebuildBacklog {
                waiting: row.get(0),
                parked: row.get(1),
                oldest_s: row.get::<_, f64>(2).max(0.0),
            })
        })
        .await
    }

    /// Remembers a record that the stream gave up on.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn remember_poison(
        &self,
        gateway: &str,
        epoch: i64,
        seq: i64,
        reason: &str,
    ) -> Result<(), StoreError> {
        in_time(async {
            let sql = "INSERT INTO poison (gateway, epoch, seq, reason) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT DO NOTHING";
            self.client().await?.execute(sql, &[&gateway, &epoch, &seq, &reason]).await?;
            Ok(())
        })
        .await
    }

    /// The records that the stream gave up on: gateway, epoch, number.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn poison(&self) -> Result<HashSet<(Arc<str>, i64, i64)>, StoreError> {
        in_time(async {
            let sql = "SELECT gateway, epoch, seq FROM poison LIMIT $1";
            let rows = self.client().await?.query(sql, &[&POISON_MAX]).await?;
            let key = |row: &SqlRow| (row.get::<_, &str>(0).into(), row.get(1), row.get(2));
            Ok(rows.iter().map(key).collect())
        })
        .await
    }
}

fn leased(row: &SqlRow) -> Leased {
    let micros: Micros = row.get(6);
    Leased {
        fleet: row.get::<_, &str>(0).into(),
        device: row.get::<_, &str>(1).into(),
        partition: row.get::<_, Option<i32>>(2).filter(|partition| *partition >= 0),
        closed_through: row.get(3),
        done_through: row.get(4),
        event_offset: row.get(5),
        marked_at: micros.0,
        ready_through: row.get(7),
        version: row.get(8),
        requests: row.get(9),
    }
}
