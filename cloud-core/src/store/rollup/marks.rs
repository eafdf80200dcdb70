//! Marks: what is to be computed again. They coalesce by key and carry a version that every
//! change raises; whoever worked on a mark removes only the version that it began with.
//!
//! Locks are taken in one order by everybody: rows, device states, rebuild marks, merge marks
//! (finer levels first), each sorted by key. Marks come last, so that nobody holds them for long.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::{Level, Mark, MergeDelays};
use crate::rollup::window;
use crate::store::postgres::StoreError;

/// Adds rebuild marks.
pub(super) async fn add_rebuild(
    transaction: &Transaction<'_>,
    marks: &[Mark],
    request: Option<i64>,
) -> Result<(), StoreError> {
    // One statement can't touch a row twice.
    let mut by_key: BTreeMap<(&str, &str, i64), Mark> = BTreeMap::new();
    for mark in marks {
        let key = (&*mark.fleet, &*mark.device, mark.hour);
        by_key.entry(key).and_modify(|known| join(known, mark)).or_insert_with(|| mark.clone());
    }
    if by_key.is_empty() {
        return Ok(());
    }
    let marks: Vec<Mark> = by_key.into_values().collect();
    let fleets: Vec<&str> = marks.iter().map(|mark| &*mark.fleet).collect();
    let devices: Vec<&str> = marks.iter().map(|mark| &*mark.device).collect();
    let hours: Vec<i64> = marks.iter().map(|mark| mark.hour).collect();
    let partitions: Vec<Option<i32>> =
        marks.iter().map(|mark| (mark.partition >= 0).then_some(mark.partition)).collect();
    let events: Vec<Option<i64>> = marks.iter().map(|mark| mark.event_offset).collect();
    let replays: Vec<Option<i64>> = marks.iter().map(|mark| mark.replay_offset).collect();
    let ready: Vec<i64> = marks.iter().map(|mark| mark.ready_through).collect();
    let done: Vec<i64> = marks.iter().map(|mark| mark.done_through).collect();
    let reasons: Vec<&str> = marks.iter().map(|mark| mark.reason).collect();
    let requests: Vec<i64> = request.into_iter().collect();
    let sql = "INSERT INTO rebuild_mark AS m (fleet, device, hour, \"partition\", event_offset, \
                 replay_offset, ready_through, done_through, reason, requests) \
               SELECT new.*, $10 FROM unnest($1::text[], $2::text[], $3::int8[], $4::int4[], \
                 $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::text[]) AS new \
               ON CONFLICT (fleet, device, hour) DO UPDATE SET version = m.version + 1, \
                 \"partition\" = coalesce(excluded.\"partition\", m.\"partition\"), \
                 event_offset = greatest(m.event_offset, excluded.event_offset), \
                 replay_offset = greatest(m.replay_offset, excluded.replay_offset), \
                 ready_through = least(m.ready_through, excluded.ready_through), \
                 done_through = greatest(m.done_through, excluded.done_through), \
                 parked = false, reason = excluded.reason, \
                 marked_at = CASE WHEN m.parked THEN now() ELSE m.marked_at END, \
                 not_before = least(m.not_before, excluded.not_before), \
                 requests = CASE WHEN m.requests @> excluded.requests THEN m.requests \
                            ELSE m.requests || excluded.requests END";
    let values: [&(dyn ToSql + Sync); 10] = [
        &fleets,
        &devices,
        &hours,
        &partitions,
        &events,
        &replays,
        &ready,
        &done,
        &reasons,
        &requests,
    ];
    transaction.execute(sql, &values).await?;
    Ok(())
}

fn join(known: &mut Mark, mark: &Mark) {
    known.partition = known.partition.max(mark.partition);
    known.event_offset = known.event_offset.max(mark.event_offset);
    known.replay_offset = known.replay_offset.max(mark.replay_offset);
    known.ready_through = known.ready_through.min(mark.ready_through);
    known.done_through = known.done_through.max(mark.done_through);
}

/// A window to be merged, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key<'a> {
    pub(super) level: Level,
    pub(super) fleet: &'a str,
    /// `""` for the whole fleet.
    pub(super) device: &'a str,
    /// The window's begin, µs.
    pub(super) bucket: i64,
}

/// Why a window is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Because {
    /// It has closed: nothing more is expected.
    pub(super) closed: bool,
    /// Something finished was corrected.
    pub(super) urgent: bool,
}

/// Windows to be merged, each once.
#[derive(Debug, Default)]
pub(super) struct MergeMarks<'a>(BTreeMap<Key<'a>, Because>);

impl<'a> MergeMarks<'a> {
    pub(super) fn add(&mut self, key: Key<'a>, because: Because) {
        let known = self.0.entry(key).or_insert(because);
        known.closed |= because.closed;
        known.urgent |= because.urgent;
    }

    /// The hour of a device and the minute of its fleet that a minute row changes.
    pub(super) fn minute(&mut self, fleet: &'a str, device: &'a str, minute: i64, why: Because) {
        let hour = window::hour_of(minute);
        self.add(Key { level: Level::Hour, fleet, device, bucket: hour }, why);
        self.add(Key { level: Level::FleetMinute, fleet, device: "", bucket: minute }, why);
    }

    /// Writes them down.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        delays: &MergeDelays,
    ) -> Result<(), StoreError> {
        if self.0.is_empty() {
            return Ok(());
        }
        // The keys' order is the order of locks.
        let levels: Vec<&str> = self.0.keys().map(|key| key.level.name()).collect();
        let fleets: Vec<&str> = self.0.keys().map(|key| key.fleet).collect();
        let devices: Vec<&str> = self.0.keys().map(|key| key.device).collect();
        let buckets: Vec<i64> = self.0.keys().map(|key| key.bucket).collect();
        let urgent: Vec<bool> = self.0.values().map(|because| because.urgent).collect();
        let delays: Vec<i64> =
            self.0.iter().map(|(key, because)| delays.of(key.level, because)).collect();
        let sql = "INSERT INTO merge_mark AS m (level, fleet, device, bucket, urgent, due_at) \
                   SELECT level, fleet, device, bucket, urgent, \
                          now() + delay * interval '1 millisecond' \
                   FROM unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::bool[], \
                               $6::int8[]) AS new (level, fleet, device, bucket, urgent, delay) \
                   ON CONFLICT (level, fleet, device, bucket) DO UPDATE SET \
                     version = m.version + 1, urgent = m.urgent OR excluded.urgent, \
                     due_at = least(m.due_at, excluded.due_at)";
        let values: [&(dyn ToSql + Sync); 6] =
            [&levels, &fleets, &devices, &buckets, &urgent, &delays];
        transaction.execute(sql, &values).await?;
        Ok(())
    }
}
