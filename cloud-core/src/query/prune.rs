//! Which rows of a file can matter, from its statistics alone: row groups by their bounds, then
//! pages by the page index. Pure; conservative where a statistic is missing.

use std::ops::Range;

use parquet::arrow::arrow_reader::{RowGroupSelection, RowSelection};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::statistics::Statistics;
use penstock_common::event::Flags;

use crate::raw::schema::{column, schema};

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The devices, in the order of their bytes; none at all: every device.
    pub devices: &'a [&'a str],
    /// The least effective time, µs.
    pub from: i64,
    /// The end of effective times, exclusive.
    pub to: i64,
    /// Besides, rows with the flag clock_ahead from this effective time on, if given.
    pub ahead_from: Option<i64>,
}

impl Wanted<'_> {
    fn can_have_device(&self, min: Option<&[u8]>, max: Option<&[u8]>) -> bool {
        let first = min.map_or(0, |min| self.devices.partition_point(|d| d.as_bytes() < min));
        let next = self.devices.get(first).map(|device| device.as_bytes());
        self.devices.is_empty() || next.is_some_and(|next| max.is_none_or(|max| next <= max))
    }

    fn can_have_time(&self, from: i64, min: Option<i64>, max: Option<i64>) -> bool {
        min.is_none_or(|min| min < self.to) && max.is_none_or(|max| max >= from)
    }
}

/// The rows worth decoding, by row group; none at all means that the file has nothing.
pub fn selections(metadata: &ParquetMetaData, wanted: &Wanted<'_>) -> Vec<RowGroupSelection> {
    let (Some(device), Some(time)) =
        (leaf(metadata, column::DEVICE_ID), leaf(metadata, column::EFFECTIVE_TIME))
    else {
        return (0..metadata.num_row_groups()).map(|g| RowGroupSelection::new(g, None)).collect();
    };
    let mut selections = Vec::new();
    for (number, group) in metadata.row_groups().iter().enumerate() {
        if !group_can_match(group, device, time, wanted) {
            continue;
        }
        let rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
        let index = metadata.page_index_for_row_group(number);
        let (column, places) = (index.column_index(device), index.page_locations(device));
        let by_device = pages(column, places, rows, |column, page| match column {
            ColumnIndexMetaData::BYTE_ARRAY(pages) => {
                wanted.can_have_device(pages.min_value(page), pages.max_value(page))
            }
            _ => true,
        });
        let by_time = |from| {
            let (column, places) = (index.column_index(time), index.page_locations(time));
            pages(column, places, rows, move |column, page| match column {
                ColumnIndexMetaData::INT64(pages) => {
                    let (min, max) = (pages.min_value(page), pages.max_value(page));
                    wanted.can_have_time(from, min.copied(), max.copied())
                }
                _ => true,
            })
        };
        let mut ranges = intersect(&by_device, &by_time(wanted.from));
        if let (Some(from), Some(flags)) = (wanted.ahead_from, leaf(metadata, column::FLAGS)) {
            let (column, places) = (index.column_index(flags), index.page_locations(flags));
            let ahead = pages(column, places, rows, |column, page| match column {
                // Bits: below the flag's own value none can have it.
                ColumnIndexMetaData::INT32(pages) => pages
                    .max_value(page)
                    .is_none_or(|max| max.cast_unsigned() >= Flags::CLOCK_AHEAD.bits()),
                _ => true,
            });
            ranges = union(ranges, intersect(&intersect(&by_device, &by_time(from)), &ahead));
        }
        if !ranges.is_empty() {
            let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), rows);
            selections.push(RowGroupSelection::new(number, Some(selection)));
        }
    }
    selections
}

/// The number of a column among the leaves. All columns before `metrics` are leaves themselves.
fn leaf(metadata: &ParquetMetaData, name: &str) -> Option<usize> {
    let number = schema().index_of(name).ok()?;
    let columns = metadata.file_metadata().schema_descr();
    (number < columns.num_columns() && columns.column(number).name() == name).then_some(number)
}

fn group_can_match(
    group: &RowGroupMetaData,
    device: usize,
    time: usize,
    wanted: &Wanted<'_>,
) -> bool {
    let device_can = match group.column(device).statistics() {
        Some(Statistics::ByteArray(stats)) => {
            let (min, max) = (stats.min_opt(), stats.max_opt());
            wanted.can_have_device(min.map(|min| min.data()), max.map(|max| max.data()))
        }
        _ => true,
    };
    let from = wanted.ahead_from.map_or(wanted.from, |ahead| ahead.min(wanted.from));
    let time_can = match group.column(time).statistics() {
        Some(Statistics::Int64(stats)) => {
            wanted.can_have_time(from, stats.min_opt().copied(), stats.max_opt().copied())
        }
        _ => true,
    };
    device_can && time_can
}

/// The row ranges of the pages for which `can_match`, ascending.
fn pages(
    column: Option<&ColumnIndexMetaData>,
    places: Option<&Vec<PageLocation>>,
    rows: usize,
    can_match: impl Fn(&ColumnIndexMetaData, usize) -> bool,
) -> Vec<Range<usize>> {
    let (Some(column), Some(locations)) = (column, places) else {
        return std::iter::once(0..rows).collect();
    };
    let first = |page: usize| {
        let row = locations.get(page).map(|location| location.first_row_index);
        row.map_or(rows, |row| usize::try_from(row).unwrap_or(0))
    };
    let matching = (0..locations.len()).filter(|page| can_match(column, *page));
    matching.map(|page| first(page)..first(page + 1)).collect()
}

/// The common part of two ascending lists of ranges.
fn intersect(a: &[Range<usize>], b: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut common = Vec::new();
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let range = x.start.max(y.start)..x.end.min(y.end);
        if !range.is_empty() {
            common.push(range);
        }
        if x.end <= y.end {
            a.next();
        } else {
            b.next();
        }
    }
    common
}

/// The rows of either of two ascending lists of ranges.
fn union(a: Vec<Range<usize>>, b: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = a.into_iter().chain(b).collect();
    all.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(all.len());
    for range in all {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = Vec<Range<usize>>> {
        prop::collection::vec((0usize..4, 1usize..5), 0..8).prop_map(|parts| {
            let mut at = 0;
            let range = |(gap, length)| {
                let start = at + gap;
                at = start + length;
                start..at
            };
            parts.into_iter().map(range).collect()
        })
    }

    proptest! {
        #[test]
        fn an_intersection_has_exactly_the_common_rows(a in ranges(), b in ranges()) {
            let has = |ranges: &[Range<usize>], row: usize| ranges.iter().any(|r| r.contains(&row));
            let common = intersect(&a, &b);
            for row in 0..80 {
                prop_assert_eq!(has(&common, row), has(&a, row) && has(&b, row));
            }
            prop_assert!(common.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let either = union(a.clone(), b.clone());
            for row in 0..80 {
                prop_assert_eq!(has(&either, row), has(&a, row) || has(&b, row));
            }
            prop_assert!(either.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
