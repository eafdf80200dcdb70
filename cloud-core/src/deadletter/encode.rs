//! Letters become Parquet files in memory, one an append hour (`schema.rs` says what they look
//! like). Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, FixedSizeBinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder,
    StructBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;

use super::letter::Letter;
use super::schema::{header_fields, header_item, schema, writer_properties};
use crate::raw::batch::hour_of;
use crate::raw::encode::EncodeError;

/// Rows turned into Arrow arrays at a time: a letter can have a mebibyte.
const SLICE_ROWS: usize = 64;

/// A finished file.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its bytes.
    pub bytes: Bytes,
    /// The numbers of its letters in the batch, in the order of its rows.
    pub letters: Vec<usize>,
    /// The hour since the Unix epoch in which the bus appended them.
    pub append_hour: i64,
    /// The least append time, µs.
    pub min_append: i64,
    /// The greatest append time, µs.
    pub max_append: i64,
}

/// Encodes letters. Takes long: not for an async thread.
///
/// # Errors
/// When Arrow or Parquet refuse the data.
pub fn encode(letters: &[Letter]) -> Result<Vec<Encoded>, EncodeError> {
    let mut hours: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (number, letter) in letters.iter().enumerate() {
        hours.entry(hour_of(letter.append_time.0)).or_default().push(number);
    }
    hours.into_iter().map(|(hour, numbers)| file(letters, hour, numbers)).collect()
}

fn file(
    letters: &[Letter],
    append_hour: i64,
    mut numbers: Vec<usize>,
) -> Result<Encoded, EncodeError> {
    numbers.sort_by_key(|number| {
        let place = &letters[*number].place;
        (place.partition, place.offset)
    });
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), Some(writer_properties()))?;
    for slice in numbers.chunks(SLICE_ROWS) {
        let slice: Vec<&Letter> = slice.iter().map(|number| &letters[*number]).collect();
        writer.write(&columns(&slice)?)?;
    }
    let times = numbers.iter().map(|number| letters[*number].append_time.0);
    Ok(Encoded {
        bytes: writer.into_inner()?.into(),
        append_hour,
        min_append: times.clone().min().unwrap_or_default(),
        max_append: times.max().unwrap_or_default(),
        letters: numbers,
    })
}

fn columns(letters: &[&Letter]) -> Result<RecordBatch, EncodeError> {
    let source = |letter: &'_ Letter| letter.meta.source.clone();
    let mut event_ids = FixedSizeBinaryBuilder::with_capacity(letters.len(), 16);
    for letter in letters {
        match letter.identity.event_id {
            Some(id) => event_ids.append_value(id.as_bytes())?,
            None => event_ids.append_null(),
        }
    }
    let columns: Vec<ArrayRef> = vec![
        text(letters, |l| Some(&l.place.topic)),
        int32(letters, |l| Some(l.place.partition)),
        int64(letters, |l| Some(l.place.offset)),
        time(letters, |l| Some(l.append_time.0)),
        binary(letters, |l| l.key.as_deref()),
        binary(letters, |l| Some(&l.payload)),
        text(letters, |l| Some(&l.meta.stage)),
        text(letters, |l| Some(&l.meta.reason)),
        text(letters, |l| Some(&l.meta.detail)),
        int32(letters, |l| l.meta.schema_version.map(u32::cast_signed)),
        text(letters, |l| Some(&l.meta.fleet)),
        text(letters, |l| Some(&l.meta.provenance.gateway)),
        int64(letters, |l| Some(l.meta.provenance.epoch.0.cast_signed())),
        int64(letters, |l| Some(l.meta.provenance.seq.cast_signed())),
        time(letters, |l| Some(l.meta.first_seen.0)),
        int64(letters, |l| Some(l.meta.attempts.into())),
        text(letters, |l| l.meta.source.as_ref().map(|source| source.topic.as_str())),
        int32(letters, |l| source(l).map(|source| source.partition)),
        int64(letters, |l| source(l).map(|source| source.offset)),
        text(letters, |l| l.meta.traceparent.as_deref()),
        headers(letters),
        text(letters, |l| l.identity.device_id.as_deref()),
        Arc::new(event_ids.finish()),
        time(letters, |l| l.identity.event_time.map(|time| time.0)),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn text(letters: &[&Letter], value: impl Fn(&Letter) -> Option<&str>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    letters.iter().for_each(|letter| builder.append_option(value(letter)));
    Arc::new(builder.finish())
}

fn binary(letters: &[&Letter], value: impl Fn(&Letter) -> Option<&[u8]>) -> ArrayRef {
    let mut builder = BinaryBuilder::new();
    letters.iter().for_each(|letter| builder.append_option(value(letter)));
    Arc::new(builder.finish())
}

fn int32(letters: &[&Letter], value: impl Fn(&Letter) -> Option<i32>) -> ArrayRef {
    let mut builder = Int32Builder::new();
    letters.iter().for_each(|letter| builder.append_option(value(letter)));
    Arc::new(builder.finish())
}

fn int64(letters: &[&Letter], value: impl Fn(&Letter) -> Option<i64>) -> ArrayRef {
    let mut builder = Int64Builder::new();
    letters.iter().for_each(|letter| builder.append_option(value(letter)));
    Arc::new(builder.finish())
}

fn time(letters: &[&Letter], value: impl Fn(&Letter) -> Option<i64>) -> ArrayRef {
    let mut builder = TimestampMicrosecondBuilder::new();
    letters.iter().for_each(|letter| builder.append_option(value(letter)));
    Arc::new(builder.finish().with_timezone("UTC"))
}

fn headers(letters: &[&Letter]) -> ArrayRef {
    let parts = StructBuilder::from_fields(header_fields(), 0);
    let mut lists = ListBuilder::new(parts).with_field(header_item());
    for letter in letters {
        for (name, value) in &letter.headers {
            let header = lists.values();
            // Both builders come from `header_fields`.
            if let Some(names) = header.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            if let Some(values) = header.field_builder::<BinaryBuilder>(1) {
                values.append_value(value);
            }
            header.append(true);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

#[cfg(test)]
mod tests;
