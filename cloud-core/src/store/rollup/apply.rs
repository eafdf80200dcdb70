//! What a rebuild writes: rows, deletions, what is to be merged, and the end of its marks, in one
//! transaction that requires every lease to be still ours.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::marks::{Because, MergeMarks};
use super::rebuild::{Leased, StoredMinute};
use super::rows::{self, Row, Rule};
use super::series::Name;
use super::{RollupStore, Table};
use crate::rollup::aggregate::Aggregate;
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// A minute that should be other than it is.
#[derive(Clone, Debug)]
pub struct NewMinute {
    /// The device's number among the marks.
    pub device: usize,
    /// The metric.
    pub metric: String,
    /// The minute's begin, µs.
    pub minute: i64,
    /// Its values.
    pub aggregate: Aggregate,
}

/// What a rebuild of some devices' hour found.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// The hour's begin, µs.
    pub hour: i64,
    /// The lease's name.
    pub lease: Uuid,
    /// The marks that were worked on.
    pub marks: Vec<Leased>,
    /// Minutes to be written.
    pub changed: Vec<NewMinute>,
    /// Minutes that nothing is left of.
    pub gone: Vec<StoredMinute>,
}

impl Rebuilt {
    fn name<'a>(&'a self, new: &'a NewMinute) -> Name<'a> {
        let Leased { fleet, device, .. } = &self.marks[new.device];
        Name { fleet, device, metric: &new.metric }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows written.
    pub changed: usize,
    /// Rows deleted.
    pub deleted: usize,
    /// Marks removed.
    pub done: usize,
    /// Marks that stay until their devices are closed.
    pub parked: usize,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It took too long: others have some of the marks.
    #[error("{0} of the marks are no longer ours")]
    LeaseLost(usize),
    /// Nothing is known: try again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for ApplyError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<crate::failpoint::Tripped> for ApplyError {
    fn from(error: crate::failpoint::Tripped) -> Self {
        Self::Store(error.into())
    }
}

impl RollupStore {
    /// Writes what a rebuild found, or changes nothing. After an unknown commit the marks are
    /// gone, or still there to be worked on again: it is not tried twice.
    ///
    /// # Errors
    /// When a lease is lost, or Postgres is away.
    pub async fn apply(&self, rebuilt: &Rebuilt) -> Result<Applied, ApplyError> {
        let applied = in_time(async {
            let mut client = self.client().await?;
            let names: Vec<Name<'_>> =
                rebuilt.changed.iter().map(|new| rebuilt.name(new)).collect();
            let series = self.series.resolve(&client, &names).await?;
            let minutes = rebuilt.changed.iter().map(|new| new.minute);
            self.partitions.ensure(&mut client, Table::Minute, minutes).await?;
            let transaction = client.transaction().await?;
            let applied = self.write(&transaction, rebuilt, &series).await?;
            self.failpoints.hit("rebuild_before_commit").await?;
            transaction.commit().await?;
            Ok::<_, ApplyError>(applied)
        });
        let applied = applied.await.inspect_err(|_| self.partitions.forget())?;
        self.failpoints.hit("rebuild_after_commit").await?;
        Ok(applied)
    }

    async fn write(
        &self,
        transaction: &Transaction<'_>,
        rebuilt: &Rebuilt,
        series: &[i32],
    ) -> Result<Applied, ApplyError> {
        let Rebuilt { marks, changed, gone, .. } = rebuilt;
        let mut rows: Vec<Row<'_>> = series
            .iter()
            .zip(changed)
            .map(|(series_id, new)| Row {
                series_id: *series_id,
                bucket: new.minute,
                aggregate: &new.aggregate,
                // What raw had passed when it was read.
                last_offset: marks[new.device].event_offset.unwrap_or(-1),
            })
            .collect();
        let upserted = rows::upsert(transaction, Table::Minute, &mut rows, Rule::Replace).await?;
        let keys: Vec<(i32, i64)> = gone.iter().map(|old| (old.series_id, old.minute)).collect();
        let deleted = rows::delete(transaction, Table::Minute, &keys).await?;

        let new = series.iter().zip(changed).map(|(id, new)| ((*id, new.minute), new.device));
        let old = gone.iter().map(|old| ((old.series_id, old.minute), old.device));
        let owners: HashMap<(i32, i64), usize> = new.chain(old).collect();
        let mut merges = MergeMarks::default();
        let mut counts = vec![(0_i64, 0_i64); marks.len()];
        let because = Because { closed: true, urgent: true };
        let touched = upserted.changed.iter().map(|key| (key, true));
        for (key, is_new) in touched.chain(deleted.iter().map(|key| (key, false))) {
            let Some(device) = owners.get(key) else { continue };
            let Leased { fleet, device: name, .. } = &marks[*device];
            merges.minute(fleet, name, key.1, because);
            let count = &mut counts[*device];
            *(if is_new { &mut count.0 } else { &mut count.1 }) += 1;
        }
        let (done, parked) = settle(transaction, rebuilt).await?;
        tell_requests(transaction, rebuilt.hour, marks, &counts).await?;
        merges.write(transaction, &self.delays).await?;
        let (changed, deleted) = (upserted.changed.len(), deleted.len());
        Ok(Applied { changed, deleted, done, parked })
    }
}

/// Removes the marks that are as they were leased and done with; lets go of the others.
async fn settle(
    transaction: &Transaction<'_>,
    rebuilt: &Rebuilt,
) -> Result<(usize, usize), ApplyError> {
    let Rebuilt { hour, lease, marks, .. } = rebuilt;
    let fleets: Vec<&str> = marks.iter().map(|mark| &*mark.fleet).collect();
    let devices: Vec<&str> = marks.iter().map(|mark| &*mark.device).collect();
    let versions: Vec<i64> = marks.iter().map(|mark| mark.version).collect();
    let done: Vec<bool> = marks.iter().map(Leased::is_done).collect();
    let lock = "SELECT FROM rebuild_mark WHERE hour = $1 AND lease = $2 \
                  AND (fleet, device) IN (SELECT * FROM unnest($3::text[], $4::text[])) \
                ORDER BY fleet COLLATE \"C\", device COLLATE \"C\" FOR UPDATE";
    let ours = transaction.query(lock, &[hour, lease, &fleets, &devices]).await?.len();
    if ours < marks.len() {
        return Err(ApplyError::LeaseLost(marks.len() - ours));
    }
    let worked = "unnest($2::text[], $3::text[], $4::int8[], $5::bool[]) \
                    AS w (fleet, device, version, done)";
    let values: [&(dyn ToSql + Sync); 5] = [hour, &fleets, &devices, &versions, &done];
    let remove = format!(
        "DELETE FROM rebuild_mark m USING {worked} WHERE m.hour = $1 AND m.fleet = w.fleet \
           AND m.device = w.device AND m.version = w.version AND w.done"
    );
    let removed = transaction.execute(&remove, &values).await?;
    // What changed meanwhile waits as if it were new; what is not closed yet waits for that.
    let keep = format!(
        "UPDATE rebuild_mark m SET lease = NULL, leased_until = NULL, not_before = now(), \
           parked = m.version = w.version, \
           ready_through = CASE WHEN m.version = w.version THEN m.done_through \
                                ELSE m.ready_through END, \
           marked_at = CASE WHEN m.version = w.version THEN m.marked_at ELSE now() END \
         FROM {worked} WHERE m.hour = $1 AND m.fleet = w.fleet AND m.device = w.device \
         RETURNING m.parked"
    );
    let kept = transaction.query(&keep, &values).await?;
    let parked = kept.iter().filter(|row| row.get(0)).count();
    Ok((usize::try_from(removed).unwrap_or(usize::MAX), parked))
}

/// Adds what was done to the requests that asked for it, which then no longer wait for it.
async fn tell_requests(
    transaction: &Transaction<'_>,
    hour: i64,
    marks: &[Leased],
    counts: &[(i64, i64)],
) -> Result<(), ApplyError> {
    let mut by_request: HashMap<i64, (i64, i64)> = HashMap::new();
    for (mark, (changed, deleted)) in marks.iter().zip(counts) {
        for request in &mark.requests {
            let sum = by_request.entry(*request).or_default();
            *sum = (sum.0 + changed, sum.1 + deleted);
        }
    }
    if by_request.is_empty() {
        return Ok(());
    }
    let mut ids: Vec<i64> = by_request.keys().copied().collect();
    ids.sort_unstable();
    let changed: Vec<i64> = ids.iter().map(|id| by_request[id].0).collect();
    let deleted: Vec<i64> = ids.iter().map(|id| by_request[id].1).collect();
    let fleets: Vec<&str> = marks.iter().map(|mark| &*mark.fleet).collect();
    let devices: Vec<&str> = marks.iter().map(|mark| &*mark.device).collect();
    let served = "UPDATE rebuild_mark m SET requests = \
                    ARRAY(SELECT r FROM unnest(m.requests) AS r WHERE r <> ALL($1)) \
                  WHERE m.hour = $4 AND m.requests && $1 \
                    AND (m.fleet, m.device) IN (SELECT * FROM unnest($2::text[], $3::text[]))";
    transaction.execute(served, &[&ids, &fleets, &devices, &hour]).await?;
    let add = "UPDATE rebuild_request q SET rows_changed = q.rows_changed + new.changed, \
                 rows_deleted = q.rows_deleted + new.deleted \
               FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS new (id, changed, deleted) \
               WHERE q.request_id = new.id";
    transaction.execute(add, &[&ids, &changed, &deleted]).await?;
    Ok(())
}
