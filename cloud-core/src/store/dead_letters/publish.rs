//! The transaction in which dead letters begin to count: files, index rows and positions together,
//! by the rules of `store/publish.rs`.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::IndexEntry;
use crate::store::catalog::Catalog;
use crate::store::in_time;
use crate::store::ledger;
use crate::store::positions::{self, Standing};
use crate::store::postgres::StoreError;
use crate::store::publish::{
    FilesAre, Publication, PublishError, lock_files, moved_without_us, next_seq, note_ranges,
    publish_file,
};

/// Index rows sent in one statement.
const ROWS_AT_ONCE: usize = 2_000;

/// A letter's index row and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// What stands in the index.
    pub entry: IndexEntry,
    /// The file.
    pub file_id: Uuid,
    /// The row in it, from 0.
    pub row: i32,
}

impl Catalog {
    /// Publishes files of dead letters with their index rows, or changes nothing; tried again
    /// while the outcome is unknown, it counts once. `look_after_ms` is when the raw store is first
    /// asked for a letter's event.
    ///
    /// # Errors
    /// As the table of `store/publish.rs` says, or when Postgres is away.
    pub async fn publish_dead_letters(
        &self,
        publication: &Publication,
        rows: &[IndexRow],
        look_after_ms: u64,
    ) -> Result<(), PublishError> {
        let done = in_time(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            if !prepare(&transaction, publication, rows, look_after_ms).await? {
                return Ok(());
            }
            self.failpoints.hit("before_commit").await?;
            transaction.commit().await?;
            Ok::<_, PublishError>(())
        });
        done.await?;
        self.failpoints.hit("after_commit").await?;
        Ok(())
    }
}

/// Does everything but the commit; `false` when an earlier try has done it.
async fn prepare(
    transaction: &Transaction<'_>,
    publication: &Publication,
    rows: &[IndexRow],
    look_after_ms: u64,
) -> Result<bool, PublishError> {
    let Publication { role, topic, files, covered, seen } = publication;
    let ids: Vec<Uuid> = files.iter().map(|file| file.file_id).collect();
    if !ids.is_empty() && lock_files(transaction, &ids).await? == FilesAre::Published {
        return Ok(false);
    }
    match positions::check(transaction, role, topic, covered).await? {
        Standing::Ours => {}
        Standing::AlreadyMoved if files.is_empty() => return Ok(false),
        Standing::AlreadyMoved => return Err(moved_without_us(covered)),
    }
    positions::advance(transaction, role, topic, covered, &[]).await?;
    ledger::note_seen(transaction, seen).await?;
    let Some(first) = files.first() else { return Ok(true) };
    for rows in rows.chunks(ROWS_AT_ONCE) {
        insert(transaction, topic, rows, look_after_ms).await?;
    }
    note_ranges(transaction, topic, first.file_id, covered).await?;
    // Last: from here on every other publication waits.
    let seq = next_seq(transaction).await?;
    for file in files {
        publish_file(transaction, file, seq).await?;
    }
    Ok(true)
}

/// A place that is there already means that the topic was made anew: the letter is in its file.
const INSERT: &str = "\
    INSERT INTO dead_letter (topic, \"partition\", \"offset\", file_id, row_number, append_time, \
      first_seen, stage, reason, detail_preview, fleet, gateway, epoch, seq, schema_version, \
      attempts, device_id, event_id, event_time, payload_bytes, look_at) \
    SELECT $1, p, o, f, r, a, fs, st, re, de, fl, ga, ep, se, sv, att, di, ei, et, pb, \
      CASE WHEN rv THEN now() + $2::int8 * interval '1 millisecond' END \
    FROM unnest($3::int4[], $4::int8[], $5::uuid[], $6::int4[], $7::int8[], $8::int8[], \
      $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::int8[], $15::int8[], \
      $16::int4[], $17::int8[], $18::text[], $19::uuid[], $20::int8[], $21::int8[], $22::bool[]) \
      WITH ORDINALITY \
      AS new (p, o, f, r, a, fs, st, re, de, fl, ga, ep, se, sv, att, di, ei, et, pb, rv, nr) \
    ORDER BY nr ON CONFLICT (topic, \"partition\", \"offset\") DO NOTHING";

async fn insert(
    transaction: &Transaction<'_>,
    topic: &str,
    rows: &[IndexRow],
    look_after_ms: u64,
) -> Result<(), StoreError> {
    fn column<'a, T: 'a>(rows: &'a [IndexRow], value: impl Fn(&'a IndexRow) -> T) -> Vec<T> {
        rows.iter().map(value).collect()
    }
    let look_after = i64::try_from(look_after_ms).unwrap_or(i64::MAX);
    let partitions = column(rows, |row| row.entry.partition);
    let offsets = column(rows, |row| row.entry.offset);
    let files = column(rows, |row| row.file_id);
    let numbers = column(rows, |row| row.row);
    let append_times = column(rows, |row| row.entry.append_time);
    let first_seen = column(rows, |row| row.entry.first_seen);
    let stages = column(rows, |row| row.entry.stage.as_str());
    let reasons = column(rows, |row| row.entry.reason.as_str());
    let details = column(rows, |row| row.entry.detail_preview.as_str());
    let fleets = column(rows, |row| row.entry.fleet.as_str());
    let gateways = column(rows, |row| row.entry.gateway.as_str());
    let epochs = column(rows, |row| row.entry.epoch);
    let seqs = column(rows, |row| row.entry.seq);
    let schemas = column(rows, |row| row.entry.schema_version);
    let attempts = column(rows, |row| row.entry.attempts);
    let devices = column(rows, |row| row.entry.device_id.as_deref());
    let event_ids = column(rows, |row| row.entry.event_id);
    let event_times = column(rows, |row| row.entry.event_time);
    let sizes = column(rows, |row| row.entry.payload_bytes);
    let resolvable = column(rows, |row| row.entry.resolvable);
    let values: [&(dyn ToSql + Sync); 22] = [
        &topic,
        &look_after,
        &partitions,
        &offsets,
        &files,
        &numbers,
        &append_times,
        &first_seen,
        &stages,
        &reasons,
        &details,
        &fleets,
        &gateways,
        &epochs,
        &seqs,
        &schemas,
        &attempts,
        &devices,
        &event_ids,
        &event_times,
        &sizes,
        &resolvable,
    ];
    transaction.execute(INSERT, &values).await?;
    Ok(())
}
