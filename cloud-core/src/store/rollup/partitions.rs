//! Native partitions of the three tables of rows, made when they are needed. With hypertables
//! there is nothing to do.
//!
//! | table | a partition holds |
//! |---|---|
//! | `rollup_1m` | a day |
//! | `rollup_1h` | a month |
//! | `rollup_1d` | a year |
//!
//! They are made before the transaction that needs them, in one of their own: a table is built
//! alone and then attached, which takes no lock that readers or writers of the parent wait for.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use deadpool_postgres::Object;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, tz::TimeZone};

use super::Table;
use crate::store::postgres::StoreError;

/// Any number, the same in every process: who holds this lock makes partitions.
const PARTITION_LOCK: i64 = 0x7065_6e73_7061_7274;

/// Questions about devices read the keys alone where a vacuum has seen the rows: soon, then.
const VACUUM: &str = "autovacuum_vacuum_insert_scale_factor = 0.03, \
                      autovacuum_vacuum_scale_factor = 0.05";

/// The partitions that are known to be there.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether the tables have partitions of ours at all.
    native: Option<bool>,
    /// Their tables and first days.
    made: HashSet<(Table, Date)>,
}

impl Partitions {
    /// Sees to it that there is a partition for each of these times (µs).
    pub(super) async fn ensure(
        &self,
        client: &mut Object,
        table: Table,
        times: impl Iterator<Item = i64>,
    ) -> Result<(), StoreError> {
        let mut wanted: Vec<Date> = Vec::new();
        let mut last = None;
        for time in times {
            let day = time.div_euclid(86_400_000_000);
            if last != Some(day) {
                last = Some(day);
                let Some(first) = first_day(table, time) else {
                    return Err(StoreError::OutOfRange("a bucket"));
                };
                if !wanted.contains(&first) && !self.lock().made.contains(&(table, first)) {
                    wanted.push(first);
                }
            }
        }
        if wanted.is_empty() || !self.are_native(client).await? {
            return Ok(());
        }
        wanted.sort_unstable();
        for first in wanted {
            make(client, table, first).await?;
            self.lock().made.insert((table, first));
        }
        Ok(())
    }

    /// Forgets what is known: somebody may have dropped a partition.
    pub(super) fn forget(&self) {
        self.lock().made.clear();
    }

    async fn are_native(&self, client: &Object) -> Result<bool, StoreError> {
        if let Some(native) = self.lock().native {
            return Ok(native);
        }
        let sql = "SELECT EXISTS (SELECT FROM pg_partitioned_table \
                   WHERE partrelid = 'rollup_1m'::regclass)";
        let native = client.query_one(sql, &[]).await?.get(0);
        self.lock().native = Some(native);
        Ok(native)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first day of the partition that holds a time.
fn first_day(table: Table, time: i64) -> Option<Date> {
    let day = Timestamp::from_microsecond(time).ok()?.to_zoned(TimeZone::UTC).date();
    // Far from the ends of the calendar, so that the next one exists as well.
    if !(1..=9_000).contains(&day.year()) {
        return None;
    }
    Some(match table {
        Table::Minute => day,
        Table::Hour => day.first_of_month(),
        Table::Day => day.first_of_year(),
    })
}

fn end_of(table: Table, first: Date) -> Date {
    first.saturating_add(match table {
        Table::Minute => 1.day(),
        Table::Hour => 1.month(),
        Table::Day => 1.year(),
    })
}

async fn make(client: &mut Object, table: Table, first: Date) -> Result<(), StoreError> {
    let parent = table.name();
    let digits = first.to_string().replace('-', "");
    let name = format!("{parent}_{digits}");
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&PARTITION_LOCK]).await?;
    let there = transaction.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await?;
    if !there.get::<_, bool>(0) {
        let end = end_of(table, first);
        let sql = format!(
            "CREATE TABLE {name} (LIKE {parent} INCLUDING ALL) WITH ({VACUUM}); \
             ALTER TABLE {parent} ATTACH PARTITION {name} \
             FOR VALUES FROM ('{first}T00:00:00Z') TO ('{end}T00:00:00Z')"
        );
        transaction.batch_execute(&sql).await?;
        tracing::info!(partition = name, "made a partition");
    }
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_begin_with_the_day_the_month_and_the_year() {
        let first = |table, text: &str| {
            let time: Timestamp = text.parse().unwrap();
            let first = first_day(table, time.as_microsecond()).unwrap();
            (first.to_string(), end_of(table, first).to_string())
        };
        let of = |first: &str, end: &str| (first.to_owned(), end.to_owned());
        let leap = "2024-02-29T23:59:59Z";
        assert_eq!(first(Table::Minute, leap), of("2024-02-29", "2024-03-01"));
        assert_eq!(first(Table::Hour, leap), of("2024-02-01", "2024-03-01"));
        assert_eq!(first(Table::Day, leap), of("2024-01-01", "2025-01-01"));
        assert_eq!(first(Table::Minute, "1969-12-31T23:59:00Z"), of("1969-12-31", "1970-01-01"));
        assert_eq!(first_day(Table::Minute, i64::MAX), None);
    }
}
