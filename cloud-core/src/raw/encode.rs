//! A batch becomes a Parquet file in memory (`schema.rs` says what it looks like).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{
    FixedSizeBinaryBuilder, Float64Builder, MapBuilder, MapFieldNames, StringBuilder,
};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use penstock_common::event::Flags;

use super::batch::{Batch, Row, hour_of};
use super::schema::{METRIC_ENTRY, metric_entry_fields, schema, writer_properties};

/// Rows turned into Arrow arrays at a time: bounds what stands in memory beside the batch.
const SLICE_ROWS: usize = 16_384;

/// A finished file.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its rows.
    pub rows: usize,
    /// The least effective time, µs.
    pub min_effective: i64,
    /// The greatest effective time, µs.
    pub max_effective: i64,
    /// Rows flagged clock_ahead.
    pub clock_ahead_count: usize,
    /// The hour since the Unix epoch in which the bus appended all rows.
    pub append_hour: i64,
    /// The fleets, in order, and their rows.
    pub fleets: Vec<(String, usize)>,
}

/// Why a batch could not be encoded: a mistake of ours, trying again won't help.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The arrays do not fit the schema.
    #[error("build the columns: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The writer refused them.
    #[error("write Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// Encodes a batch, one file for each hour in which the bus appended its rows. Takes long: not for
/// an async thread.
///
/// # Errors
/// When Arrow or Parquet refuse the data.
pub fn encode(batch: &Batch) -> Result<Vec<Encoded>, EncodeError> {
    let mut hours: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for number in batch.sorted() {
        let row = &batch.rows()[number as usize];
        hours.entry(hour_of(row.append_time)).or_default().push(number);
    }
    hours.into_iter().map(|(hour, numbers)| encode_hour(batch, hour, &numbers)).collect()
}

fn encode_hour(batch: &Batch, append_hour: i64, numbers: &[u32]) -> Result<Encoded, EncodeError> {
    let share = batch.size_bytes() / batch.rows().len().max(1) * numbers.len();
    let mut writer =
        ArrowWriter::try_new(Vec::with_capacity(share / 4), schema(), Some(writer_properties()))?;
    for numbers in numbers.chunks(SLICE_ROWS) {
        writer.write(&slice(batch, numbers)?)?;
    }
    let rows = || numbers.iter().map(|number| &batch.rows()[*number as usize]);
    let mut fleets: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows() {
        *fleets.entry(batch.name(row.fleet)).or_default() += 1;
    }
    Ok(Encoded {
        bytes: writer.into_inner()?.into(),
        rows: numbers.len(),
        min_effective: rows().map(|row| row.effective_time).min().unwrap_or_default(),
        max_effective: rows().map(|row| row.effective_time).max().unwrap_or_default(),
        clock_ahead_count: rows().filter(|row| row.flags.contains(Flags::CLOCK_AHEAD)).count(),
        append_hour,
        fleets: fleets.into_iter().map(|(fleet, rows)| (fleet.to_owned(), rows)).collect(),
    })
}

fn slice(batch: &Batch, numbers: &[u32]) -> Result<RecordBatch, EncodeError> {
    let rows: Vec<&Row> = numbers.iter().map(|number| &batch.rows()[*number as usize]).collect();
    let mut event_ids = FixedSizeBinaryBuilder::with_capacity(rows.len(), 16);
    for row in &rows {
        event_ids.append_value(row.event_id.to_be_bytes())?;
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(event_ids.finish()),
        text(&rows, |row| batch.name(row.device)),
        text(&rows, |row| batch.name(row.fleet)),
        text(&rows, |row| batch.name(row.firmware)),
        int32(&rows, |row| row.schema_version),
        time(&rows, |row| row.event_time),
        time(&rows, |row| row.received_at),
        time(&rows, |row| row.append_time),
        time(&rows, |row| row.effective_time),
        int32(&rows, |row| row.flags.bits().cast_signed()),
        text(&rows, |row| batch.name(row.gateway)),
        int64(&rows, |row| row.epoch),
        int64(&rows, |row| row.seq),
        metrics(batch, &rows)?,
        text(&rows, |row| batch.payload(row)),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn text<'a>(rows: &[&'a Row], value: impl Fn(&'a Row) -> &'a str) -> ArrayRef {
    let bytes = rows.iter().map(|row| value(row).len()).sum();
    let mut builder = StringBuilder::with_capacity(rows.len(), bytes);
    for row in rows {
        builder.append_value(value(row));
    }
    Arc::new(builder.finish())
}

fn int32(rows: &[&Row], value: impl Fn(&Row) -> i32) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| value(row))))
}

fn int64(rows: &[&Row], value: impl Fn(&Row) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| value(row))))
}

fn time(rows: &[&Row], value: impl Fn(&Row) -> i64) -> ArrayRef {
    let values = rows.iter().map(|row| value(row));
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

fn metrics(batch: &Batch, rows: &[&Row]) -> Result<ArrayRef, EncodeError> {
    let [key, value] = metric_entry_fields();
    let names = MapFieldNames {
        entry: METRIC_ENTRY.into(),
        key: key.name().clone(),
        value: value.name().clone(),
    };
    let mut map = MapBuilder::new(Some(names), StringBuilder::new(), Float64Builder::new())
        .with_keys_field(key)
        .with_values_field(value);
    for row in rows {
        for (name, value) in batch.metrics(row) {
            map.keys().append_value(batch.name(*name));
            map.values().append_value(*value);
        }
        map.append(true)?;
    }
    Ok(Arc::new(map.finish()))
}

#[cfg(test)]
mod tests;
