//! Which events the raw store has, by identity: for the dead letters, not for people.
//!
//! Events are sought by the hour of their time. Few devices of an hour are found by pages, as a
//! query does; for many the ids of whole files are read once, which costs 16 bytes a row.
//!
//! A copy whose device clock was ahead lies at its received time. It is found up to
//! [`AHEAD_MAX_MICROS`] before the event's own time, not beyond.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::RowFilter;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use uuid::Uuid;

use super::page::FILES_AT_ONCE;
use super::row::{ReadError, Rows};
use super::scan::{self, Scan};
use super::{Queries, QueryError};
use crate::raw::batch::hour_of;
use crate::raw::schema::column;
use crate::store::catalog::FileEntry;
use crate::store::object::Objects;

/// So far before an event's time its clock-ahead copies are looked for: a day.
pub const AHEAD_MAX_MICROS: i64 = 86_400 * 1_000_000;
/// Up to so many devices an hour are looked for one by one.
const DEVICES_APART_MAX: usize = 32;

/// An event that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Its fleet.
    pub fleet: Arc<str>,
    /// Its device.
    pub device: Arc<str>,
    /// Its id.
    pub event_id: Uuid,
    /// Its own time, µs.
    pub event_time: i64,
}

type Identity = (Arc<str>, Arc<str>, u128);

impl Sought {
    fn identity(&self) -> Identity {
        (Arc::clone(&self.fleet), Arc::clone(&self.device), self.event_id.as_u128())
    }
}

impl Queries {
    /// Says of each event whether the raw store has a copy.
    ///
    /// # Errors
    /// When a store is away or a file is damaged.
    pub async fn stored(&self, sought: &[Sought]) -> Result<Vec<bool>, QueryError> {
        let as_of = self.catalog.head().await?;
        let mut hours: BTreeMap<i64, Vec<&Sought>> = BTreeMap::new();
        for one in sought {
            hours.entry(hour_of(one.event_time)).or_default().push(one);
        }
        let mut found = HashSet::new();
        for of_hour in hours.into_values() {
            let times = of_hour.iter().map(|one| one.event_time);
            let (Some(from), Some(last)) = (times.clone().min(), times.max()) else { continue };
            let to = last.saturating_add(1);
            let mut files = self.catalog.files_for(from, to, as_of).await?;
            let earliest = from.saturating_sub(AHEAD_MAX_MICROS);
            files.retain(|file| file.max_effective >= earliest);
            let search = Search { from, to, of_hour: &of_hour, found: Mutex::default() };
            stream::iter(files)
                .map(|file| search.file(&self.objects, file))
                .buffer_unordered(FILES_AT_ONCE)
                .try_collect::<()>()
                .await?;
            found.extend(search.found.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(sought.iter().map(|one| found.contains(&one.identity())).collect())
    }
}

/// One hour's events.
struct Search<'a> {
    from: i64,
    to: i64,
    of_hour: &'a [&'a Sought],
    found: Mutex<HashSet<Identity>>,
}

impl Search<'_> {
    async fn file(&self, objects: &Objects, file: FileEntry) -> Result<(), QueryError> {
        let missing = self.missing();
        let devices: BTreeSet<&Arc<str>> = missing.iter().map(|one| &one.device).collect();
        let searched = async {
            if devices.len() > DEVICES_APART_MAX {
                return self.whole(objects, &file, &missing).await;
            }
            for device in devices {
                self.device(objects, &file, device, &missing).await?;
            }
            Ok(())
        };
        searched.await.map_err(|source| QueryError::File { path: file.path.clone(), source })
    }

    /// Those that no file read so far has.
    fn missing(&self) -> Vec<&Sought> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        self.of_hour.iter().copied().filter(|one| !found.contains(&one.identity())).collect()
    }

    fn note(&self, identity: Identity) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(identity);
    }

    async fn device(
        &self,
        objects: &Objects,
        file: &FileEntry,
        device: &Arc<str>,
        missing: &[&Sought],
    ) -> Result<(), ReadError> {
        let of_device = missing.iter().filter(|one| one.device == *device);
        let ids = of_device.map(|one| one.event_id.as_u128()).collect();
        let scan = Scan {
            device: Arc::clone(device),
            fleet: None,
            from: self.from,
            to: self.to,
            copies_of: Some(Arc::new(ids)),
        };
        let Some(mut batches) = scan::open(objects, file, &scan).await? else { return Ok(()) };
        while let Some(batch) = batches.try_next().await? {
            let rows = Rows(&batch);
            for row in 0..rows.len() {
                let ((event_id, fleet), _) = rows.copy(row)?;
                self.note((fleet, Arc::clone(device), event_id));
            }
        }
        Ok(())
    }

    async fn whole(
        &self,
        objects: &Objects,
        file: &FileEntry,
        missing: &[&Sought],
    ) -> Result<(), ReadError> {
        let ids: HashSet<u128> = missing.iter().map(|one| one.event_id.as_u128()).collect();
        let object = objects.parquet(&file.path, file.bytes.unsigned_abs());
        let builder = ParquetRecordBatchStreamBuilder::new(object).await?;
        let filter = scan::has_id(builder.parquet_schema(), Arc::new(ids));
        let names = [column::EVENT_ID, column::DEVICE_ID, column::FLEET];
        let columns = ProjectionMask::columns(builder.parquet_schema(), names);
        let mut batches = builder
            .with_projection(columns)
            .with_row_filter(RowFilter::new(vec![filter]))
            .build()?;
        while let Some(batch) = batches.try_next().await? {
            let text = |name| {
                let column = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
                column.ok_or(ReadError::Column(name))
            };
            let (devices, fleets) = (text(column::DEVICE_ID)?, text(column::FLEET)?);
            for row in 0..batch.num_rows() {
                let event_id = Rows(&batch).event_id(row)?;
                self.note((fleets.value(row).into(), devices.value(row).into(), event_id));
            }
        }
        Ok(())
    }
}
