//! Rollups as series (spec S2): which width, which points, what is a gap. Pure.
//!
//! A bucket without values is no point, and nothing is put in its place: as far as it is past it
//! is part of a gap. A point says whether it may still grow, and whether it was corrected after
//! its time.

pub mod catalogue;

use crate::rollup::window::{MINUTE, floor};
use crate::store::rollup::Table;
use crate::store::rollup::serve::SeriesRow;

/// `auto` has at most so many points.
pub const AUTO_POINTS_MAX: i64 = 1_500;
/// `auto` for groups reads at most so many finer rows.
const AUTO_ROWS_MAX: i64 = 60_000;
/// A question spans at most so many buckets.
const BUCKETS_MAX: i64 = 100_000;
/// A question about a group reads at most so many finer rows.
const ROWS_MAX: i64 = 500_000;
/// After its end a bucket grows for so long, by events that are no more than normally late; µs.
const SETTLE: i64 = 15 * MINUTE;

/// The widths, finest first.
const TABLES: [Table; 3] = [Table::Minute, Table::Hour, Table::Day];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The finest that is not too much.
    Auto,
    /// This width.
    Of(Table),
}

impl Resolution {
    /// Reads it.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "auto" {
            return Some(Self::Auto);
        }
        TABLES.into_iter().find(|table| label(*table) == name).map(Self::Of)
    }
}

/// The width's name.
pub const fn label(table: Table) -> &'static str {
    match table {
        Table::Minute => "1m",
        Table::Hour => "1h",
        Table::Day => "1d",
    }
}

/// Chooses the width for a range (µs) and so many devices to be merged (1 where nothing is).
///
/// # Errors
/// With what to ask for instead, when it would be too much.
pub fn choose(
    resolution: Resolution,
    (from, to): (i64, i64),
    devices: usize,
) -> Result<Table, String> {
    let devices = i64::try_from(devices).unwrap_or(i64::MAX).max(1);
    let buckets = |table: Table| to.saturating_sub(from) / table.width() + 1;
    let rows = |table| buckets(table).saturating_mul(devices);
    let fits = |table: &Table| buckets(*table) <= BUCKETS_MAX && rows(*table) <= ROWS_MAX;
    match resolution {
        Resolution::Auto => {
            let is_little = |table: &Table| {
                buckets(*table) <= AUTO_POINTS_MAX
                    && (devices == 1 || rows(*table) <= AUTO_ROWS_MAX)
            };
            let chosen = TABLES.into_iter().find(is_little).unwrap_or(Table::Day);
            if fits(&chosen) { Ok(chosen) } else { Err(too_much(None)) }
        }
        Resolution::Of(table) if fits(&table) => Ok(table),
        Resolution::Of(_) => Err(too_much(TABLES.into_iter().find(fits))),
    }
}

fn too_much(instead: Option<Table>) -> String {
    match instead {
        Some(table) => {
            let label = label(table);
            format!("resolution: too fine for this range; ask for resolution={label}, or for less")
        }
        None => "from, to: the range is too long; ask for less".to_owned(),
    }
}

/// A bucket with values. Times in µs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its row.
    pub row: SeriesRow,
    /// It was corrected after its time.
    pub revised: bool,
    /// It may still grow as a matter of course.
    pub provisional: bool,
}

/// A range without values, `from` ≤ t < `to`; µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its begin.
    pub from: i64,
    /// Its end.
    pub to: i64,
}

/// Points and gaps of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Ascending.
    pub points: Vec<Point>,
    /// Ascending.
    pub gaps: Vec<Gap>,
    /// Where the next page begins, if there is one.
    pub next: Option<i64>,
}

/// Makes a page of rows in ascending order, of which there is one more than `limit` if there are
/// more. `closed_through` is how far the device has closed its minutes, if that is known.
pub fn page(
    mut rows: Vec<SeriesRow>,
    width: i64,
    (from, to): (i64, i64),
    limit: usize,
    now: i64,
    closed_through: Option<i64>,
) -> Page {
    let next = rows.get(limit).map(|row| row.bucket);
    rows.truncate(limit);
    // Only whole buckets that are over can be missing.
    let first = floor(from.saturating_add(width - 1), width);
    let last = floor(next.unwrap_or(to).min(now), width);
    let mut gaps = Vec::new();
    let mut expected = first;
    for bucket in rows.iter().map(|row| row.bucket).chain([last]) {
        if bucket > expected {
            gaps.push(Gap { from: expected, to: bucket });
        }
        expected = expected.max(bucket.saturating_add(width));
    }
    let point = |row: SeriesRow| {
        let end = row.bucket.saturating_add(width);
        let is_closed = closed_through.is_some_and(|through| end <= through);
        let settled = end.saturating_add(SETTLE);
        Point {
            row,
            revised: row.revision > 1 && row.updated_at >= settled,
            provisional: !is_closed && now < settled,
        }
    };
    Page { points: rows.into_iter().map(point).collect(), gaps, next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::window::{DAY, HOUR};

    fn row(bucket: i64) -> SeriesRow {
        SeriesRow {
            bucket,
            count: 1,
            sum: 1.0,
            min: 1.0,
            max: 1.0,
            p50: 1.0,
            p95: 1.0,
            revision: 1,
            updated_at: bucket + MINUTE,
        }
    }

    #[test]
    fn auto_takes_the_finest_that_is_not_too_much() {
        let auto = |range, devices| choose(Resolution::Auto, (0, range), devices).unwrap();
        assert_eq!(auto(HOUR, 1), Table::Minute);
        assert_eq!(auto(DAY, 1), Table::Minute);
        assert_eq!(auto(2 * DAY, 1), Table::Hour);
        assert_eq!(auto(60 * DAY, 1), Table::Hour);
        assert_eq!(auto(700 * DAY, 1), Table::Day);
        assert_eq!(auto(DAY, 100), Table::Hour);
        assert_eq!(auto(6 * HOUR, 100), Table::Minute);
    }

    #[test]
    fn too_much_says_what_to_ask_for() {
        let minute = Resolution::from_name("1m").unwrap();
        assert_eq!(choose(minute, (0, 30 * DAY), 1), Ok(Table::Minute));
        assert!(choose(minute, (0, 365 * DAY), 1).unwrap_err().contains("resolution=1h"));
        assert!(choose(minute, (0, DAY), 1_000).unwrap_err().contains("resolution=1h"));
        assert!(choose(Resolution::Auto, (0, i64::MAX), 1).unwrap_err().contains("too long"));
        assert_eq!(Resolution::from_name("5m"), None);
    }

    #[test]
    fn what_is_missing_is_a_gap_and_what_is_to_come_is_not() {
        let rows = [1, 2, 5].map(|n| row(n * MINUTE)).to_vec();
        let page = page(rows, MINUTE, (0, 100 * MINUTE), 10, 8 * MINUTE + 5, None);
        let gap = |from, to| Gap { from: from * MINUTE, to: to * MINUTE };
        assert_eq!(page.gaps, [gap(0, 1), gap(3, 5), gap(6, 8)]);
        assert_eq!((page.points.len(), page.next), (3, None));
        let empty = super::page(Vec::new(), MINUTE, (30, 5 * MINUTE), 10, HOUR, None);
        assert_eq!(empty.gaps, [gap(1, 5)]);
    }

    #[test]
    fn a_page_ends_where_the_next_begins() {
        let rows = [0, 1, 4].map(|n| row(n * MINUTE)).to_vec();
        let page = page(rows, MINUTE, (0, 9 * MINUTE), 2, HOUR, None);
        assert_eq!((page.points.len(), page.next), (2, Some(4 * MINUTE)));
        assert_eq!(page.gaps, [Gap { from: 2 * MINUTE, to: 4 * MINUTE }]);
    }

    #[test]
    fn a_point_says_whether_it_may_grow_or_was_corrected() {
        let late = SeriesRow { revision: 2, updated_at: HOUR, ..row(0) };
        let growing = SeriesRow { revision: 3, updated_at: 2 * MINUTE, ..row(MINUTE) };
        let page = |now, closed| {
            let rows = vec![late, growing];
            let page = page(rows, MINUTE, (0, HOUR), 10, now, closed);
            page.points.iter().map(|p| (p.revised, p.provisional)).collect::<Vec<_>>()
        };
        assert_eq!(page(5 * MINUTE, None), [(true, true), (false, true)]);
        assert_eq!(page(5 * MINUTE, Some(MINUTE)), [(true, false), (false, true)]);
        assert_eq!(page(HOUR, None), [(true, false), (false, false)]);
    }
}
