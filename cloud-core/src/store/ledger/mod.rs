//! The ledger in the catalog. What publications saw is noted in their transactions
//! ([`note_seen`]); `fold.rs` brings it into chunks, `status.rs` stores what gateways say,
//! `judge.rs` finds what is missing, `read.rs` answers questions.

use std::collections::BTreeMap;
use std::ops::Range;

use deadpool_postgres::{Pool, Transaction};

use super::postgres::StoreError;
use crate::ledger::bits::{Bits, CHUNK_NUMBERS, ChunkSets, Counts, Kind, Seen, StoredChunk};
use crate::ledger::verdict::{Chunk, normalized};

mod fold;
mod judge;
mod read;
mod status;

pub use self::judge::{Found, Target, Totals};
pub use self::read::{EpochAnswer, GatewayAnswer, Question};
pub use self::status::{HeardStatus, StatusFlush};

/// One process at a time folds and judges: the others find nothing to do.
const WORK_LOCK: i64 = 0x6c65_6467_6572;

/// A handle on the ledger; clones share the pool.
#[derive(Clone)]
pub struct LedgerStore {
    pool: Pool,
}

impl LedgerStore {
    /// The ledger behind `pool`: the catalog's, as publications write to both.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }
}

/// Takes the lock until the transaction ends; `false` when somebody else has it.
async fn try_lock(transaction: &Transaction<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT pg_try_advisory_xact_lock($1)";
    Ok(transaction.query_one(sql, &[&WORK_LOCK]).await?.get(0))
}

/// Notes what a publication saw; in its own transaction, so that it counts exactly when the
/// positions pass the records.
///
/// # Errors
/// When Postgres is away.
pub async fn note_seen(transaction: &Transaction<'_>, seen: &[Seen]) -> Result<(), StoreError> {
    if seen.is_empty() {
        return Ok(());
    }
    let gateways: Vec<&str> = seen.iter().map(|one| one.gateway.as_str()).collect();
    let epochs: Vec<i64> = seen.iter().map(|one| one.epoch).collect();
    let chunks: Vec<i64> = seen.iter().map(|one| one.chunk).collect();
    let kinds: Vec<&str> = seen.iter().map(|one| one.kind.name()).collect();
    let bits: Vec<&[u8]> = seen.iter().map(|one| one.bits.as_slice()).collect();
    let sql = "INSERT INTO ledger_seen (gateway, epoch, chunk, kind, bits) \
               SELECT * FROM unnest($1::text[], $2::int8[], $3::int8[], $4::text[], $5::bytea[])";
    transaction.execute(sql, &[&gateways, &epochs, &chunks, &kinds, &bits]).await?;
    Ok(())
}

/// A count as Postgres keeps it.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A count from Postgres; none is negative.
fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// The columns of a chunk's row from `first` on: three counts, three sets.
fn stored_chunk(row: &tokio_postgres::Row, first: usize) -> StoredChunk {
    let count = |n: usize| u64::try_from(row.get::<_, i32>(first + n)).unwrap_or(0);
    StoredChunk {
        counts: Counts { stored: count(0), duplicates: count(1), dead: count(2) },
        raw: row.get(first + 3),
        dead: row.get(first + 4),
        duplicate: row.get(first + 5),
    }
}

/// What was seen of a range of an epoch, folded or not; one statement, so that nothing that is
/// being folded is met twice or not at all.
async fn load_chunks(
    transaction: &Transaction<'_>,
    gateway: &str,
    epoch: i64,
    range: &Range<u64>,
) -> anyhow::Result<BTreeMap<u64, Chunk>> {
    if range.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (first, last) = (range.start / CHUNK_NUMBERS, (range.end - 1) / CHUNK_NUMBERS);
    let of = "gateway = $1 AND epoch = $2 AND chunk BETWEEN $3 AND $4";
    let sql = format!(
        "SELECT chunk, NULL::text AS kind, stored, duplicates, dead, raw_bits, dead_bits, \
           duplicate_bits FROM ledger_chunk WHERE {of} \
         UNION ALL SELECT chunk, kind, 0, 0, 0, bits, NULL, NULL FROM ledger_seen WHERE {of} \
         ORDER BY chunk, kind NULLS FIRST"
    );
    let rows = transaction.query(&sql, &[&gateway, &epoch, &signed(first), &signed(last)]).await?;
    let mut chunks = BTreeMap::new();
    for row in &rows {
        let number = unsigned(row.get(0));
        let Some(kind) = row.get::<_, Option<&str>>(1) else {
            let stored = stored_chunk(row, 2);
            let inside =
                number * CHUNK_NUMBERS >= range.start && (number + 1) * CHUNK_NUMBERS <= range.end;
            let chunk = if inside && stored.counts.seen() == CHUNK_NUMBERS {
                Chunk::Full(stored.counts)
            } else {
                Chunk::Sets(ChunkSets::load(&stored)?)
            };
            chunks.insert(number, chunk);
            continue;
        };
        let Some(kind) = Kind::from_name(kind) else { continue };
        let bits = Bits::decode(row.get(5))?;
        let known = chunks.entry(number).or_insert_with(|| Chunk::Sets(ChunkSets::default()));
        if let Chunk::Full(_) = known {
            *known = Chunk::Sets(load_sets(transaction, gateway, epoch, number).await?);
        }
        if let Chunk::Sets(sets) = known {
            sets.add(kind, &bits);
        }
    }
    Ok(chunks)
}

/// The sets of one folded chunk.
async fn load_sets(
    transaction: &Transaction<'_>,
    gateway: &str,
    epoch: i64,
    chunk: u64,
) -> anyhow::Result<ChunkSets> {
    let sql = "SELECT stored, duplicates, dead, raw_bits, dead_bits, duplicate_bits \
               FROM ledger_chunk WHERE gateway = $1 AND epoch = $2 AND chunk = $3";
    let row = transaction.query_opt(sql, &[&gateway, &epoch, &signed(chunk)]).await?;
    Ok(match row {
        Some(row) => ChunkSets::load(&stored_chunk(&row, 0))?,
        None => ChunkSets::default(),
    })
}

/// What a gateway said can't be read any more, in order and without overlaps.
async fn load_damaged(
    transaction: &Transaction<'_>,
    gateway: &str,
    epoch: i64,
) -> Result<Vec<Range<u64>>, StoreError> {
    let sql = "SELECT from_seq, to_seq FROM ledger_damaged WHERE gateway = $1 AND epoch = $2";
    let rows = transaction.query(sql, &[&gateway, &epoch]).await?;
    let range = |row: &tokio_postgres::Row| unsigned(row.get(0))..unsigned(row.get(1));
    Ok(normalized(rows.iter().map(range).collect()))
}
