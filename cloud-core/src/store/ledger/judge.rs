//! Finding what is missing, and what is no longer.

use std::ops::Range;

use deadpool_postgres::Transaction;

use super::{LedgerStore, load_chunks, load_damaged, signed, try_lock, unsigned};
use crate::ledger::bits::CHUNK_NUMBERS;
use crate::ledger::verdict::{Facts, Missing, Verdict, judge};
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// An epoch that so many statuses in a row did not list, and that was not complete, is gone: its
/// gateway no longer has it.
pub(super) const UNLISTED_GONE: i32 = 3;
/// So many numbers are judged in one transaction.
const PIECE_NUMBERS: u64 = 256 * CHUNK_NUMBERS;

/// Numbers of an epoch that its gateway has given up and that are not judged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The gateway.
    pub gateway: String,
    /// The epoch.
    pub epoch: i64,
    /// All below are given up.
    pub end: u64,
}

/// Missing numbers that nobody knew of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The gateway.
    pub gateway: String,
    /// The epoch.
    pub epoch: i64,
    /// The numbers.
    pub missing: Missing,
}

/// One gateway in numbers, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The gateway.
    pub gateway: String,
    /// What became of all its numbers, as far as it is folded and judged.
    pub verdict: Verdict,
    /// When the bus appended its last status, µs since 1970.
    pub status_at: Option<i64>,
}

impl LedgerStore {
    /// What is to be judged.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn targets(&self) -> Result<Vec<Target>, StoreError> {
        in_time(async {
            // What a gateway has given up; of an epoch that is over or gone, all that it ever
            // said it had.
            let sql = "SELECT gateway, epoch, target FROM (SELECT gateway, epoch, judged, \
                         CASE WHEN is_complete OR unlisted >= $1 THEN next ELSE retired END \
                         AS target FROM ledger_epoch WHERE is_declared) AS e \
                       WHERE target > judged ORDER BY gateway, epoch";
            let rows = self.pool.get().await?.query(sql, &[&UNLISTED_GONE]).await?;
            let target = |row: &tokio_postgres::Row| Target {
                gateway: row.get(0),
                epoch: row.get(1),
                end: unsigned(row.get(2)),
            };
            Ok(rows.iter().map(target).collect())
        })
        .await
    }

    /// Judges up to a target, of which everything that was on the bus has been read; says what is
    /// missing and was not known to be.
    ///
    /// # Errors
    /// When Postgres is away, or a set can't be read.
    pub async fn judge(&self, target: &Target) -> anyhow::Result<Vec<Found>> {
        let mut found = Vec::new();
        while let Some(missing) = self.judge_piece(target).await? {
            let one =
                |missing| Found { gateway: target.gateway.clone(), epoch: target.epoch, missing };
            found.extend(missing.into_iter().map(one));
        }
        Ok(found)
    }

    /// `None` when nothing is left, or somebody else is at work.
    async fn judge_piece(&self, target: &Target) -> anyhow::Result<Option<Vec<Missing>>> {
        let Target { gateway, epoch, end } = target;
        let mut client = self.pool.get().await.map_err(StoreError::from)?;
        let transaction = client.transaction().await?;
        if !try_lock(&transaction).await? {
            return Ok(None);
        }
        let sql = "SELECT judged FROM ledger_epoch WHERE gateway = $1 AND epoch = $2 FOR UPDATE";
        let judged = unsigned(transaction.query_one(sql, &[gateway, epoch]).await?.get(0));
        let piece = judged..judged.saturating_add(PIECE_NUMBERS).min(*end);
        if piece.is_empty() {
            return Ok(None);
        }
        let missing = look(&transaction, gateway, *epoch, &piece).await?.1;
        for one in &missing {
            insert_missing(&transaction, gateway, *epoch, one, None).await?;
        }
        let sql = "UPDATE ledger_epoch SET judged = $3 WHERE gateway = $1 AND epoch = $2";
        transaction.execute(sql, &[gateway, epoch, &signed(piece.end)]).await?;
        transaction.commit().await?;
        Ok(Some(missing))
    }

    /// Looks again at up to `limit` missing ranges, longest unlooked-at first; says which are
    /// missing no longer, in whole or in part, with how many numbers were found.
    ///
    /// # Errors
    /// When Postgres is away, or a set can't be read.
    pub async fn recheck_missing(&self, limit: i64) -> anyhow::Result<Vec<Found>> {
        let mut client = self.pool.get().await.map_err(StoreError::from)?;
        let transaction = client.transaction().await?;
        if !try_lock(&transaction).await? {
            return Ok(Vec::new());
        }
        let sql = "UPDATE ledger_missing SET checked_at = now() WHERE missing_id IN \
                     (SELECT missing_id FROM ledger_missing WHERE resolved_at IS NULL \
                      ORDER BY checked_at, missing_id LIMIT $1) \
                   RETURNING missing_id, gateway, epoch, from_seq, to_seq, numbers";
        let mut resolved = Vec::new();
        for row in &transaction.query(sql, &[&limit]).await? {
            let (id, gateway, epoch): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
            let range = unsigned(row.get(3))..unsigned(row.get(4));
            let known = unsigned(row.get(5));
            let (_, left) = look(&transaction, &gateway, epoch, &range).await?;
            let numbers: u64 = left.iter().map(|one| one.numbers).sum();
            if numbers == known {
                continue;
            }
            for one in &left {
                insert_missing(&transaction, &gateway, epoch, one, Some(id)).await?;
            }
            let sql = "UPDATE ledger_missing SET resolved_at = now() WHERE missing_id = $1";
            transaction.execute(sql, &[&id]).await?;
            let missing = Missing { range, numbers: known.saturating_sub(numbers) };
            resolved.push(Found { gateway, epoch, missing });
        }
        transaction.commit().await?;
        Ok(resolved)
    }

    /// Counts again the numbers that are damaged and were not seen, for up to `limit` epochs.
    ///
    /// # Errors
    /// When Postgres is away, or a set can't be read.
    pub async fn recheck_damaged(&self, limit: i64) -> anyhow::Result<()> {
        let mut client = self.pool.get().await.map_err(StoreError::from)?;
        let transaction = client.transaction().await?;
        if !try_lock(&transaction).await? {
            return Ok(());
        }
        let sql = "SELECT gateway, epoch FROM ledger_epoch AS e WHERE EXISTS (SELECT FROM \
                     ledger_damaged AS d WHERE d.gateway = e.gateway AND d.epoch = e.epoch) \
                   ORDER BY damaged_checked_at NULLS FIRST LIMIT $1 FOR UPDATE";
        for row in &transaction.query(sql, &[&limit]).await? {
            let (gateway, epoch): (&str, i64) = (row.get(0), row.get(1));
            let mut damaged = 0;
            for range in load_damaged(&transaction, gateway, epoch).await? {
                damaged += look(&transaction, gateway, epoch, &range).await?.0.damaged;
            }
            let sql = "UPDATE ledger_epoch SET damaged = $3, damaged_checked_at = now() \
                       WHERE gateway = $1 AND epoch = $2";
            transaction.execute(sql, &[&gateway, &epoch, &signed(damaged)]).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Forgets how epochs stood so long ago, but for the last that is known of each.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn forget_history(&self, days: u32) -> Result<(), StoreError> {
        in_time(async {
            let sql = "DELETE FROM ledger_history AS h WHERE (gateway, epoch, minute) IN \
                         (SELECT gateway, epoch, minute FROM ledger_history \
                          WHERE until_at < (extract(epoch FROM now()) - $1::int8 * 86400)::int8 \
                            * 1000000 ORDER BY until_at LIMIT 10000) \
                       AND EXISTS (SELECT FROM ledger_history AS later WHERE \
                         later.gateway = h.gateway AND later.epoch = h.epoch \
                         AND later.minute > h.minute)";
            self.pool.get().await?.execute(sql, &[&i64::from(days)]).await?;
            Ok(())
        })
        .await
    }

    /// Every gateway in numbers.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn totals(&self) -> Result<Vec<Totals>, StoreError> {
        in_time(async {
            let sql = "SELECT gateway, e.received, e.stored, e.duplicates, e.dead, e.not_kept, \
                         e.damaged, coalesce(m.missing, 0)::int8, g.status_at \
                       FROM (SELECT gateway, sum(greatest(next, seen_next))::int8 AS received, \
                               sum(stored)::int8 AS stored, sum(duplicates)::int8 AS duplicates, \
                               sum(dead)::int8 AS dead, sum(not_kept)::int8 AS not_kept, \
                               sum(damaged)::int8 AS damaged FROM ledger_epoch GROUP BY gateway) e \
                       LEFT JOIN (SELECT gateway, sum(numbers)::int8 AS missing \
                               FROM ledger_missing WHERE resolved_at IS NULL GROUP BY gateway) m \
                         USING (gateway) \
                       LEFT JOIN ledger_gateway AS g USING (gateway) ORDER BY gateway";
            let rows = self.pool.get().await?.query(sql, &[]).await?;
            Ok(rows.iter().map(totals).collect())
        })
        .await
    }
}

fn totals(row: &tokio_postgres::Row) -> Totals {
    let count = |n: usize| unsigned(row.get(n));
    let mut verdict = Verdict {
        received: count(1) + count(5),
        stored: count(2),
        duplicates: count(3),
        dead_lettered: count(4),
        not_kept: count(5),
        damaged: count(6),
        missing: count(7),
        in_flight: 0,
    };
    let known = verdict.stored
        + verdict.duplicates
        + verdict.dead_lettered
        + verdict.not_kept
        + verdict.damaged
        + verdict.missing;
    verdict.in_flight = verdict.received.saturating_sub(known);
    Totals { gateway: row.get(0), verdict, status_at: row.get(8) }
}

/// What became of a range that is to be accounted for in whole.
async fn look(
    transaction: &Transaction<'_>,
    gateway: &str,
    epoch: i64,
    range: &Range<u64>,
) -> anyhow::Result<(Verdict, Vec<Missing>)> {
    let damaged = load_damaged(transaction, gateway, epoch).await?;
    let chunks = load_chunks(transaction, gateway, epoch, range).await?;
    let facts = Facts { judged: u64::MAX, damaged: &damaged, chunks: &chunks };
    let judged = judge(range.clone(), &facts);
    Ok((judged.verdict, judged.missing))
}

/// Notes a missing range; one that is left of another keeps the time of that.
async fn insert_missing(
    transaction: &Transaction<'_>,
    gateway: &str,
    epoch: i64,
    missing: &Missing,
    left_of: Option<i64>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO ledger_missing (gateway, epoch, from_seq, to_seq, numbers, noticed_at) \
               VALUES ($1, $2, $3, $4, $5, coalesce((SELECT noticed_at FROM ledger_missing \
                 WHERE missing_id = $6), now()))";
    let (from, to) = (signed(missing.range.start), signed(missing.range.end));
    let numbers = signed(missing.numbers);
    transaction.execute(sql, &[&gateway, &epoch, &from, &to, &numbers, &left_of]).await?;
    Ok(())
}
