//! Footers of Parquet files in memory, page indexes included: a file never changes, and who asks
//! for one device's hour will ask for another's. Saves a request to the object store and the
//! decoding, which together take longer than reading the rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parquet::file::metadata::ParquetMetaData;

/// Bytes of footers kept at most; those that were not used for longest go. A file of two million
/// rows has some two megabytes.
const BYTES_MAX: usize = 128 << 20;

/// What is remembered; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Footers {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    bytes_max: usize,
    bytes: usize,
    /// Counts uses.
    now: u64,
    by_path: HashMap<Arc<str>, Footer>,
    by_use: BTreeMap<u64, Arc<str>>,
}

#[derive(Debug)]
struct Footer {
    metadata: Arc<ParquetMetaData>,
    bytes: usize,
    used: u64,
}

impl Default for Footers {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl Footers {
    fn new(bytes_max: usize) -> Self {
        let (by_path, by_use) = (HashMap::new(), BTreeMap::new());
        let kept = Kept { bytes_max, bytes: 0, now: 0, by_path, by_use };
        Self { kept: Arc::new(Mutex::new(kept)) }
    }

    /// The footer of a file, if it is remembered.
    pub(super) fn get(&self, path: &str) -> Option<Arc<ParquetMetaData>> {
        let mut kept = self.lock();
        kept.now += 1;
        let now = kept.now;
        let footer = kept.by_path.get_mut(path)?;
        let before = std::mem::replace(&mut footer.used, now);
        let metadata = Arc::clone(&footer.metadata);
        if let Some(path) = kept.by_use.remove(&before) {
            kept.by_use.insert(now, path);
        }
        Some(metadata)
    }

    /// Remembers one.
    pub(super) fn put(&self, path: &str, metadata: &Arc<ParquetMetaData>) {
        let bytes = metadata.memory_size();
        let mut kept = self.lock();
        if bytes > kept.bytes_max || kept.by_path.contains_key(path) {
            return;
        }
        kept.now += 1;
        let (path, used): (Arc<str>, u64) = (path.into(), kept.now);
        kept.bytes += bytes;
        kept.by_use.insert(used, Arc::clone(&path));
        kept.by_path.insert(path, Footer { metadata: Arc::clone(metadata), bytes, used });
        while kept.bytes > kept.bytes_max {
            let Some((_, oldest)) = kept.by_use.pop_first() else { break };
            if let Some(footer) = kept.by_path.remove(&oldest) {
                kept.bytes -= footer.bytes;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use parquet::basic::Type as PhysicalType;
    use parquet::file::metadata::FileMetaData;
    use parquet::schema::types::{SchemaDescriptor, Type};

    use super::*;

    fn footer() -> Arc<ParquetMetaData> {
        let column = Type::primitive_type_builder("a", PhysicalType::INT32).build().unwrap();
        let group = Type::group_type_builder("s").with_fields(vec![Arc::new(column)]).build();
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(group.unwrap())));
        let file = FileMetaData::new(1, 0, None, None, schema, None);
        Arc::new(ParquetMetaData::new(file, Vec::new()))
    }

    #[test]
    fn those_not_used_for_longest_go_first() {
        let one = footer();
        let footers = Footers::new(one.memory_size() * 5 / 2);
        footers.put("a", &one);
        footers.put("b", &one);
        assert!(footers.get("a").is_some());
        footers.put("c", &one);
        let there = ["a", "b", "c"].map(|path| footers.get(path).is_some());
        assert_eq!(there, [true, false, true]);
        footers.put("a", &one);
        let kept = footers.lock();
        assert_eq!(kept.bytes, 2 * one.memory_size());
        assert_eq!((kept.by_path.len(), kept.by_use.len()), (2, 2));
    }

    #[test]
    fn one_that_is_too_large_is_not_kept() {
        let one = footer();
        let footers = Footers::new(one.memory_size() - 1);
        footers.put("a", &one);
        assert!(footers.get("a").is_none());
        assert_eq!(footers.lock().bytes, 0);
    }
}
