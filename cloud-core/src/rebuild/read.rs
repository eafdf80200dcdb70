//! Reading the copies of some devices' hour from the raw files: what decides on their minute
//! rows, and no column more; never the payload.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, BooleanArray, FixedSizeBinaryArray, Int32Array, Int64Array, MapArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow_schema::ArrowError;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowFilter};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::file::metadata::PageIndexPolicy;
use penstock_common::event::Flags;

use crate::query::prune::{Wanted, selections};
use crate::query::row::ReadError;
use crate::query::scan::predicate;
use crate::raw::schema::column;
use crate::rollup::canonical::{AHEAD_REACH, Precedence, StoredCopy};
use crate::rollup::counted::CountedMetrics;
use crate::rollup::window::HOUR;
use crate::store::catalog::FileEntry;
use crate::store::object::{Objects, ParquetObject};

/// Files read at the same time for one hour.
const FILES_AT_ONCE: usize = 4;
/// Rows decoded at a time; they have no payload.
const BATCH_ROWS: usize = 8_192;

/// A device by fleet and name.
pub type Device = (Arc<str>, Arc<str>);

/// What is read for.
pub struct Question<'a> {
    /// The object store.
    pub objects: &'a Objects,
    /// The hour's begin, µs.
    pub hour: i64,
    /// How far apart copies of one event may be, µs.
    pub lateness: i64,
    /// The devices.
    pub devices: &'a [Device],
    /// Which metrics count.
    pub counted: &'a CountedMetrics,
    /// Records to be left out: gateway, epoch, number.
    pub poison: &'a HashSet<(Arc<str>, i64, i64)>,
    /// Copies at most.
    pub copies_max: usize,
}

/// Why there are no copies.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// More of them than may be held in memory.
    #[error("too many events for one time")]
    TooMany,
    /// A file can't be read.
    #[error("read {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: ReadError,
    },
}

impl Question<'_> {
    /// The least effective time of copies that matter, µs.
    pub const fn from(&self) -> i64 {
        self.hour.saturating_sub(self.lateness)
    }

    /// The end of effective times that matter.
    pub const fn to(&self) -> i64 {
        self.hour.saturating_add(HOUR).saturating_add(self.lateness)
    }

    /// Copies with a clock ahead matter from here on.
    pub const fn ahead_from(&self) -> i64 {
        self.hour.saturating_sub(AHEAD_REACH)
    }

    fn matters(&self, file: &FileEntry) -> bool {
        let from = if file.clock_ahead_count > 0 { self.ahead_from() } else { self.from() };
        file.max_effective >= from && file.min_effective < self.to()
    }

    /// The copies of each device, in no order.
    ///
    /// # Errors
    /// When a file can't be read, or there is too much for one time.
    pub async fn copies(&self, files: &[FileEntry]) -> Result<Vec<Vec<StoredCopy>>, Failure> {
        let mut names: Vec<&str> = self.devices.iter().map(|(_, device)| &**device).collect();
        names.sort_unstable();
        names.dedup();
        let places = self.devices.iter().enumerate();
        let places: HashMap<(&str, &str), usize> =
            places.map(|(n, (fleet, device))| ((&**fleet, &**device), n)).collect();
        let read = AtomicUsize::new(0);
        let wanted: Vec<FileEntry> = files.iter().filter(|f| self.matters(f)).cloned().collect();
        let each = stream::iter(wanted)
            .map(|file| self.file(file, &names, &places, &read))
            .buffer_unordered(FILES_AT_ONCE);
        each.try_fold(vec![Vec::new(); self.devices.len()], |mut all, found| async move {
            for (device, copy) in found {
                all[device].push(copy);
            }
            Ok(all)
        })
        .await
    }

    async fn file(
        &self,
        file: FileEntry,
        names: &[&str],
        places: &HashMap<(&str, &str), usize>,
        read: &AtomicUsize,
    ) -> Result<Vec<(usize, StoredCopy)>, Failure> {
        let failed = |source| Failure::File { path: file.path.clone(), source };
        let mut found = Vec::new();
        let Some(mut batches) = self.open(&file, names).await.map_err(failed)? else {
            return Ok(found);
        };
        let mut gateways = Gateways::default();
        while let Some(batch) = batches.try_next().await.map_err(|e| failed(e.into()))? {
            let rows = read.fetch_add(batch.num_rows(), Ordering::Relaxed) + batch.num_rows();
            if rows > self.copies_max {
                return Err(Failure::TooMany);
            }
            let columns = Columns::of(&batch).map_err(failed)?;
            for row in 0..batch.num_rows() {
                let device = (columns.fleet.value(row), columns.device.value(row));
                // The filter knows devices by name alone.
                let Some(place) = places.get(&device) else { continue };
                let copy = columns.copy(row, self.counted, &mut gateways).map_err(failed)?;
                let Precedence { gateway, epoch, seq, .. } = &copy.precedence;
                let is_poison = !self.poison.is_empty()
                    && self.poison.contains(&(Arc::clone(gateway), *epoch, *seq));
                if !is_poison {
                    found.push((*place, copy));
                }
            }
        }
        Ok(found)
    }

    async fn open(
        &self,
        file: &FileEntry,
        names: &[&str],
    ) -> Result<Option<ParquetRecordBatchStream<ParquetObject>>, ReadError> {
        let object = self.objects.parquet(&file.path, file.bytes.unsigned_abs());
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(object, options).await?;
        let (from, to, ahead_from) = (self.from(), self.to(), self.ahead_from());
        let ahead = (file.clock_ahead_count > 0).then_some(ahead_from);
        let wanted = Wanted { devices: names, from, to, ahead_from: ahead };
        let selected = selections(builder.metadata(), &wanted);
        if selected.is_empty() {
            return Ok(None);
        }
        let schema = builder.parquet_schema();
        let known: HashSet<Box<str>> = names.iter().map(|name| Box::from(*name)).collect();
        let of_devices = predicate(schema, &[column::DEVICE_ID], move |batch| {
            Ok(text(&batch, column::DEVICE_ID)?
                .iter()
                .map(|d| Some(d.is_some_and(|d| known.contains(d))))
                .collect())
        });
        let columns = [column::EFFECTIVE_TIME, column::FLAGS];
        let in_time = predicate(schema, &columns, move |batch| {
            near(&batch, |time, ahead| {
                (from..to).contains(&time) || (ahead && (ahead_from..to).contains(&time))
            })
        });
        let columns = ProjectionMask::columns(schema, COLUMNS);
        let stream = builder
            .with_row_group_selections(selected)
            .with_projection(columns)
            .with_row_filter(RowFilter::new(vec![of_devices, in_time]))
            .with_batch_size(BATCH_ROWS)
            .build()?;
        Ok(Some(stream))
    }
}

const COLUMNS: [&str; 11] = [
    column::EVENT_ID,
    column::DEVICE_ID,
    column::FLEET,
    column::SCHEMA_VERSION,
    column::EVENT_TIME,
    column::RECEIVED_AT,
    column::FLAGS,
    column::GATEWAY,
    column::EPOCH,
    column::SEQ,
    column::METRICS,
];

/// The devices that have an event in an hour, of a fleet or a name if given.
///
/// # Errors
/// When a file can't be read.
pub async fn devices_in(
    objects: &Objects,
    files: &[FileEntry],
    hour: i64,
    fleet: Option<&str>,
    device: Option<&str>,
) -> Result<HashSet<Device>, Failure> {
    let mut devices = HashSet::new();
    let to = hour.saturating_add(HOUR);
    for file in files.iter().filter(|file| file.max_effective >= hour && file.min_effective < to) {
        let failed = |source| Failure::File { path: file.path.clone(), source };
        let read = async {
            let object = objects.parquet(&file.path, file.bytes.unsigned_abs());
            let options =
                ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
            let builder =
                ParquetRecordBatchStreamBuilder::new_with_options(object, options).await?;
            let names: Vec<&str> = device.into_iter().collect();
            let wanted = Wanted { devices: &names, from: hour, to, ahead_from: None };
            let selected = selections(builder.metadata(), &wanted);
            let schema = builder.parquet_schema();
            let columns = [column::EFFECTIVE_TIME, column::FLAGS];
            let in_hour = predicate(schema, &columns, move |batch| {
                near(&batch, |time, _| (hour..to).contains(&time))
            });
            let columns = ProjectionMask::columns(schema, [column::DEVICE_ID, column::FLEET]);
            let mut batches = builder
                .with_row_group_selections(selected)
                .with_projection(columns)
                .with_row_filter(RowFilter::new(vec![in_hour]))
                .with_batch_size(BATCH_ROWS)
                .build()?;
            while let Some(batch) = batches.try_next().await? {
                let (names, fleets) =
                    (text(&batch, column::DEVICE_ID)?, text(&batch, column::FLEET)?);
                let mut last = None;
                for pair in fleets.iter().flatten().zip(names.iter().flatten()) {
                    let is_wanted = fleet.is_none_or(|fleet| fleet == pair.0)
                        && device.is_none_or(|device| device == pair.1);
                    // Sorted by device: mostly the one before.
                    if is_wanted && last.replace(pair) != Some(pair) {
                        devices.insert((Arc::from(pair.0), Arc::from(pair.1)));
                    }
                }
            }
            Ok(())
        };
        read.await.map_err(failed)?;
    }
    Ok(devices)
}

fn near(batch: &RecordBatch, keep: impl Fn(i64, bool) -> bool) -> Result<BooleanArray, ArrowError> {
    let wrong = |what: &str| ArrowError::SchemaError(format!("{what} is of another type"));
    let column = |name| batch.column_by_name(name).ok_or_else(|| wrong(name));
    let times = column(column::EFFECTIVE_TIME)?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| wrong(column::EFFECTIVE_TIME))?;
    let flags = column(column::FLAGS)?
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| wrong(column::FLAGS))?;
    let rows = times.values().iter().zip(flags.values());
    let keep = rows.map(|(time, flags)| {
        let flags = Flags::from_bits(flags.cast_unsigned());
        Some(keep(*time, flags.contains(Flags::CLOCK_AHEAD)))
    });
    Ok(keep.collect())
}

fn text<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a StringArray, ArrowError> {
    let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| ArrowError::SchemaError(format!("{name} is no text")))
}

/// Names of gateways, each once.
#[derive(Default)]
struct Gateways(HashMap<Box<str>, Arc<str>>);

impl Gateways {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.0.insert(name.into(), Arc::clone(&shared));
        shared
    }
}

/// The columns of a batch by their types.
struct Columns<'a> {
    event_id: &'a FixedSizeBinaryArray,
    device: &'a StringArray,
    fleet: &'a StringArray,
    schema_version: &'a Int32Array,
    event_time: &'a TimestampMicrosecondArray,
    received_at: &'a TimestampMicrosecondArray,
    flags: &'a Int32Array,
    gateway: &'a StringArray,
    epoch: &'a Int64Array,
    seq: &'a Int64Array,
    metrics: &'a MapArray,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, ReadError> {
        fn get<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a dyn Array, ReadError> {
            batch.column_by_name(name).map(AsRef::as_ref).ok_or(ReadError::Column(name))
        }
        macro_rules! column {
            ($name:expr, $cast:ident $(::<$of:ty>)?) => {
                get(batch, $name)?.$cast$(::<$of>)?().ok_or(ReadError::Column($name))?
            };
        }
        Ok(Self {
            event_id: column!(column::EVENT_ID, as_fixed_size_binary_opt),
            device: column!(column::DEVICE_ID, as_string_opt::<i32>),
            fleet: column!(column::FLEET, as_string_opt::<i32>),
            schema_version: column!(column::SCHEMA_VERSION, as_primitive_opt::<Int32Type>),
            event_time: column!(column::EVENT_TIME, as_primitive_opt::<TimestampMicrosecondType>),
            received_at: column!(column::RECEIVED_AT, as_primitive_opt::<TimestampMicrosecondType>),
            flags: column!(column::FLAGS, as_primitive_opt::<Int32Type>),
            gateway: column!(column::GATEWAY, as_string_opt::<i32>),
            epoch: column!(column::EPOCH, as_primitive_opt::<Int64Type>),
            seq: column!(column::SEQ, as_primitive_opt::<Int64Type>),
            metrics: column!(column::METRICS, as_map_opt),
        })
    }

    fn copy(
        &self,
        row: usize,
        counted: &CountedMetrics,
        gateways: &mut Gateways,
    ) -> Result<StoredCopy, ReadError> {
        let id = <[u8; 16]>::try_from(self.event_id.value(row))
            .map_err(|_| ReadError::Column(column::EVENT_ID))?;
        let version = self.schema_version.value(row).cast_unsigned();
        let wrong = || ReadError::Column(column::METRICS);
        let entries = self.metrics.value(row);
        let names = entries.column(0).as_string_opt::<i32>().ok_or_else(wrong)?;
        let values = entries.column(1).as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
        let pairs = (0..entries.len()).filter_map(|entry| {
            Some((counted.metric(version, names.value(entry))?, values.value(entry)))
        });
        Ok(StoredCopy {
            event_id: u128::from_be_bytes(id),
            precedence: Precedence {
                received_at: self.received_at.value(row),
                gateway: gateways.get(self.gateway.value(row)),
                epoch: self.epoch.value(row),
                seq: self.seq.value(row),
            },
            event_time: self.event_time.value(row),
            flags: Flags::from_bits(self.flags.value(row).cast_unsigned()),
            metrics: pairs.collect(),
        })
    }
}
