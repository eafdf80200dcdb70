//! Reading the rows of one device from one file, in the file's order, which is the order of keys.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_ord::cmp;
use arrow_schema::ArrowError;
use parquet::arrow::arrow_reader::{
    ArrowPredicate, ArrowPredicateFn, ArrowReaderOptions, RowFilter,
};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::file::metadata::PageIndexPolicy;
use parquet::schema::types::SchemaDescriptor;
use penstock_common::event::Flags;

use super::prune::{Wanted, selections};
use super::row::ReadError;
use crate::raw::schema::column;
use crate::store::catalog::FileEntry;
use crate::store::object::{Objects, ParquetObject};

/// Rows decoded at a time: small, because an event can have 64 KiB.
const BATCH_ROWS: usize = 256;

/// Which rows are wanted.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Of this device.
    pub device: Arc<str>,
    /// Of this fleet, if given.
    pub fleet: Option<Arc<str>>,
    /// From this effective time, µs.
    pub from: i64,
    /// Before this effective time.
    pub to: i64,
    /// Only these ids, and only columns that tell copies apart; besides, clock-ahead copies
    /// before `from`.
    pub copies_of: Option<Arc<HashSet<u128>>>,
}

/// Opens a file; `None` when its statistics say that it has no such row.
///
/// # Errors
/// When the file can't be read.
pub async fn open(
    objects: &Objects,
    file: &FileEntry,
    scan: &Scan,
) -> Result<Option<ParquetRecordBatchStream<ParquetObject>>, ReadError> {
    let object = objects.parquet_often(&file.path, file.bytes.unsigned_abs());
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(object, options).await?;
    let from = if scan.copies_of.is_some() { i64::MIN } else { scan.from };
    let devices = [&*scan.device];
    let wanted = Wanted { devices: &devices, from, to: scan.to, ahead_from: None };
    let selected = selections(builder.metadata(), &wanted);
    if selected.is_empty() {
        return Ok(None);
    }
    let filter = filter(builder.parquet_schema(), scan);
    let columns = if scan.copies_of.is_some() {
        let names = [
            column::EVENT_ID,
            column::FLEET,
            column::RECEIVED_AT,
            column::GATEWAY,
            column::EPOCH,
            column::SEQ,
        ];
        ProjectionMask::columns(builder.parquet_schema(), names)
    } else {
        ProjectionMask::all()
    };
    let stream = builder
        .with_row_group_selections(selected)
        .with_projection(columns)
        .with_row_filter(filter)
        .with_batch_size(BATCH_ROWS)
        .build()?;
    Ok(Some(stream))
}

fn filter(schema: &SchemaDescriptor, scan: &Scan) -> RowFilter {
    let mut predicates = vec![equals(schema, column::DEVICE_ID, &scan.device)];
    match &scan.copies_of {
        None => predicates.push(in_window(schema, scan.from, scan.to)),
        Some(ids) => {
            predicates.push(can_beat(schema, scan.from, scan.to));
            predicates.push(has_id(schema, Arc::clone(ids)));
        }
    }
    if let Some(fleet) = &scan.fleet {
        predicates.push(equals(schema, column::FLEET, fleet));
    }
    RowFilter::new(predicates)
}

pub(crate) type Predicate = Box<dyn ArrowPredicate>;

/// A predicate on some columns.
pub(crate) fn predicate<F>(schema: &SchemaDescriptor, columns: &[&str], keep: F) -> Predicate
where
    F: FnMut(RecordBatch) -> Result<BooleanArray, ArrowError> + Send + 'static,
{
    let columns = ProjectionMask::columns(schema, columns.iter().copied());
    Box::new(ArrowPredicateFn::new(columns, keep))
}

fn equals(schema: &SchemaDescriptor, name: &'static str, value: &str) -> Predicate {
    let value = StringArray::new_scalar(value);
    predicate(schema, &[name], move |batch| cmp::eq(batch.column(0), &value))
}

fn times(batch: &RecordBatch) -> Result<&TimestampMicrosecondArray, ArrowError> {
    let column = batch.column_by_name(column::EFFECTIVE_TIME);
    column
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .ok_or_else(|| ArrowError::SchemaError("effective_time is not a time".into()))
}

fn in_window(schema: &SchemaDescriptor, from: i64, to: i64) -> Predicate {
    predicate(schema, &[column::EFFECTIVE_TIME], move |batch| {
        let times = times(&batch)?.values().iter();
        Ok(times.map(|time| Some((from..to).contains(time))).collect())
    })
}

/// In the window, or a clock-ahead copy before it.
fn can_beat(schema: &SchemaDescriptor, from: i64, to: i64) -> Predicate {
    predicate(schema, &[column::EFFECTIVE_TIME, column::FLAGS], move |batch| {
        let flags = batch
            .column_by_name(column::FLAGS)
            .and_then(|column| column.as_primitive_opt::<Int32Type>())
            .ok_or_else(|| ArrowError::SchemaError("flags are no number".into()))?;
        let rows = times(&batch)?.values().iter().zip(flags.values());
        let keep = rows.map(|(time, flags)| {
            let flags = Flags::from_bits(flags.cast_unsigned());
            Some(*time < to && (*time >= from || flags.contains(Flags::CLOCK_AHEAD)))
        });
        Ok(keep.collect())
    })
}

/// Rows with one of these ids.
pub(super) fn has_id(schema: &SchemaDescriptor, ids: Arc<HashSet<u128>>) -> Predicate {
    predicate(schema, &[column::EVENT_ID], move |batch| {
        let column = batch
            .column(0)
            .as_fixed_size_binary_opt()
            .ok_or_else(|| ArrowError::SchemaError("event_id is not binary".into()))?;
        let known = |id: Option<&[u8]>| {
            let id = id.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            Some(id.is_some_and(|id| ids.contains(&u128::from_be_bytes(id))))
        };
        Ok(column.iter().map(known).collect())
    })
}
