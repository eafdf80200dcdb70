//! The snapshot's file: read within a bound, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{BYTES_MAX, Decoded, Snapshot, SnapshotError};

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot {}: {problem}", .path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The system refused.
    #[error("{0}")]
    System(#[from] io::Error),
    /// What is in it.
    #[error(transparent)]
    Content(#[from] SnapshotError),
}

impl FileError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(&self.problem, Problem::System(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a file; its bytes come along, for whoever keeps a copy.
///
/// # Errors
/// With the file and what is wrong.
pub fn read(path: &Path) -> Result<(Decoded, Vec<u8>), FileError> {
    let read = || -> Result<_, Problem> {
        let mut bytes = Vec::new();
        File::open(path)?.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok((Snapshot::decode(&bytes)?, bytes))
    };
    read().map_err(|problem| FileError { path: path.to_owned(), problem })
}

/// Writes a file beside the old one, syncs it, and puts it in its place: a reader sees the old
/// one or the new one, after a power cut too. Others than its owner and group can't read it.
///
/// # Errors
/// With the file and what the system said; the old one is still there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let partial = beside(path);
    let written = write_beside(&partial, path, bytes);
    if written.is_err() {
        // Whether or not it is there: the error is told already.
        let _ = fs::remove_file(&partial);
    }
    written.map_err(|error| FileError { path: path.to_owned(), problem: error.into() })
}

fn write_beside(partial: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().create_new(true).write(true).mode(0o640).open(partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(partial, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

/// A name of our own, so that two writers do not write into one file.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:08x}.partial", rand::random::<u32>()));
    path.with_file_name(name)
}
