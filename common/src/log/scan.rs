//! Finding records in a segment's file, damaged or not. Shared by recovery and readers.

use std::io;

use crate::event::Epoch;

use super::disk::DiskFile;
use super::record::{self, RecordHeader};

/// How much is searched at a time for the next valid record.
const CHUNK_BYTES: usize = 64 << 10;
/// What is passed over when it can't be read at all.
const SECTOR_BYTES: usize = 4 << 10;

/// The part of a file in which records are looked for.
pub(super) struct Scan<'a> {
    pub(super) file: &'a dyn DiskFile,
    /// Where it ends.
    pub(super) end: u64,
    /// Only records of this epoch count, if it is known.
    pub(super) epoch: Option<Epoch>,
    /// Only records from this number on count.
    pub(super) seq_min: u64,
}

impl Scan<'_> {
    /// The header of the record at `at`; `None` if there is no valid one that fits.
    pub(super) fn header_at(&self, at: u64) -> io::Result<Option<RecordHeader>> {
        let mut bytes = [0; record::HEADER_BYTES];
        if at + record::HEADER_BYTES as u64 > self.end || self.file.read_at(at, &mut bytes)? < 48 {
            return Ok(None);
        }
        Ok(self.admit(at, &bytes))
    }

    fn admit(&self, at: u64, bytes: &[u8; record::HEADER_BYTES]) -> Option<RecordHeader> {
        RecordHeader::decode(bytes).ok().filter(|header| {
            at + header.record_bytes() <= self.end
                && header.first_seq >= self.seq_min
                && self.epoch.is_none_or(|epoch| epoch == header.epoch)
        })
    }

    /// Reads the body of the record at `at` into `buf`; false if it is damaged.
    pub(super) fn body_at(
        &self,
        at: u64,
        header: &RecordHeader,
        buf: &mut Vec<u8>,
    ) -> io::Result<bool> {
        buf.resize(header.body_bytes(), 0);
        let n = self.file.read_at(at + record::HEADER_BYTES as u64, buf)?;
        Ok(n == buf.len() && header.matches(buf))
    }

    /// The first valid record at or after `from`; its body is left in `buf`. What can't be read
    /// is passed over.
    pub(super) fn find(&self, from: u64, buf: &mut Vec<u8>) -> Option<(u64, RecordHeader)> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = from;
        while at + record::HEADER_BYTES as u64 <= self.end {
            let n = chunk.len().min(usize::try_from(self.end - at).unwrap_or(usize::MAX));
            self.read_leniently(at, &mut chunk[..n]);
            let windows = chunk[..n].windows(record::HEADER_BYTES);
            for (i, window) in windows.enumerate() {
                if window[..4] != record::MAGIC {
                    continue;
                }
                let Ok(bytes) = window.try_into() else { continue };
                let place = at + i as u64;
                if let Some(header) = self.admit(place, bytes)
                    && self.body_at(place, &header, buf).unwrap_or(false)
                {
                    return Some((place, header));
                }
            }
            // The next chunk begins with what could be the beginning of a header.
            at += (n - record::HEADER_BYTES + 1) as u64;
        }
        None
    }

    /// Reads with zeros in place of what can't be read.
    fn read_leniently(&self, at: u64, buf: &mut [u8]) {
        if matches!(self.file.read_at(at, buf), Ok(n) if n == buf.len()) {
            return;
        }
        let mut done = 0;
        while done < buf.len() {
            let n = SECTOR_BYTES.min(buf.len() - done);
            let sector = &mut buf[done..done + n];
            sector.fill(0);
            if self.file.read_at(at + done as u64, sector).is_err() {
                sector.fill(0);
            }
            done += n;
        }
    }
}
