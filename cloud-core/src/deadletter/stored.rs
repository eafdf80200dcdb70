//! Letters read back from their file, by the numbers of their rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use futures::TryStreamExt;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::file::metadata::PageIndexPolicy;
use penstock_common::admit::Identity;
use penstock_common::event::{DeadLetterMeta, Epoch, Provenance, SourceOffset, UnixMicros};
use uuid::Uuid;

use super::letter::Letter;
use super::schema::column;
use crate::query::row::ReadError;
use crate::store::object::Objects;

/// Rows decoded at a time: a letter can have a mebibyte.
const BATCH_ROWS: usize = 64;

/// Reads these rows of a file; numbers beyond its end give nothing.
///
/// # Errors
/// When the file can't be read.
pub async fn read_rows(
    objects: &Objects,
    path: &str,
    size_bytes: u64,
    rows: &[usize],
) -> Result<Vec<Letter>, ReadError> {
    let object = objects.parquet(path, size_bytes);
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(object, options).await?;
    let total: i64 = builder.metadata().row_groups().iter().map(|group| group.num_rows()).sum();
    let total = usize::try_from(total).unwrap_or(0);
    let rows: BTreeSet<usize> = rows.iter().copied().collect();
    let ranges = rows.iter().filter(|row| **row < total).map(|row| *row..*row + 1);
    let selection = RowSelection::from_consecutive_ranges(ranges, total);
    let mut stream = builder.with_row_selection(selection).with_batch_size(BATCH_ROWS).build()?;
    let mut letters = Vec::with_capacity(rows.len());
    while let Some(batch) = stream.try_next().await? {
        let columns = Columns(&batch);
        for row in 0..batch.num_rows() {
            letters.push(columns.letter(row)?);
        }
    }
    Ok(letters)
}

/// Typed access to a batch.
pub(super) struct Columns<'a>(pub(super) &'a RecordBatch);

impl Columns<'_> {
    /// The letter of a row.
    pub(super) fn letter(&self, row: usize) -> Result<Letter, ReadError> {
        Ok(Letter {
            place: SourceOffset {
                topic: self.text(column::TOPIC, row)?.unwrap_or_default(),
                partition: self.int32(column::PARTITION, row)?.unwrap_or_default(),
                offset: self.int64(column::OFFSET, row)?.unwrap_or_default(),
            },
            append_time: self.time(column::APPEND_TIME, row)?.unwrap_or_default(),
            key: self.binary(column::KEY, row)?,
            payload: self.binary(column::PAYLOAD, row)?.unwrap_or_default(),
            meta: self.meta(row)?,
            headers: self.headers(row)?,
            identity: Identity {
                device_id: self.text(column::DEVICE_ID, row)?,
                event_id: self.event_id(row)?,
                event_time: self.time(column::EVENT_TIME, row)?,
            },
        })
    }

    fn meta(&self, row: usize) -> Result<DeadLetterMeta, ReadError> {
        let required = |name| Ok::<_, ReadError>(self.text(name, row)?.unwrap_or_default());
        let number = |name| Ok::<_, ReadError>(self.int64(name, row)?.unwrap_or_default());
        let source = match (
            self.text(column::SOURCE_TOPIC, row)?,
            self.int32(column::SOURCE_PARTITION, row)?,
            self.int64(column::SOURCE_OFFSET, row)?,
        ) {
            (Some(topic), Some(partition), Some(offset)) => {
                Some(SourceOffset { topic, partition, offset })
            }
            _ => None,
        };
        Ok(DeadLetterMeta {
            stage: required(column::STAGE)?,
            reason: required(column::REASON)?,
            detail: required(column::DETAIL)?,
            schema_version: self.int32(column::SCHEMA_VERSION, row)?.map(i32::cast_unsigned),
            fleet: required(column::FLEET)?.into(),
            provenance: Provenance {
                gateway: required(column::GATEWAY)?.into(),
                epoch: Epoch(number(column::EPOCH)?.cast_unsigned()),
                seq: number(column::SEQ)?.cast_unsigned(),
            },
            first_seen: self.time(column::FIRST_SEEN, row)?.unwrap_or_default(),
            attempts: number(column::ATTEMPTS)?.try_into().unwrap_or(u32::MAX),
            source,
            traceparent: self.text(column::TRACEPARENT, row)?,
        })
    }

    fn find(&self, name: &'static str) -> Result<&Arc<dyn Array>, ReadError> {
        self.0.column_by_name(name).ok_or(ReadError::Column(name))
    }

    fn text(&self, name: &'static str, row: usize) -> Result<Option<String>, ReadError> {
        let column = self.find(name)?.as_string_opt::<i32>().ok_or(ReadError::Column(name))?;
        Ok(column.is_valid(row).then(|| column.value(row).to_owned()))
    }

    fn binary(&self, name: &'static str, row: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let column = self.find(name)?.as_binary_opt::<i32>().ok_or(ReadError::Column(name))?;
        Ok(column.is_valid(row).then(|| column.value(row).to_vec()))
    }

    fn int32(&self, name: &'static str, row: usize) -> Result<Option<i32>, ReadError> {
        let column = self.find(name)?.as_primitive_opt::<Int32Type>();
        let column = column.ok_or(ReadError::Column(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn int64(&self, name: &'static str, row: usize) -> Result<Option<i64>, ReadError> {
        let column = self.find(name)?.as_primitive_opt::<Int64Type>();
        let column = column.ok_or(ReadError::Column(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn time(&self, name: &'static str, row: usize) -> Result<Option<UnixMicros>, ReadError> {
        let column = self.find(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        let column = column.ok_or(ReadError::Column(name))?;
        Ok(column.is_valid(row).then(|| UnixMicros(column.value(row))))
    }

    fn event_id(&self, row: usize) -> Result<Option<Uuid>, ReadError> {
        let wrong = || ReadError::Column(column::EVENT_ID);
        let column = self.find(column::EVENT_ID)?.as_fixed_size_binary_opt().ok_or_else(wrong)?;
        let id = column.is_valid(row).then(|| Uuid::from_slice(column.value(row)));
        id.transpose().map_err(|_| wrong())
    }

    fn headers(&self, row: usize) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
        let wrong = || ReadError::Column(column::HEADERS);
        let lists = self.find(column::HEADERS)?.as_list_opt::<i32>().ok_or_else(wrong)?;
        let parts = lists.value(row);
        let parts = parts.as_struct_opt().ok_or_else(wrong)?;
        let names = parts.column(0).as_string_opt::<i32>().ok_or_else(wrong)?;
        let values = parts.column(1).as_binary_opt::<i32>().ok_or_else(wrong)?;
        let header = |at: usize| (names.value(at).to_owned(), values.value(at).to_vec());
        Ok((0..parts.len()).map(header).collect())
    }
}
