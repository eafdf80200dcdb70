//! What the stream writes: rows, closed devices, marks and its position, in one transaction.
//!
//! | the positions | outcome |
//! |---|---|
//! | all at `from`, generations ours | everything written, positions at `to` |
//! | all at `to`, generations ours | done: an earlier try of ours got through, its answer did not |
//! | any other | [`PublishError::Fenced`], nothing changed |
//!
//! So a flush whose COMMIT had no answer is simply tried again.
//!
//! Failpoints: `rollup_before_commit`, `rollup_after_commit`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use deadpool_postgres::Transaction;
use foldhash::fast::RandomState;

use super::marks::{self, Because, MergeMarks};
use super::rows::{self, Row, Rule};
use super::series::Name;
use super::{DeviceClose, Mark, MinuteRow, RollupStore, StreamFlush, Table};
use crate::rollup::window::{HOUR, MINUTE, hour_of};
use crate::store::in_time;
use crate::store::positions::{self, Standing};
use crate::store::postgres::StoreError;
use crate::store::publish::PublishError;

/// Devices remembered at most, some 60 bytes each; beyond it the memory begins anew.
const DEVICES_KNOWN_MAX: usize = 2_000_000;

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// An earlier try had done it; the other numbers are not known.
    pub repeated: bool,
    /// Rows that are new or have another content.
    pub changed: usize,
    /// Rows that were left alone because they cover more, and are to be rebuilt.
    pub refused: usize,
}

/// Devices that have a row in `device_state`, by fleet.
#[derive(Debug, Default)]
pub(super) struct KnownDevices(Mutex<HashMap<Arc<str>, Names>>);

type Names = HashSet<Arc<str>, RandomState>;

impl KnownDevices {
    fn unknown<'a>(&self, rows: &'a [MinuteRow]) -> Vec<(&'a Arc<str>, &'a Arc<str>)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |row: &&MinuteRow| {
            known.get(&row.fleet).is_some_and(|devices| devices.contains(&row.device))
        };
        let mut unknown: Vec<_> =
            rows.iter().filter(|row| !is_known(row)).map(|row| (&row.fleet, &row.device)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    fn note(&self, devices: &[(&Arc<str>, &Arc<str>)]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.values().map(HashSet::len).sum::<usize>() > DEVICES_KNOWN_MAX {
            known.clear();
        }
        for (fleet, device) in devices {
            known.entry(Arc::clone(fleet)).or_default().insert(Arc::clone(device));
        }
    }
}

impl RollupStore {
    /// Writes, or changes nothing; see the table above.
    ///
    /// # Errors
    /// As the table says, or when Postgres is away: then nothing is known, try again.
    pub async fn flush_stream(&self, flush: &StreamFlush) -> Result<Flushed, PublishError> {
        let attempt = in_time(async {
            let mut client = self.client().await?;
            let names: Vec<Name<'_>> = flush.rows.iter().map(name).collect();
            let series = self.series.resolve(&client, &names).await?;
            let minutes = flush.rows.iter().map(|row| row.minute);
            self.partitions.ensure(&mut client, Table::Minute, minutes).await?;
            let devices = self.states.unknown(&flush.rows);
            let transaction = client.transaction().await?;
            let flushed = self.prepare(&transaction, flush, &series, &devices).await?;
            self.failpoints.hit("rollup_before_commit").await?;
            transaction.commit().await?;
            self.states.note(&devices);
            Ok::<_, PublishError>(flushed)
        });
        let flushed = attempt.await.inspect_err(|_| self.partitions.forget())?;
        self.failpoints.hit("rollup_after_commit").await?;
        Ok(flushed)
    }

    async fn prepare(
        &self,
        transaction: &Transaction<'_>,
        flush: &StreamFlush,
        series: &[i32],
        new_devices: &[(&Arc<str>, &Arc<str>)],
    ) -> Result<Flushed, PublishError> {
        let StreamFlush { role, topic, covered, rewinds, closes, .. } = flush;
        let standing = positions::check(transaction, role, topic, covered).await?;
        if standing == Standing::AlreadyMoved {
            return Ok(Flushed { repeated: true, ..Flushed::default() });
        }
        let mut rows: Vec<Row<'_>> = series
            .iter()
            .zip(&flush.rows)
            .map(|(series_id, row)| Row {
                series_id: *series_id,
                bucket: row.minute,
                aggregate: &row.aggregate,
                last_offset: row.last_offset,
            })
            .collect();
        let done = rows::upsert(transaction, Table::Minute, &mut rows, Rule::KeepCoverage).await?;
        close_devices(transaction, new_devices, closes).await?;
        let keyed = series.iter().zip(&flush.rows).map(|(id, row)| ((*id, row.minute), row));
        let by_key: HashMap<(i32, i64), &MinuteRow, RandomState> = keyed.collect();
        let refused =
            done.refused.iter().filter_map(|key| by_key.get(key)).map(|row| coverage(row));
        let mut marks: Vec<Mark> = flush.marks.clone();
        marks.extend(refused);
        marks::add_rebuild(transaction, &marks, None).await?;
        let changed = done.changed.iter().filter_map(|key| by_key.get(key).copied());
        merge_marks(changed, closes).write(transaction, &self.delays).await?;
        positions::advance(transaction, role, topic, covered, rewinds).await?;
        let (changed, refused) = (done.changed.len(), done.refused.len());
        Ok(Flushed { repeated: false, changed, refused })
    }
}

fn name(row: &MinuteRow) -> Name<'_> {
    Name { fleet: &row.fleet, device: &row.device, metric: &row.metric }
}

/// Devices that come for the first time get a row, so that rebuild knows that the stream has
/// minutes of theirs.
async fn close_devices(
    transaction: &Transaction<'_>,
    new: &[(&Arc<str>, &Arc<str>)],
    closes: &[DeviceClose],
) -> Result<(), StoreError> {
    let mut states: BTreeMap<(&str, &str), (i32, i64)> =
        new.iter().map(|(fleet, device)| ((&***fleet, &***device), (-1, i64::MIN))).collect();
    for close in closes {
        let state = states.entry((&close.fleet, &close.device)).or_insert((-1, i64::MIN));
        *state = (close.partition, state.1.max(close.closed_through));
    }
    if states.is_empty() {
        return Ok(());
    }
    let fleets: Vec<&str> = states.keys().map(|key| key.0).collect();
    let devices: Vec<&str> = states.keys().map(|key| key.1).collect();
    let partitions: Vec<i32> = states.values().map(|state| state.0).collect();
    let closed: Vec<i64> = states.values().map(|state| state.1).collect();
    let sql = "INSERT INTO device_state AS s (fleet, device, \"partition\", closed_through) \
               SELECT * FROM unnest($1::text[], $2::text[], $3::int4[], $4::int8[]) \
               ON CONFLICT (fleet, device) DO UPDATE SET \"partition\" = excluded.\"partition\", \
                 closed_through = greatest(s.closed_through, excluded.closed_through) \
               WHERE excluded.\"partition\" >= 0";
    transaction.execute(sql, &[&fleets, &devices, &partitions, &closed]).await?;
    Ok(())
}

/// The mark of a row that covers more than the stream knows.
fn coverage(row: &MinuteRow) -> Mark {
    Mark {
        fleet: Arc::clone(&row.fleet),
        device: Arc::clone(&row.device),
        hour: hour_of(row.minute),
        partition: -1,
        event_offset: None,
        replay_offset: None,
        ready_through: row.minute + MINUTE,
        done_through: row.minute + MINUTE,
        reason: "coverage",
    }
}

fn merge_marks<'a>(
    changed: impl Iterator<Item = &'a MinuteRow>,
    closes: &[DeviceClose],
) -> MergeMarks<'a> {
    let closed: HashMap<(&str, &str), i64, RandomState> =
        closes.iter().map(|c| ((&*c.fleet, &*c.device), c.closed_through)).collect();
    let mut marks = MergeMarks::default();
    // The metrics of a device's minute are one mark. Rows of a device share its name.
    let mut seen: HashSet<(*const u8, i64), RandomState> = HashSet::default();
    for row in changed.filter(|row| seen.insert((row.device.as_ptr(), row.minute))) {
        let end = hour_of(row.minute) + HOUR;
        let through = closed.get(&(&*row.fleet, &*row.device));
        let because = Because { closed: through.is_some_and(|t| *t >= end), urgent: false };
        marks.minute(&row.fleet, &row.device, row.minute, because);
    }
    marks
}
