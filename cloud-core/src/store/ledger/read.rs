//! Answers: what became of what a gateway received, ever or between two moments.

use std::collections::BTreeMap;
use std::ops::Range;

use deadpool_postgres::Transaction;

use super::judge::UNLISTED_GONE;
use super::{LedgerStore, load_chunks, load_damaged, unsigned};
use crate::ledger::verdict::{Facts, Judged, Verdict, judge};
use crate::store::postgres::StoreError;

/// What is asked. Times are µs since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Only this gateway.
    pub gateway: Option<String>,
    /// What was received from then on; from the beginning where there is none.
    pub from: Option<i64>,
    /// What was received before then; until now where there is none.
    pub to: Option<i64>,
}

/// What is known of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochAnswer {
    /// The epoch.
    pub epoch: i64,
    /// The numbers in question.
    pub range: Range<u64>,
    /// What became of them.
    pub judged: Judged,
    /// What can't be read any more, whether it was seen or not.
    pub damaged: Vec<Range<u64>>,
    /// Whether its gateway ever said that it has it.
    pub is_declared: bool,
    /// Whether its gateway no longer has it, and never said that it is complete.
    pub is_gone: bool,
}

/// What is known of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayAnswer {
    /// Its name.
    pub gateway: String,
    /// When the bus appended its last status, µs.
    pub status_at: Option<i64>,
    /// Damaged numbers that its statuses counted and did not list.
    pub damaged_more: u64,
    /// Entries that wait in its spool, by its last status.
    pub pending: u64,
    /// The statuses between which the numbers in question were given, µs: the last one before, and
    /// the first one after.
    pub between: (Option<i64>, Option<i64>),
    /// Its epochs that have numbers in question.
    pub epochs: Vec<EpochAnswer>,
    /// When each of the missing numbers that are known was first noticed to be: epoch, range, µs.
    pub noticed: Vec<(i64, Range<u64>, i64)>,
}

/// A row of `ledger_epoch`.
struct EpochRow {
    gateway: String,
    epoch: i64,
    end: u64,
    judged: u64,
    not_kept: u64,
    sums: Verdict,
    is_declared: bool,
    is_complete: bool,
    is_gone: bool,
}

/// How an epoch stood at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    next: u64,
    not_kept: u64,
    at: i64,
}

type Marks = BTreeMap<(String, i64), Mark>;

impl LedgerStore {
    /// Answers a question as of one moment.
    ///
    /// # Errors
    /// When Postgres is away, or a set can't be read.
    pub async fn answer(&self, question: &Question) -> anyhow::Result<Vec<GatewayAnswer>> {
        let mut client = self.pool.get().await.map_err(StoreError::from)?;
        let transaction = client
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let of = question.gateway.as_deref();
        let mut answers = gateways(&transaction, of).await?;
        let begin = match question.from {
            Some(from) => marks(&transaction, of, Bound::From(from)).await?,
            None => Marks::new(),
        };
        let end = match question.to {
            Some(to) => Some(marks(&transaction, of, Bound::To(to)).await?),
            None => None,
        };
        for row in epochs(&transaction, of).await? {
            let key = (row.gateway.clone(), row.epoch);
            let from = begin.get(&key).copied().unwrap_or_default();
            let to = end.as_ref().and_then(|marks| marks.get(&key).copied());
            let answer = answers.entry(row.gateway.clone()).or_default();
            if from.at > 0 {
                answer.between.0 = answer.between.0.max(Some(from.at));
            }
            answer.between.1 = answer.between.1.max(to.map(|to| to.at));
            let range = from.next..to.map_or(row.end, |to| to.next).max(from.next);
            let not_kept = to.map_or(row.not_kept, |to| to.not_kept).saturating_sub(from.not_kept);
            if range.is_empty() && not_kept == 0 {
                continue;
            }
            answer.epochs.push(look(&transaction, &row, range, not_kept).await?);
        }
        for (gateway, epoch, range, at) in noticed(&transaction, of).await? {
            answers.entry(gateway).or_default().noticed.push((epoch, range, at));
        }
        let named =
            answers.into_iter().map(|(gateway, answer)| GatewayAnswer { gateway, ..answer });
        Ok(named.collect())
    }
}

async fn gateways(
    transaction: &Transaction<'_>,
    of: Option<&str>,
) -> Result<BTreeMap<String, GatewayAnswer>, StoreError> {
    let sql = "SELECT gateway, status_at, damaged_more, pending FROM ledger_gateway \
               WHERE $1::text IS NULL OR gateway = $1";
    let rows = transaction.query(sql, &[&of]).await?;
    let answer = |row: &tokio_postgres::Row| {
        let answer = GatewayAnswer {
            status_at: Some(row.get(1)),
            damaged_more: unsigned(row.get(2)),
            pending: unsigned(row.get(3)),
            ..GatewayAnswer::default()
        };
        (row.get(0), answer)
    };
    Ok(rows.iter().map(answer).collect())
}

async fn epochs(
    transaction: &Transaction<'_>,
    of: Option<&str>,
) -> Result<Vec<EpochRow>, StoreError> {
    // What is not folded yet counts too.
    let sql = "SELECT e.gateway, e.epoch, e.next, e.seen_next, e.judged, e.not_kept, e.stored, \
                 e.duplicates, e.dead, e.is_declared, e.is_complete, \
                 NOT e.is_complete AND e.unlisted >= $2, s.chunk IS NOT NULL \
               FROM ledger_epoch AS e LEFT JOIN \
                 (SELECT gateway, epoch, max(chunk) AS chunk FROM ledger_seen \
                  GROUP BY gateway, epoch) AS s USING (gateway, epoch) \
               WHERE $1::text IS NULL OR e.gateway = $1 \
               ORDER BY e.gateway, e.epoch";
    let rows = transaction.query(sql, &[&of, &UNLISTED_GONE]).await?;
    let epoch = |row: &tokio_postgres::Row| {
        let count = |n: usize| unsigned(row.get(n));
        let has_more: bool = row.get(12);
        EpochRow {
            gateway: row.get(0),
            epoch: row.get(1),
            end: count(2).max(count(3)),
            judged: count(4),
            not_kept: count(5),
            sums: Verdict {
                stored: count(6),
                duplicates: count(7),
                dead_lettered: count(8),
                ..Verdict::default()
            },
            is_declared: row.get(9),
            // Its sums are then all that there is.
            is_complete: row.get::<_, bool>(10) && !has_more,
            is_gone: row.get(11),
        }
    };
    Ok(rows.iter().map(epoch).collect())
}

async fn look(
    transaction: &Transaction<'_>,
    row: &EpochRow,
    range: Range<u64>,
    not_kept: u64,
) -> anyhow::Result<EpochAnswer> {
    let EpochRow { gateway, epoch, end, sums, .. } = row;
    let seen = sums.stored + sums.duplicates + sums.dead_lettered;
    let (mut judged, mut damaged) = (Judged::default(), Vec::new());
    if range == (0..*end) && row.is_complete && row.judged == *end && seen == *end {
        // Everything of it is accounted for: no need to look at each chunk.
        judged.verdict = Verdict { received: *end, ..sums.clone() };
    } else {
        damaged = load_damaged(transaction, gateway, *epoch).await?;
        let chunks = load_chunks(transaction, gateway, *epoch, &range).await?;
        let facts = Facts { judged: row.judged, damaged: &damaged, chunks: &chunks };
        judged = judge(range.clone(), &facts);
        damaged.retain(|one| one.start < range.end && range.start < one.end);
    }
    judged.verdict.not_kept = not_kept;
    judged.verdict.received += not_kept;
    let (is_declared, is_gone) = (row.is_declared, row.is_gone);
    Ok(EpochAnswer { epoch: *epoch, range, judged, damaged, is_declared, is_gone })
}

#[derive(Clone, Copy)]
enum Bound {
    From(i64),
    To(i64),
}

/// How epochs stood at a moment: for the beginning of a question as last heard before, for its
/// end as first heard after, so that what was received in between is inside.
async fn marks(
    transaction: &Transaction<'_>,
    of: Option<&str>,
    bound: Bound,
) -> Result<Marks, StoreError> {
    let (at, is_in, order) = match bound {
        Bound::From(at) => (at, "from_at <= $2", "DESC"),
        Bound::To(at) => (at, "until_at >= $2", "ASC"),
    };
    let sql = format!(
        "SELECT DISTINCT ON (gateway, epoch) gateway, epoch, next, not_kept, from_at, until_at \
         FROM ledger_history WHERE ($1::text IS NULL OR gateway = $1) AND {is_in} \
         ORDER BY gateway, epoch, minute {order}"
    );
    let rows = transaction.query(&sql, &[&of, &at]).await?;
    let mark = |row: &tokio_postgres::Row| {
        let heard: (i64, i64) = (row.get(4), row.get(5));
        let next = (unsigned(row.get(2)), unsigned(row.get(3)));
        let mark = Mark { next: next.0, not_kept: next.1, at: at.clamp(heard.0, heard.1) };
        ((row.get(0), row.get(1)), mark)
    };
    Ok(rows.iter().map(mark).collect())
}

async fn noticed(
    transaction: &Transaction<'_>,
    of: Option<&str>,
) -> Result<Vec<(String, i64, Range<u64>, i64)>, StoreError> {
    let sql = "SELECT gateway, epoch, from_seq, to_seq, \
                 (extract(epoch FROM noticed_at) * 1000000)::int8 \
               FROM ledger_missing WHERE resolved_at IS NULL \
                 AND ($1::text IS NULL OR gateway = $1) \
               ORDER BY gateway, epoch, from_seq LIMIT 10000";
    let rows = transaction.query(sql, &[&of]).await?;
    let one = |row: &tokio_postgres::Row| {
        let range = unsigned(row.get(2))..unsigned(row.get(3));
        (row.get(0), row.get(1), range, row.get(4))
    };
    Ok(rows.iter().map(one).collect())
}
