//! What gateways say, in one transaction with the position on `gateway-status`.

use deadpool_postgres::Transaction;
use penstock_common::event::UnixMicros;
use penstock_common::status::GatewayStatus;

use super::{LedgerStore, signed};
use crate::store::in_time;
use crate::store::positions::{self, Standing};
use crate::store::postgres::StoreError;
use crate::store::publish::{Covered, PublishError};

const MINUTE_MICROS: i64 = 60 * 1_000_000;

/// A status and when the bus appended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardStatus {
    /// The append time.
    pub at: UnixMicros,
    /// What it says.
    pub status: GatewayStatus,
}

/// Statuses to be stored, and the positions that pass them.
#[derive(Clone, Debug, Default)]
pub struct StatusFlush {
    /// The consumer's role.
    pub role: String,
    /// The topic's full name.
    pub topic: String,
    /// In the order of the bus, by gateway.
    pub statuses: Vec<HeardStatus>,
    /// The partitions, in order.
    pub covered: Vec<Covered>,
}

impl LedgerStore {
    /// Stores statuses and moves the positions; again after an unknown outcome it changes nothing.
    ///
    /// # Errors
    /// When a position is not ours, or Postgres is away.
    pub async fn flush_statuses(&self, flush: &StatusFlush) -> Result<(), PublishError> {
        in_time(async {
            let mut client = self.pool.get().await.map_err(StoreError::from)?;
            let transaction = client.transaction().await?;
            let StatusFlush { role, topic, statuses, covered } = flush;
            if positions::check(&transaction, role, topic, covered).await? == Standing::AlreadyMoved
            {
                return Ok(());
            }
            positions::advance(&transaction, role, topic, covered, &[]).await?;
            let mut order: Vec<&HeardStatus> = statuses.iter().collect();
            // Everybody locks rows in one order; of one gateway they stay in theirs.
            order.sort_by(|a, b| a.status.gateway.cmp(&b.status.gateway));
            for heard in order {
                store(&transaction, heard).await?;
            }
            transaction.commit().await?;
            Ok(())
        })
        .await
    }
}

async fn store(transaction: &Transaction<'_>, heard: &HeardStatus) -> Result<(), StoreError> {
    store_gateway(transaction, heard).await?;
    store_epochs(transaction, heard).await?;
    store_history(transaction, heard).await
}

async fn store_gateway(t: &Transaction<'_>, heard: &HeardStatus) -> Result<(), StoreError> {
    let HeardStatus { at, status } = heard;
    let spool = &status.spool;
    let rejected = serde_json::to_string(&status.rejected_not_kept).unwrap_or_default();
    let sql = "INSERT INTO ledger_gateway AS g (gateway, status_at, sent_at, epoch, spool_bytes, \
                 spool_bytes_max, pending, oldest_received_at, damaged_more, rejected_not_kept) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
               ON CONFLICT (gateway) DO UPDATE SET status_at = excluded.status_at, \
                 sent_at = excluded.sent_at, epoch = excluded.epoch, \
                 spool_bytes = excluded.spool_bytes, spool_bytes_max = excluded.spool_bytes_max, \
                 pending = excluded.pending, oldest_received_at = excluded.oldest_received_at, \
                 damaged_more = excluded.damaged_more, \
                 rejected_not_kept = excluded.rejected_not_kept \
               WHERE g.status_at <= excluded.status_at";
    let statement = t.prepare_cached(sql).await?;
    t.execute(
        &statement,
        &[
            &status.gateway,
            &at.0,
            &status.sent_at.0,
            &signed(status.epoch.0),
            &signed(spool.bytes),
            &signed(spool.bytes_max),
            &signed(spool.pending),
            &spool.oldest_received_at.map(|time| time.0),
            &signed(status.damaged_more),
            &rejected,
        ],
    )
    .await?;
    Ok(())
}

async fn store_epochs(t: &Transaction<'_>, heard: &HeardStatus) -> Result<(), StoreError> {
    let status = &heard.status;
    let mut listed = status.epochs.clone();
    listed.sort_unstable_by_key(|epoch| (epoch.epoch, epoch.next));
    listed.dedup_by_key(|epoch| epoch.epoch);
    let epochs: Vec<i64> = listed.iter().map(|epoch| signed(epoch.epoch.0)).collect();
    let next: Vec<i64> = listed.iter().map(|epoch| signed(epoch.next)).collect();
    let retired: Vec<i64> = listed.iter().map(|epoch| signed(epoch.retired)).collect();
    let not_kept: Vec<i64> = listed.iter().map(|epoch| signed(epoch.not_kept)).collect();
    let complete: Vec<bool> = listed
        .iter()
        .map(|epoch| epoch.epoch != status.epoch && epoch.retired == epoch.next)
        .collect();
    let sql = "INSERT INTO ledger_epoch AS e (gateway, epoch, next, retired, not_kept, \
                 is_complete, is_declared) \
               SELECT $1::text, *, true FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], \
                 $6::bool[]) \
               ON CONFLICT (gateway, epoch) DO UPDATE SET is_declared = true, unlisted = 0, \
                 next = greatest(e.next, excluded.next), \
                 retired = greatest(e.retired, excluded.retired), \
                 not_kept = greatest(e.not_kept, excluded.not_kept), \
                 is_complete = excluded.is_complete";
    let statement = t.prepare_cached(sql).await?;
    t.execute(&statement, &[&status.gateway, &epochs, &next, &retired, &not_kept, &complete])
        .await?;
    if status.epochs_more == 0 {
        let sql = "UPDATE ledger_epoch SET unlisted = unlisted + 1 WHERE gateway = $1 \
                   AND is_declared AND NOT is_complete AND unlisted < 100 AND epoch <> ALL($2)";
        let statement = t.prepare_cached(sql).await?;
        t.execute(&statement, &[&status.gateway, &epochs]).await?;
    }
    let epochs: Vec<i64> = status.damaged.iter().map(|range| signed(range.epoch.0)).collect();
    let from: Vec<i64> = status.damaged.iter().map(|range| signed(range.from)).collect();
    let to: Vec<i64> = status.damaged.iter().map(|range| signed(range.to)).collect();
    let sql = "INSERT INTO ledger_damaged (gateway, epoch, from_seq, to_seq) \
               SELECT $1::text, * FROM unnest($2::int8[], $3::int8[], $4::int8[]) \
               ON CONFLICT DO NOTHING";
    if !epochs.is_empty() {
        let statement = t.prepare_cached(sql).await?;
        t.execute(&statement, &[&status.gateway, &epochs, &from, &to]).await?;
    }
    Ok(())
}

/// What did not change goes on; what changed within a minute replaces what stood there.
async fn store_history(t: &Transaction<'_>, heard: &HeardStatus) -> Result<(), StoreError> {
    let (at, minute) = (heard.at.0, heard.at.0.div_euclid(MINUTE_MICROS));
    let same = "UPDATE ledger_history AS h SET until_at = greatest(until_at, $5) \
                WHERE gateway = $1 AND epoch = $2 AND next = $3 AND not_kept = $4 \
                AND minute = (SELECT max(minute) FROM ledger_history \
                              WHERE gateway = $1 AND epoch = $2)";
    let changed = "INSERT INTO ledger_history (gateway, epoch, next, not_kept, minute, from_at, \
                     until_at) VALUES ($1, $2, $3, $4, $5, $6, $6) \
                   ON CONFLICT (gateway, epoch, minute) DO UPDATE SET next = excluded.next, \
                     not_kept = excluded.not_kept, from_at = excluded.from_at, \
                     until_at = excluded.until_at";
    let (same, changed) = (t.prepare_cached(same).await?, t.prepare_cached(changed).await?);
    let gateway = &heard.status.gateway;
    for epoch in &heard.status.epochs {
        let (number, next) = (signed(epoch.epoch.0), signed(epoch.next));
        let not_kept = signed(epoch.not_kept);
        if t.execute(&same, &[gateway, &number, &next, &not_kept, &at]).await? == 0 {
            t.execute(&changed, &[gateway, &number, &next, &not_kept, &minute, &at]).await?;
        }
    }
    Ok(())
}
