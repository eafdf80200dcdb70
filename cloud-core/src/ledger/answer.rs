//! The ledger's answer to people and programs: the identity, missing ranges by name, and what it
//! can't prove. Pure but for [`ask`].

use std::fmt::Write as _;

use penstock_common::event::{Epoch, UnixMicros};
use serde::Serialize;
use utoipa::ToSchema;

use super::verdict::Verdict;
use crate::store::ledger::{EpochAnswer, GatewayAnswer, LedgerStore, Question};

/// So many ranges are listed for a gateway.
const RANGES_MAX: usize = 1_000;
/// So many epochs that can't be vouched for are named.
const EPOCHS_NAMED_MAX: usize = 5;

/// What became of what was received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sums {
    /// Everything: the sum of all below.
    pub received: u64,
    /// In the raw store.
    pub stored: u64,
    /// Further copies of events that are stored.
    pub duplicates: u64,
    /// Dead letters.
    pub dead_lettered: u64,
    /// On their way.
    pub in_flight: u64,
    /// Rejected and only counted.
    pub not_kept: u64,
    /// Lost between the gateway and the stores.
    pub missing: u64,
    /// Lost on the gateway's disk.
    pub damaged: u64,
}

impl From<&Verdict> for Sums {
    fn from(v: &Verdict) -> Self {
        Self {
            received: v.received,
            stored: v.stored,
            duplicates: v.duplicates,
            dead_lettered: v.dead_lettered,
            in_flight: v.in_flight,
            not_kept: v.not_kept,
            missing: v.missing,
            damaged: v.damaged,
        }
    }
}

/// The numbers `from_seq` up to but not including `to_seq` of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct NumberRange {
    /// The epoch, 16 hexadecimal digits.
    pub epoch: String,
    /// The first number.
    pub from_seq: u64,
    /// The number after the last.
    pub to_seq: u64,
    /// How many of them are meant: all, where nothing else is said.
    pub numbers: u64,
    /// When the ledger first noticed that they are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub noticed_at: Option<String>,
}

/// One gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LedgerGateway)]
pub struct Gateway {
    /// Its name.
    pub gateway: String,
    /// What became of what it received.
    #[serde(flatten)]
    pub sums: Sums,
    /// When its last status reached the bus.
    pub status_at: Option<String>,
    /// How long ago that was.
    pub status_age_seconds: Option<i64>,
    /// Entries in its spool by then.
    pub spool_pending: u64,
    /// The moments of the statuses that the question's ends were taken from.
    pub counted_from: Option<String>,
    /// See `counted_from`; none: up to now.
    pub counted_to: Option<String>,
    /// What is missing.
    pub missing_ranges: Vec<NumberRange>,
    /// What its disk has lost; some of it may have been seen before.
    pub damaged_ranges: Vec<NumberRange>,
    /// What can't be proven about it, in words.
    pub unproven: Vec<String>,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LedgerAnswer)]
pub struct Answer {
    /// When it was given.
    pub at: String,
    /// From when on, as asked.
    pub from: Option<String>,
    /// Until when, as asked.
    pub to: Option<String>,
    /// All gateways together.
    pub total: Sums,
    /// Each gateway.
    pub gateways: Vec<Gateway>,
}

/// Asks the ledger. `now` dates the answer and ages the statuses.
///
/// # Errors
/// When the catalog is away.
pub async fn ask(
    store: &LedgerStore,
    question: &Question,
    now: UnixMicros,
    silent_after_ms: u64,
) -> anyhow::Result<Answer> {
    let answers = store.answer(question).await?;
    Ok(Answer::of(question, answers, now, silent_after_ms))
}

fn time(micros: i64) -> String {
    UnixMicros(micros).to_rfc3339()
}

impl Answer {
    /// Words and sums for what the catalog has.
    pub fn of(
        question: &Question,
        answers: Vec<GatewayAnswer>,
        now: UnixMicros,
        silent_after_ms: u64,
    ) -> Self {
        let mut total = Verdict::default();
        let gateways = answers
            .into_iter()
            .map(|answer| {
                let mut sum = Verdict::default();
                for epoch in &answer.epochs {
                    sum += &epoch.judged.verdict;
                }
                total += &sum;
                gateway(&answer, &sum, now, silent_after_ms)
            })
            .collect();
        Self {
            at: now.to_rfc3339(),
            from: question.from.map(time),
            to: question.to.map(time),
            total: Sums::from(&total),
            gateways,
        }
    }

    /// The answer as a table, for people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = write_text(&mut out, self);
        out
    }
}

fn gateway(
    answer: &GatewayAnswer,
    sum: &Verdict,
    now: UnixMicros,
    silent_after_ms: u64,
) -> Gateway {
    let age = answer.status_at.map(|at| now.0.saturating_sub(at).max(0) / 1_000_000);
    let mut missing = Vec::new();
    let mut damaged = Vec::new();
    for epoch in &answer.epochs {
        let name = Epoch(epoch.epoch.unsigned_abs()).to_string();
        for one in &epoch.judged.missing {
            let noticed = answer.noticed.iter().find(|(of, range, _)| {
                *of == epoch.epoch && range.start < one.range.end && one.range.start < range.end
            });
            missing.push(NumberRange {
                epoch: name.clone(),
                from_seq: one.range.start,
                to_seq: one.range.end,
                numbers: one.numbers,
                noticed_at: noticed.map(|(_, _, at)| time(*at)),
            });
        }
        for range in &epoch.damaged {
            damaged.push(NumberRange {
                epoch: name.clone(),
                from_seq: range.start,
                to_seq: range.end,
                numbers: range.end - range.start,
                noticed_at: None,
            });
        }
    }
    let mut unproven = unproven(answer, age, silent_after_ms);
    for (what, ranges) in [("missing", &mut missing), ("damaged", &mut damaged)] {
        if ranges.len() > RANGES_MAX {
            let more = ranges.len() - RANGES_MAX;
            unproven.push(format!("{more} more {what} ranges are counted but not listed"));
            ranges.truncate(RANGES_MAX);
        }
    }
    Gateway {
        gateway: answer.gateway.clone(),
        sums: Sums::from(sum),
        status_at: answer.status_at.map(time),
        status_age_seconds: age,
        spool_pending: answer.pending,
        counted_from: answer.between.0.map(time),
        counted_to: answer.between.1.map(time),
        missing_ranges: missing,
        damaged_ranges: damaged,
        unproven,
    }
}

fn unproven(answer: &GatewayAnswer, age: Option<i64>, silent_after_ms: u64) -> Vec<String> {
    let mut said = Vec::new();
    let silent_s = i64::try_from(silent_after_ms / 1_000).unwrap_or(i64::MAX);
    match (answer.status_at, age) {
        (Some(at), Some(age)) if age > silent_s => said
            .push(format!("silent since {}: what it received after that is not known", time(at))),
        (None, _) => {
            said.push("never sent a status: only what arrived of it is known".to_owned());
        }
        _ => {}
    }
    let named = |is: &dyn Fn(&EpochAnswer) -> bool| {
        let of: Vec<&EpochAnswer> = answer.epochs.iter().filter(|epoch| is(epoch)).collect();
        let names: Vec<String> = of
            .iter()
            .take(EPOCHS_NAMED_MAX)
            .map(|epoch| Epoch(epoch.epoch.unsigned_abs()).to_string())
            .collect();
        let more = of.len() - names.len();
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("{}{rest}", names.join(", ")))
    };
    if answer.status_at.is_some()
        && let Some(names) = named(&|epoch| !epoch.is_declared)
    {
        said.push(format!("epoch {names}: numbers arrived that no status ever declared"));
    }
    if let Some(names) = named(&|epoch| epoch.is_gone) {
        said.push(format!(
            "epoch {names}: its gateway no longer has it, and never said that it was complete; \
             what it received after the last status that listed it is not known"
        ));
    }
    if answer.damaged_more > 0 {
        let more = answer.damaged_more;
        said.push(format!("{more} more numbers are damaged than its statuses name"));
    }
    said
}

const COLUMNS: [&str; 8] = [
    "received",
    "stored",
    "duplicates",
    "dead-lettered",
    "in flight",
    "not kept",
    "missing",
    "damaged",
];

const fn cells(sums: &Sums) -> [u64; 8] {
    [
        sums.received,
        sums.stored,
        sums.duplicates,
        sums.dead_lettered,
        sums.in_flight,
        sums.not_kept,
        sums.missing,
        sums.damaged,
    ]
}

fn write_text(out: &mut String, answer: &Answer) -> std::fmt::Result {
    let named = |gateway: &Gateway| (gateway.gateway.clone(), cells(&gateway.sums));
    let mut rows: Vec<(String, [u64; 8])> = answer.gateways.iter().map(named).collect();
    rows.push(("total".to_owned(), cells(&answer.total)));
    let first = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(7);
    let width = |n: usize| {
        let widest = rows.iter().map(|(_, cells)| cells[n].to_string().len()).max();
        widest.unwrap_or(0).max(COLUMNS[n].len())
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    write!(out, "{:first$}", "gateway")?;
    for (name, width) in COLUMNS.iter().zip(widths) {
        write!(out, "  {name:>width$}")?;
    }
    writeln!(out)?;
    for (name, cells) in &rows {
        write!(out, "{name:first$}")?;
        for (cell, width) in cells.iter().zip(widths) {
            write!(out, "  {cell:>width$}")?;
        }
        writeln!(out)?;
    }
    for one in &answer.gateways {
        let Gateway { gateway, missing_ranges, damaged_ranges, unproven, .. } = one;
        for range in missing_ranges {
            let NumberRange { epoch, from_seq, to_seq, numbers, noticed_at } = range;
            let noticed = noticed_at.as_ref().map_or(String::new(), |at| format!(", noticed {at}"));
            writeln!(
                out,
                "MISSING: {gateway}/{epoch}/{from_seq}..{to_seq} ({numbers} numbers{noticed})"
            )?;
        }
        for NumberRange { epoch, from_seq, to_seq, .. } in damaged_ranges {
            writeln!(out, "damaged: {gateway}/{epoch}/{from_seq}..{to_seq}")?;
        }
        if let (Some(from), Some(to)) = (&one.counted_from, &one.counted_to) {
            writeln!(out, "counted: {gateway} between its statuses of {from} and {to}")?;
        }
        for text in unproven {
            writeln!(out, "not proven: {gateway}: {text}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
