//! Which rows of a file can matter, from its statistics alone: row groups by their bounds, then
//! pages by the page index. Pure; conservative where a statistic is missing.

use std::ops::Range;

use parquet::arrow::arrow_reader::{RowGroupSelection, RowSelection};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::statistics::Statistics;

use crate::raw::schema::{column, schema};

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The device.
    pub device: &'a str,
    /// The least effective time, µs.
    pub from: i64,
    /// The end of effective times, exclusive.
    pub to: i64,
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
                pages.min_value(page).is_none_or(|min| min <= wanted.device.as_bytes())
                    && pages.max_value(page).is_none_or(|max| max >= wanted.device.as_bytes())
            }
            _ => true,
        });
        let (column, places) = (index.column_index(time), index.page_locations(time));
        let by_time = pages(column, places, rows, |column, page| match column {
            ColumnIndexMetaData::INT64(pages) => {
                pages.min_value(page).is_none_or(|min| *min < wanted.to)
                    && pages.max_value(page).is_none_or(|max| *max >= wanted.from)
            }
            _ => true,
        });
        let ranges = intersect(&by_device, &by_time);
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
            stats.min_opt().is_none_or(|min| min.data() <= wanted.device.as_bytes())
                && stats.max_opt().is_none_or(|max| max.data() >= wanted.device.as_bytes())
        }
        _ => true,
    };
    let time_can = match group.column(time).statistics() {
        Some(Statistics::Int64(stats)) => {
            stats.min_opt().is_none_or(|min| *min < wanted.to)
                && stats.max_opt().is_none_or(|max| *max >= wanted.from)
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
        }
    }
}
