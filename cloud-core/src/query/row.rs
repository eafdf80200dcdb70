//! One stored event, read from a Parquet row.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use penstock_common::event::{Epoch, Flags, UnixMicros};
use uuid::Uuid;

use crate::raw::schema::column;

/// Where an event stands among those of its device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Effective time, µs.
    pub effective_time: i64,
    /// The id, by its bytes.
    pub event_id: u128,
    /// The fleet.
    pub fleet: Arc<str>,
}

/// What decides between copies of one identity: the least is canonical.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// Reception, µs.
    pub received_at: i64,
    /// The gateway.
    pub gateway: Arc<str>,
    /// Its spool's epoch.
    pub epoch: i64,
    /// The number in it.
    pub seq: i64,
}

/// A device's event id in a fleet.
pub type Identity = (u128, Arc<str>);

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// Half of the identity.
    pub event_id: Uuid,
    /// The device.
    pub device_id: String,
    /// The fleet.
    pub fleet: Arc<str>,
    /// The firmware's version.
    pub firmware: String,
    /// The schema that admitted it.
    pub schema_version: i32,
    /// The event's own time.
    pub event_time: UnixMicros,
    /// What it is ordered by.
    pub effective_time: UnixMicros,
    /// Reception.
    pub received_at: UnixMicros,
    /// Append to the bus.
    pub append_time: UnixMicros,
    /// Facts noted at admission.
    pub flags: Flags,
    /// The gateway.
    pub gateway: Arc<str>,
    /// Its spool's epoch.
    pub epoch: Epoch,
    /// The number in it.
    pub seq: i64,
    /// The numbers of `metrics`, as they came.
    pub metrics: Vec<(String, f64)>,
    /// The event's own bytes.
    pub payload: String,
}

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file, or the store under it.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// A filter.
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The file is of a format that we do not know.
    #[error("column {0:?} is missing or of another type")]
    Column(&'static str),
}

impl StoredEvent {
    /// Its place.
    pub fn key(&self) -> Key {
        Key {
            effective_time: self.effective_time.0,
            event_id: self.event_id.as_u128(),
            fleet: Arc::clone(&self.fleet),
        }
    }

    /// Its precedence among copies.
    pub fn precedence(&self) -> Precedence {
        Precedence {
            received_at: self.received_at.0,
            gateway: Arc::clone(&self.gateway),
            epoch: self.epoch.0.cast_signed(),
            seq: self.seq,
        }
    }

    /// The memory it holds, roughly.
    pub fn size_bytes(&self) -> usize {
        let metrics: usize = self.metrics.iter().map(|(name, _)| name.len() + 40).sum();
        size_of::<Self>() + self.payload.len() + self.device_id.len() + metrics + 64
    }
}

/// Typed access to the rows of a batch.
pub struct Rows<'a>(pub &'a RecordBatch);

impl Rows<'_> {
    fn find(&self, name: &'static str) -> Result<&Arc<dyn Array>, ReadError> {
        self.0.column_by_name(name).ok_or(ReadError::Column(name))
    }

    fn text(&self, name: &'static str, row: usize) -> Result<&str, ReadError> {
        let strings = self.find(name)?.as_string_opt::<i32>().ok_or(ReadError::Column(name))?;
        Ok(strings.value(row))
    }

    fn int32(&self, name: &'static str, row: usize) -> Result<i32, ReadError> {
        let values = self.find(name)?.as_primitive_opt::<Int32Type>();
        Ok(values.ok_or(ReadError::Column(name))?.value(row))
    }

    fn int64(&self, name: &'static str, row: usize) -> Result<i64, ReadError> {
        let values = self.find(name)?.as_primitive_opt::<Int64Type>();
        Ok(values.ok_or(ReadError::Column(name))?.value(row))
    }

    fn time(&self, name: &'static str, row: usize) -> Result<i64, ReadError> {
        let values = self.find(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        Ok(values.ok_or(ReadError::Column(name))?.value(row))
    }

    /// The id of a row's event.
    pub(super) fn event_id(&self, row: usize) -> Result<u128, ReadError> {
        let wrong = ReadError::Column(column::EVENT_ID);
        let ids = self.find(column::EVENT_ID)?.as_fixed_size_binary_opt();
        match ids.map(|ids| <[u8; 16]>::try_from(ids.value(row))) {
            Some(Ok(bytes)) => Ok(u128::from_be_bytes(bytes)),
            _ => Err(wrong),
        }
    }

    /// The place of a row.
    ///
    /// # Errors
    /// When the file is of another format.
    pub fn key(&self, row: usize) -> Result<Key, ReadError> {
        Ok(Key {
            effective_time: self.time(column::EFFECTIVE_TIME, row)?,
            event_id: self.event_id(row)?,
            fleet: self.text(column::FLEET, row)?.into(),
        })
    }

    /// The identity and the precedence of a row.
    ///
    /// # Errors
    /// When the file is of another format.
    pub fn copy(&self, row: usize) -> Result<(Identity, Precedence), ReadError> {
        let precedence = Precedence {
            received_at: self.time(column::RECEIVED_AT, row)?,
            gateway: self.text(column::GATEWAY, row)?.into(),
            epoch: self.int64(column::EPOCH, row)?,
            seq: self.int64(column::SEQ, row)?,
        };
        Ok(((self.event_id(row)?, self.text(column::FLEET, row)?.into()), precedence))
    }

    /// The whole of a row.
    ///
    /// # Errors
    /// When the file is of another format.
    pub fn event(&self, row: usize) -> Result<StoredEvent, ReadError> {
        Ok(StoredEvent {
            event_id: Uuid::from_u128(self.event_id(row)?),
            device_id: self.text(column::DEVICE_ID, row)?.to_owned(),
            fleet: self.text(column::FLEET, row)?.into(),
            firmware: self.text(column::FIRMWARE, row)?.to_owned(),
            schema_version: self.int32(column::SCHEMA_VERSION, row)?,
            event_time: UnixMicros(self.time(column::EVENT_TIME, row)?),
            effective_time: UnixMicros(self.time(column::EFFECTIVE_TIME, row)?),
            received_at: UnixMicros(self.time(column::RECEIVED_AT, row)?),
            append_time: UnixMicros(self.time(column::APPEND_TIME, row)?),
            flags: Flags::from_bits(self.int32(column::FLAGS, row)?.cast_unsigned()),
            gateway: self.text(column::GATEWAY, row)?.into(),
            epoch: Epoch(self.int64(column::EPOCH, row)?.cast_unsigned()),
            seq: self.int64(column::SEQ, row)?,
            metrics: self.metrics(row)?,
            payload: self.text(column::PAYLOAD, row)?.to_owned(),
        })
    }

    fn metrics(&self, row: usize) -> Result<Vec<(String, f64)>, ReadError> {
        let wrong = || ReadError::Column(column::METRICS);
        let map = self.find(column::METRICS)?.as_map_opt().ok_or_else(wrong)?;
        let entries = map.value(row);
        let names = entries.column(0).as_string_opt::<i32>().ok_or_else(wrong)?;
        let values = entries.column(1).as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
        let entry = |i: usize| (names.value(i).to_owned(), values.value(i));
        Ok((0..entries.len()).map(entry).collect())
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.0.num_rows()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
