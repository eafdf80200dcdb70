//! Positions of consumers: where each goes on, and who may move it.
//!
//! A table `consumer_position` stands in every database that holds effects (the catalog, the
//! rollups), because a position moves in the transaction of its effect. Every new owner raises
//! the row's generation first, which fences the one before: a transaction that finds another
//! generation, or another position than it goes on from, changes nothing.

use deadpool_postgres::{Pool, Transaction};
use tokio_postgres::types::ToSql;

use super::in_time;
use super::postgres::StoreError;
use super::publish::{Covered, PublishError};
use crate::bus::Watermarks;

/// The positions in one database; clones share the pool.
#[derive(Clone)]
pub struct Positions {
    pool: Pool,
}

/// What is known about a partition when its new owner decides where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionBasis {
    /// The partition.
    pub partition: i32,
    /// The position that was stored, if there was one.
    pub stored: Option<i64>,
    /// Where the effect needs reading to begin, if before the position.
    pub rewind: Option<i64>,
    /// The log's start on the bus.
    pub low: i64,
    /// The log's end on the bus.
    pub high: i64,
}

/// A partition as its owner holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What the decision was made from.
    pub basis: PositionBasis,
    /// The position: effects begin here.
    pub next_offset: i64,
    /// Reading begins here, at or before the position.
    pub read_from: i64,
    /// The owner's right to move the position.
    pub generation: i64,
}

/// A consumer's place on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is not stored yet.
    pub next_offset: i64,
}

impl Positions {
    /// The positions behind `pool`.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Makes the caller the owner of these partitions: raises their generations, so that nobody
    /// who owned them before can move them any more, and stores where `decide` says to go on.
    ///
    /// # Errors
    /// When Postgres is away; nothing has changed then, or the generations alone.
    pub async fn claim(
        &self,
        role: &str,
        topic: &str,
        bounds: &[Watermarks],
        decide: impl Fn(&PositionBasis) -> i64,
    ) -> Result<Vec<Claim>, StoreError> {
        in_time(async {
            let mut client = self.pool.get().await?;
            let transaction = client.transaction().await?;
            let mut bounds = bounds.to_vec();
            bounds.sort_unstable_by_key(|bound| bound.partition);
            let found = lock_or_create(&transaction, role, topic, &bounds).await?;
            let claims: Vec<Claim> =
                bounds.iter().zip(&found).map(|(bound, row)| claim(bound, row, &decide)).collect();
            let partitions: Vec<i32> = bounds.iter().map(|bound| bound.partition).collect();
            let offsets: Vec<i64> = claims.iter().map(|claim| claim.next_offset).collect();
            let generations: Vec<i64> = claims.iter().map(|claim| claim.generation).collect();
            let sql = "UPDATE consumer_position AS p \
                       SET next_offset = new.o, generation = new.g, updated_at = now(), \
                           rewind_offset = least(p.rewind_offset, new.o) \
                       FROM unnest($3::int4[], $4::int8[], $5::int8[]) AS new (n, o, g) \
                       WHERE p.role = $1 AND p.topic = $2 AND p.\"partition\" = new.n";
            let values: [&(dyn ToSql + Sync); 5] =
                [&role, &topic, &partitions, &offsets, &generations];
            transaction.execute(sql, &values).await?;
            transaction.commit().await?;
            Ok(claims)
        })
        .await
    }

    /// The positions of a role, in order.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn of_role(&self, role: &str) -> Result<Vec<Position>, StoreError> {
        in_time(async {
            let sql = "SELECT topic, \"partition\", next_offset FROM consumer_position \
                       WHERE role = $1 ORDER BY topic, \"partition\"";
            let rows = self.pool.get().await?.query(sql, &[&role]).await?;
            let position = |row: &tokio_postgres::Row| Position {
                topic: row.get(0),
                partition: row.get(1),
                next_offset: row.get(2),
            };
            Ok(rows.iter().map(position).collect())
        })
        .await
    }
}

/// A row of `consumer_position`.
struct Found {
    next_offset: i64,
    rewind: Option<i64>,
    generation: i64,
}

/// Locks the rows in the order of partitions, as everybody does: a publication under way ends
/// first. Rows that were not there begin at the log's start with generation 0.
async fn lock_or_create(
    transaction: &Transaction<'_>,
    role: &str,
    topic: &str,
    bounds: &[Watermarks],
) -> Result<Vec<Found>, StoreError> {
    let partitions: Vec<i32> = bounds.iter().map(|bound| bound.partition).collect();
    let lows: Vec<i64> = bounds.iter().map(|bound| bound.low).collect();
    let sql = "INSERT INTO consumer_position (role, topic, \"partition\", next_offset, generation) \
               SELECT $1, $2, p, o, 0 FROM unnest($3::int4[], $4::int8[]) AS new (p, o) \
               ORDER BY p ON CONFLICT DO NOTHING";
    transaction.execute(sql, &[&role, &topic, &partitions, &lows]).await?;
    let sql = "SELECT next_offset, rewind_offset, generation FROM consumer_position \
               WHERE role = $1 AND topic = $2 AND \"partition\" = ANY($3) \
               ORDER BY \"partition\" FOR UPDATE";
    let rows = transaction.query(sql, &[&role, &topic, &partitions]).await?;
    let found = |row: &tokio_postgres::Row| Found {
        next_offset: row.get(0),
        rewind: row.get(1),
        generation: row.get(2),
    };
    Ok(rows.iter().map(found).collect())
}

fn claim(bound: &Watermarks, row: &Found, decide: &impl Fn(&PositionBasis) -> i64) -> Claim {
    let basis = PositionBasis {
        partition: bound.partition,
        // Generation 0: nobody has owned it yet.
        stored: (row.generation > 0).then_some(row.next_offset),
        rewind: row.rewind,
        low: bound.low,
        high: bound.high,
    };
    let next_offset = decide(&basis);
    let rewind = row.rewind.filter(|_| row.next_offset == next_offset);
    Claim {
        basis,
        next_offset,
        read_from: rewind.map_or(next_offset, |rewind| rewind.clamp(bound.low, next_offset)),
        generation: row.generation + 1,
    }
}

/// Whether the positions stand where an effect begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// All at `from`, generations ours.
    Ours,
    /// All at `to`, generations ours: an earlier try has got through, unless nothing is covered.
    AlreadyMoved,
}

/// Locks and checks the positions that an effect moves.
///
/// # Errors
/// [`PublishError::Fenced`] when a position is not ours.
pub(super) async fn check(
    transaction: &Transaction<'_>,
    role: &str,
    topic: &str,
    covered: &[Covered],
) -> Result<Standing, PublishError> {
    let partitions: Vec<i32> = covered.iter().map(|c| c.partition).collect();
    let rows = transaction
        .query(
            "SELECT \"partition\", next_offset, generation FROM consumer_position \
             WHERE role = $1 AND topic = $2 AND \"partition\" = ANY($3) \
             ORDER BY \"partition\" FOR UPDATE",
            &[&role, &topic, &partitions],
        )
        .await?;
    let found = |partition: i32| {
        let row = rows.iter().find(|row| row.get::<_, i32>(0) == partition);
        row.map(|row| (row.get::<_, i64>(1), row.get::<_, i64>(2)))
    };
    let at = |c: &Covered, offset: i64| found(c.partition) == Some((offset, c.generation));
    let Some(foreign) = covered.iter().find(|c| !at(c, c.from)) else { return Ok(Standing::Ours) };
    if covered.iter().all(|c| at(c, c.to)) {
        return Ok(Standing::AlreadyMoved);
    }
    Err(PublishError::Fenced {
        partition: foreign.partition,
        from: foreign.from,
        generation: foreign.generation,
        found: found(foreign.partition).map_or("nothing".into(), |(offset, generation)| {
            format!("offset {offset} of generation {generation}")
        }),
    })
}

/// Moves positions that were checked; `rewinds` by partition where reading must begin earlier.
pub(super) async fn advance(
    transaction: &Transaction<'_>,
    role: &str,
    topic: &str,
    covered: &[Covered],
    rewinds: &[(i32, i64)],
) -> Result<(), StoreError> {
    let partitions: Vec<i32> = covered.iter().map(|c| c.partition).collect();
    let to: Vec<i64> = covered.iter().map(|c| c.to).collect();
    let rewind = |c: &Covered| rewinds.iter().find(|(p, _)| *p == c.partition).map(|(_, at)| *at);
    let rewinds: Vec<Option<i64>> = covered.iter().map(rewind).collect();
    transaction
        .execute(
            "UPDATE consumer_position AS p \
             SET next_offset = new.o, rewind_offset = new.r, updated_at = now() \
             FROM unnest($3::int4[], $4::int8[], $5::int8[]) AS new (n, o, r) \
             WHERE p.role = $1 AND p.topic = $2 AND p.\"partition\" = new.n",
            &[&role, &topic, &partitions, &to, &rewinds],
        )
        .await?;
    Ok(())
}
