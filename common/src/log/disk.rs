//! The few things the log asks of a disk, so that a simulated twin can stand in for it.
//!
//! A disk is one flat directory of named files. What every implementation promises, and what the
//! contract tests check on each of them:
//!
//! - A successful [`DiskFile::sync`] makes every earlier successful write to that file durable,
//!   with the length needed to read it, but says nothing about the file's name.
//! - A successful [`Disk::sync_dir`] makes every earlier creation, removal and rename durable.
//! - Nothing else is durable. After a crash, unsynced pieces of a file and unsynced names are
//!   each kept or lost on their own, in any combination.
//! - After a failed sync the affected pieces are in an unknown state, and a later successful sync
//!   says nothing about them (as on Linux): only writing them again does.
//! - A failed write may have written any part of its bytes.

use std::io;

/// One directory of files.
pub trait Disk: Send + Sync {
    /// Creates an empty file; it must not exist.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the disk says.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or what the disk says.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Makes creations, removals and renames durable.
    ///
    /// # Errors
    /// With what the disk says; the state of those names is then unknown.
    fn sync_dir(&self) -> io::Result<()>;

    /// The names of all files, in no particular order.
    ///
    /// # Errors
    /// With what the disk says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Removes a file. Open handles go on reading it.
    ///
    /// # Errors
    /// `NotFound`, or what the disk says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, replacing a file of that name.
    ///
    /// # Errors
    /// `NotFound`, or what the disk says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// With what the disk says.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`; the file grows as needed.
    ///
    /// # Errors
    /// With what the disk says; any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable (`fdatasync`).
    ///
    /// # Errors
    /// With what the disk says. It must not be repeated: see the module's promises.
    fn sync(&self) -> io::Result<()>;

    /// Reads from `offset` until `buf` is full or the file ends; returns how many bytes it read.
    ///
    /// # Errors
    /// With what the disk says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// The file's length.
    ///
    /// # Errors
    /// With what the disk says.
    fn length(&self) -> io::Result<u64>;
}

/// Whether an error says that data is gone, rather than that the process could not ask for it.
pub(super) fn speaks_of_the_data(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // ext4 and xfs report their own damage as UCLEAN, file systems with checksums as BADMSG.
    let codes = [Errno::IO, Errno::UCLEAN, Errno::BADMSG].map(|errno| Some(errno.raw_os_error()));
    codes.contains(&error.raw_os_error())
        || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests;
