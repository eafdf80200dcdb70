//! One page from a list of files.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};

use super::keep::{Keep, Verifier};
use super::row::{Key, ReadError, Rows, StoredEvent};
use super::scan::{Scan, open};
use super::{QueryError, RawQuery};
use crate::store::catalog::FileEntry;
use crate::store::object::Objects;

/// A page ends early when its events are this large.
pub const PAGE_BYTES_MAX: usize = 16 << 20;
/// Files read at the same time for one request.
pub const FILES_AT_ONCE: usize = 8;

/// Reads a page; also says whether there is more after it.
///
/// `files` are all that can hold an event of the window, and all that can hold a clock-ahead copy
/// before its end (`Catalog::files_for`), by least time.
///
/// # Errors
/// When a file can't be read.
pub async fn read(
    objects: &Objects,
    files: &[FileEntry],
    query: &RawQuery,
) -> Result<(Vec<StoredEvent>, bool), QueryError> {
    let reader = Reader { objects, files, query };
    let mut events: Vec<StoredEvent> = Vec::new();
    let mut after = query.cursor.as_ref().map(|cursor| cursor.after.clone());
    loop {
        let wanted = query.limit + 1 - events.len();
        let (mut found, more, all_seen) = reader.least(after.as_ref(), wanted).await?;
        let last = found.last().map(StoredEvent::key);
        reader.drop_beaten(&mut found, all_seen).await?;
        events.append(&mut found);
        if events.len() > query.limit {
            events.truncate(query.limit);
            return Ok((events, true));
        }
        let bytes: usize = events.iter().map(StoredEvent::size_bytes).sum();
        match last {
            Some(last) if more && (events.is_empty() || bytes < PAGE_BYTES_MAX / 2) => {
                after = Some(last);
            }
            _ => return Ok((events, more)),
        }
    }
}

struct Reader<'a> {
    objects: &'a Objects,
    files: &'a [FileEntry],
    query: &'a RawQuery,
}

/// The events, whether there are more, and whether every copy in the window has been seen.
type Least = (Vec<StoredEvent>, bool, bool);

impl Reader<'_> {
    /// The least events of the window after a key.
    async fn least(&self, after: Option<&Key>, wanted: usize) -> Result<Least, QueryError> {
        let from = after.map_or(self.query.from, |after| after.effective_time);
        let scan = self.scan(from, None);
        let collect = Collect {
            keep: Mutex::new(Keep::new(wanted, PAGE_BYTES_MAX)),
            passed_over: Mutex::new(after.is_some()),
            after,
            metric: self.query.metric.as_deref(),
        };
        let overlapping =
            |file: &&FileEntry| file.max_effective >= scan.from && file.min_effective < scan.to;
        let files: Vec<FileEntry> = self.files.iter().filter(overlapping).cloned().collect();
        stream::iter(files)
            .map(|file| collect.file(self.objects, file, &scan))
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let passed_over = collect.passed_over.into_inner().unwrap_or_else(PoisonError::into_inner);
        let keep = collect.keep.into_inner().unwrap_or_else(PoisonError::into_inner);
        let more = keep.overflowed();
        Ok((keep.into_events(), more, !more && !passed_over))
    }

    /// Removes events of which a better copy is somewhere that `least` did not look.
    async fn drop_beaten(
        &self,
        events: &mut Vec<StoredEvent>,
        all_seen: bool,
    ) -> Result<(), QueryError> {
        let can_beat = |file: &&FileEntry| {
            let in_window =
                file.max_effective >= self.query.from && file.min_effective < self.query.to;
            file.clock_ahead_count > 0 || (in_window && !all_seen)
        };
        if events.is_empty() || !self.files.iter().any(|file| can_beat(&file)) {
            return Ok(());
        }
        let verifier = Verifier::new(events);
        let scan = self.scan(self.query.from, Some(Arc::new(verifier.ids())));
        let verifier = Mutex::new(verifier);
        let files: Vec<FileEntry> = self.files.iter().filter(can_beat).cloned().collect();
        stream::iter(files)
            .map(|file| verify(self.objects, file, &scan, &verifier))
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        lock(&verifier).canonical(events);
        Ok(())
    }

    fn scan(&self, from: i64, copies_of: Option<Arc<HashSet<u128>>>) -> Scan {
        Scan {
            device: self.query.device.as_str().into(),
            fleet: self.query.fleet.as_deref().map(Arc::from),
            from,
            to: self.query.to,
            copies_of,
        }
    }
}

/// Gathers the least events from several files.
struct Collect<'a> {
    keep: Mutex<Keep>,
    /// Whether a copy in the window was not offered to `keep`.
    passed_over: Mutex<bool>,
    after: Option<&'a Key>,
    metric: Option<&'a str>,
}

impl Collect<'_> {
    async fn file(
        &self,
        objects: &Objects,
        file: FileEntry,
        scan: &Scan,
    ) -> Result<(), QueryError> {
        let read = async {
            if self.is_above(file.min_effective) {
                return Ok(());
            }
            let Some(mut batches) = open(objects, &file, scan).await? else { return Ok(()) };
            while let Some(batch) = batches.try_next().await? {
                if !self.batch(&Rows(&batch))? {
                    break;
                }
            }
            Ok(())
        };
        read.await.map_err(|source| failed(&file, source))
    }

    /// Whether everything from this time on is beyond what can be kept; noted as more to come.
    fn is_above(&self, time: i64) -> bool {
        let mut keep = lock(&self.keep);
        let above = keep.ceiling().is_some_and(|ceiling| time > ceiling.effective_time);
        if above {
            keep.note_overflow();
        }
        above
    }

    /// Offers the rows of a batch; `false` when the rest of the file is above the ceiling.
    fn batch(&self, rows: &Rows<'_>) -> Result<bool, ReadError> {
        let mut keep = lock(&self.keep);
        for row in 0..rows.len() {
            let key = rows.key(row)?;
            if self.after.is_some_and(|after| key <= *after) {
                continue;
            }
            let event = rows.event(row)?;
            let has = |metric| event.metrics.iter().any(|(name, _)| name == metric);
            if self.metric.is_some_and(|metric| !has(metric)) {
                *lock(&self.passed_over) = true;
                continue;
            }
            if keep.ceiling().is_some_and(|ceiling| key > *ceiling) {
                keep.note_overflow();
                return Ok(false);
            }
            keep.offer(event);
        }
        Ok(true)
    }
}

async fn verify(
    objects: &Objects,
    file: FileEntry,
    scan: &Scan,
    verifier: &Mutex<Verifier>,
) -> Result<(), QueryError> {
    let read = async {
        let Some(mut batches) = open(objects, &file, scan).await? else { return Ok(()) };
        while let Some(batch) = batches.try_next().await? {
            let rows = Rows(&batch);
            for row in 0..rows.len() {
                let (identity, precedence) = rows.copy(row)?;
                lock(verifier).see(identity, &precedence);
            }
        }
        Ok(())
    };
    read.await.map_err(|source| failed(&file, source))
}

fn failed(file: &FileEntry, source: ReadError) -> QueryError {
    QueryError::File { path: file.path.clone(), source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
