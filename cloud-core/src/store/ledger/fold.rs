//! Folding: what publications saw becomes part of the chunks' rows, in bounded batches.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;

use super::{LedgerStore, signed, stored_chunk, try_lock, unsigned};
use crate::ledger::bits::{Bits, CHUNK_NUMBERS, ChunkSets, Counts, Kind};
use crate::store::postgres::StoreError;

/// Gateway, epoch, chunk.
type Key = (String, i64, i64);

/// What changed of an epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    stored: i64,
    duplicates: i64,
    dead: i64,
    seen_next: i64,
}

impl LedgerStore {
    /// Folds up to `limit` notes; says how many. 0 also when somebody else is at work.
    ///
    /// # Errors
    /// When Postgres is away, or a set can't be read.
    pub async fn fold(&self, limit: i64) -> anyhow::Result<usize> {
        let mut client = self.pool.get().await.map_err(StoreError::from)?;
        let transaction = client.transaction().await?;
        if !try_lock(&transaction).await? {
            return Ok(0);
        }
        let sql = "DELETE FROM ledger_seen WHERE seen_id IN \
                     (SELECT seen_id FROM ledger_seen ORDER BY seen_id LIMIT $1) \
                   RETURNING gateway, epoch, chunk, kind, bits";
        let taken = transaction.query(sql, &[&limit]).await?;
        if taken.is_empty() {
            return Ok(0);
        }
        let keys: Vec<Key> = taken.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let mut chunks = load(&transaction, &keys).await?;
        let before: BTreeMap<Key, Counts> =
            chunks.iter().map(|(key, sets)| (key.clone(), sets.counts())).collect();
        for (row, key) in taken.iter().zip(keys) {
            let Some(kind) = Kind::from_name(row.get(3)) else { continue };
            chunks.entry(key).or_default().add(kind, &Bits::decode(row.get(4))?);
        }
        store(&transaction, &chunks).await?;
        add_to_epochs(&transaction, &chunks, &before).await?;
        transaction.commit().await?;
        Ok(taken.len())
    }
}

async fn load(
    transaction: &Transaction<'_>,
    keys: &[Key],
) -> anyhow::Result<BTreeMap<Key, ChunkSets>> {
    let gateways: Vec<&str> = keys.iter().map(|key| key.0.as_str()).collect();
    let epochs: Vec<i64> = keys.iter().map(|key| key.1).collect();
    let chunks: Vec<i64> = keys.iter().map(|key| key.2).collect();
    let sql = "SELECT gateway, epoch, chunk, stored, duplicates, dead, raw_bits, dead_bits, \
                 duplicate_bits FROM ledger_chunk WHERE (gateway, epoch, chunk) IN \
                 (SELECT * FROM unnest($1::text[], $2::int8[], $3::int8[]))";
    let rows = transaction.query(sql, &[&gateways, &epochs, &chunks]).await?;
    let mut loaded = BTreeMap::new();
    for row in &rows {
        let key = (row.get(0), row.get(1), row.get(2));
        loaded.insert(key, ChunkSets::load(&stored_chunk(row, 3))?);
    }
    Ok(loaded)
}

async fn store(
    transaction: &Transaction<'_>,
    chunks: &BTreeMap<Key, ChunkSets>,
) -> Result<(), StoreError> {
    let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
    let sql = "INSERT INTO ledger_chunk (gateway, epoch, chunk, stored, duplicates, dead, \
                 raw_bits, dead_bits, duplicate_bits) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
               ON CONFLICT (gateway, epoch, chunk) DO UPDATE SET stored = excluded.stored, \
                 duplicates = excluded.duplicates, dead = excluded.dead, \
                 raw_bits = excluded.raw_bits, dead_bits = excluded.dead_bits, \
                 duplicate_bits = excluded.duplicate_bits";
    let statement = transaction.prepare_cached(sql).await?;
    for ((gateway, epoch, chunk), sets) in chunks {
        let row = sets.store();
        let Counts { stored, duplicates, dead } = row.counts;
        let (stored, duplicates, dead) = (count(stored), count(duplicates), count(dead));
        transaction
            .execute(
                &statement,
                &[
                    gateway,
                    epoch,
                    chunk,
                    &stored,
                    &duplicates,
                    &dead,
                    &row.raw,
                    &row.dead,
                    &row.duplicate,
                ],
            )
            .await?;
    }
    Ok(())
}

/// Brings the sums of the epochs in line.
async fn add_to_epochs(
    transaction: &Transaction<'_>,
    chunks: &BTreeMap<Key, ChunkSets>,
    before: &BTreeMap<Key, Counts>,
) -> Result<(), StoreError> {
    let mut changes: BTreeMap<(&str, i64), Change> = BTreeMap::new();
    for (key, sets) in chunks {
        let (now, before) = (sets.counts(), before.get(key).copied().unwrap_or_default());
        let change = changes.entry((&key.0, key.1)).or_default();
        change.stored += signed(now.stored) - signed(before.stored);
        change.duplicates += signed(now.duplicates) - signed(before.duplicates);
        change.dead += signed(now.dead) - signed(before.dead);
        if let Some(max) = sets.max_seen() {
            let next = unsigned(key.2).saturating_mul(CHUNK_NUMBERS) + u64::from(max) + 1;
            change.seen_next = change.seen_next.max(signed(next));
        }
    }
    let sql = "INSERT INTO ledger_epoch AS e (gateway, epoch, stored, duplicates, dead, seen_next) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (gateway, epoch) DO UPDATE SET \
                 stored = e.stored + excluded.stored, \
                 duplicates = e.duplicates + excluded.duplicates, \
                 dead = e.dead + excluded.dead, \
                 seen_next = greatest(e.seen_next, excluded.seen_next)";
    let statement = transaction.prepare_cached(sql).await?;
    for ((gateway, epoch), change) in changes {
        let Change { stored, duplicates, dead, seen_next } = change;
        transaction
            .execute(&statement, &[&gateway, &epoch, &stored, &duplicates, &dead, &seen_next])
            .await?;
    }
    Ok(())
}
