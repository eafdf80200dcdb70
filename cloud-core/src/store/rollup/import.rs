//! Rows that were finished elsewhere: a fleet's past, brought in from where it was computed.

use std::sync::Arc;

use super::rows::{self, Row, Rule};
use super::series::Name;
use super::{RollupStore, Table};
use crate::rollup::aggregate::Aggregate;
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// What the bus knows of such a row: nothing.
const NO_OFFSET: i64 = -1;

/// A row of any width.
#[derive(Clone, Debug)]
pub struct FinishedRow {
    /// The fleet.
    pub fleet: Arc<str>,
    /// The device; empty for the whole fleet.
    pub device: Arc<str>,
    /// The metric.
    pub metric: Arc<str>,
    /// The window's begin, µs since the Unix epoch.
    pub bucket: i64,
    /// Its values.
    pub aggregate: Aggregate,
}

impl RollupStore {
    /// Writes rows, each key at most once, as a merge writes them; says how many are new or have
    /// another content. Nothing is marked: who brings minutes brings the hours, the days and the
    /// fleet's rows above them too.
    ///
    /// # Errors
    /// When Postgres is away; nothing has changed then.
    pub async fn import(&self, table: Table, rows: &[FinishedRow]) -> Result<usize, StoreError> {
        in_time(async {
            let mut client = self.client().await?;
            let names: Vec<Name<'_>> = rows.iter().map(name).collect();
            let series = self.series.resolve(&client, &names).await?;
            let buckets = rows.iter().map(|row| row.bucket);
            self.partitions.ensure(&mut client, table, buckets).await?;
            let transaction = client.transaction().await?;
            let numbered = series.into_iter().zip(rows);
            let mut rows: Vec<Row<'_>> = numbered
                .map(|(series_id, row)| Row {
                    series_id,
                    bucket: row.bucket,
                    aggregate: &row.aggregate,
                    last_offset: NO_OFFSET,
                })
                .collect();
            let done = rows::upsert(&transaction, table, &mut rows, Rule::Replace).await?;
            transaction.commit().await?;
            Ok(done.changed.len())
        })
        .await
        .inspect_err(|_| self.partitions.forget())
    }
}

fn name(row: &FinishedRow) -> Name<'_> {
    Name { fleet: &row.fleet, device: &row.device, metric: &row.metric }
}
