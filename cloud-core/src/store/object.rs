//! The object store: a local directory (`file://`) or S3 and what speaks its protocol (`s3://`).

use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use serde::Deserialize;

use super::footers::Footers;
use super::s3::{S3Config, S3Encryption};

/// Where objects go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `file:///absolute/directory` or `s3://bucket/prefix`.
    pub url: String,
    /// For `s3://`.
    pub s3: S3Config,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { url: "file:///var/lib/penstock/objects".into(), s3: S3Config::default() }
    }
}

enum Location<'a> {
    Directory(&'a FsPath),
    S3 { bucket: &'a str, prefix: &'a str },
}

impl StoreConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        match self.location() {
            Err(problem) => problems.push(problem),
            Ok(Location::S3 { .. }) => self.s3.validate(problems),
            Ok(Location::Directory(_)) if self.s3.encryption != S3Encryption::Bucket => {
                problems.push(
                    "store.s3.encryption: store.url is a directory; encrypt its file system".into(),
                );
            }
            Ok(Location::Directory(_)) => {}
        }
    }

    fn location(&self) -> Result<Location<'_>, String> {
        let (file, s3) = (self.url.strip_prefix("file://"), self.url.strip_prefix("s3://"));
        match (file, s3) {
            (Some(dir), _) if FsPath::new(dir).is_absolute() => {
                Ok(Location::Directory(FsPath::new(dir)))
            }
            (_, Some(rest)) if !rest.is_empty() && !rest.starts_with('/') => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(Location::S3 { bucket, prefix: prefix.trim_end_matches('/') })
            }
            _ => Err(format!(
                "store.url {:?}: want file:///absolute/directory or s3://bucket/prefix",
                self.url
            )),
        }
    }
}

/// Why an object could not be written, read or deleted.
pub type ObjectError = object_store::Error;

/// A handle on the object store; clones share it.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    footers: Footers,
}

impl Objects {
    /// Opens the store; a directory is created.
    ///
    /// # Errors
    /// When the URL or the credentials can't be read, or the directory not be created.
    pub fn open(config: &StoreConfig) -> anyhow::Result<Self> {
        let store: Arc<dyn ObjectStore> = match config.location() {
            Err(problem) => bail!(problem),
            Ok(Location::Directory(dir)) => {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("create the directory {}", dir.display()))?;
                let store = LocalFileSystem::new_with_prefix(dir)
                    .with_context(|| format!("open the directory {}", dir.display()))?;
                // What is published must survive a power cut.
                Arc::new(store.with_fsync(true))
            }
            Ok(Location::S3 { bucket, prefix }) => {
                let store = config.s3.open(bucket).context("set up the S3 client")?;
                Arc::new(PrefixStore::new(store, Path::from(prefix)))
            }
        };
        Ok(Self { store, footers: Footers::default() })
    }

    /// Writes an object, in place of any that is there.
    ///
    /// # Errors
    /// When the store is away; whether the object is there is unknown then.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.store.put(&Path::from(path), PutPayload::from_bytes(bytes)).await?;
        Ok(())
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn delete(&self, path: &str) -> Result<(), ObjectError> {
        match self.store.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn exists(&self, path: &str) -> Result<bool, ObjectError> {
        match self.store.head(&Path::from(path)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a Parquet file piece by piece.
    pub fn parquet(&self, path: &str, size_bytes: u64) -> ParquetObject {
        let (store, footers) = (Arc::clone(&self.store), None);
        ParquetObject { store, path: Path::from(path), size_bytes, footers }
    }

    /// As [`Self::parquet`], for files that are read again and again: its footer, with the page
    /// indexes, is remembered.
    pub fn parquet_often(&self, path: &str, size_bytes: u64) -> ParquetObject {
        let footers = Some(self.footers.clone());
        ParquetObject { footers, ..self.parquet(path, size_bytes) }
    }
}

/// One request usually brings footer and page indexes: they are at the end of the file.
const FOOTER_BYTES_HINT: usize = 128 << 10;

/// A Parquet file in the object store.
pub struct ParquetObject {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size_bytes: u64,
    /// Where its footer is remembered.
    footers: Option<Footers>,
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for ParquetObject {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let (footers, size_bytes) = (self.footers.clone(), self.size_bytes);
            if let Some(known) = footers.as_ref().and_then(|all| all.get(self.path.as_ref())) {
                return Ok(known);
            }
            let mut reader = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_prefetch_hint(Some(FOOTER_BYTES_HINT));
            if footers.is_some() {
                // Whoever comes next may want them.
                reader = reader.with_page_index_policy(PageIndexPolicy::Optional);
            }
            let path = self.path.clone();
            let metadata = Arc::new(reader.load_and_finish(self, size_bytes).await?);
            if let Some(footers) = footers {
                footers.put(path.as_ref(), &metadata);
            }
            Ok(metadata)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(url: &str) -> usize {
        let mut problems = Vec::new();
        StoreConfig { url: url.into(), ..StoreConfig::default() }.validate(&mut problems);
        problems.len()
    }

    #[test]
    fn urls_are_checked() {
        for good in ["file:///tmp/x", "s3://bucket", "s3://bucket/a/b/"] {
            assert_eq!(problems(good), 0, "{good}");
        }
        for bad in ["", "/tmp/x", "file://x", "s3://", "s3:///x", "gs://bucket"] {
            assert_eq!(problems(bad), 1, "{bad}");
        }
    }

    #[test]
    fn a_directory_is_not_encrypted_by_s3() {
        let s3 = S3Config { encryption: S3Encryption::SseS3, ..S3Config::default() };
        let mut problems = Vec::new();
        StoreConfig { s3, ..StoreConfig::default() }.validate(&mut problems);
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[tokio::test]
    async fn a_directory_keeps_objects() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/objects", dir.path().display());
        let store = Objects::open(&StoreConfig { url, ..StoreConfig::default() }).unwrap();
        assert!(!store.exists("a/b").await.unwrap());
        store.put("a/b", Bytes::from_static(b"x")).await.unwrap();
        assert!(store.exists("a/b").await.unwrap());
        assert!(dir.path().join("objects/a/b").is_file());
        store.delete("a/b").await.unwrap();
        store.delete("a/b").await.unwrap();
        assert!(!store.exists("a/b").await.unwrap());
    }
}
