//! Finding records in a segment's file, damaged or not. Shared by recovery and readers.

use std::io;

use crate::event::Epoch;

use super::disk::DiskFile;
use super::record::{self, RecordHeader};
use super::seal::KeyId;
use super::segment::{RECORDS_AT, SegmentHeader};

/// How much is searched at a time for the next valid record.
const CHUNK_BYTES: usize = 64 << 10;
/// What is passed over when it can't be read at all.
const SECTOR_BYTES: usize = 4 << 10;

/// How often a read is tried before what it asks for counts as damaged.
const READ_ATTEMPTS: usize = 3;

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

/// What a whole file holds.
#[derive(Clone, Debug)]
pub(super) struct Scanned {
    pub(super) epoch: Epoch,
    /// What its records are sealed with.
    pub(super) key: KeyId,
    pub(super) first_seq: u64,
    pub(super) next_seq: u64,
    /// Whether its first valid record is not where the first one stands.
    pub(super) is_beheaded: bool,
    /// Where its last valid record ends.
    pub(super) valid_bytes: u64,
    /// Offset and length of the last valid record.
    pub(super) last_record: Option<(u64, u64)>,
    /// Numbers missing between valid records: from, to.
    pub(super) damaged: Vec<(u64, u64)>,
}

impl Scanned {
    fn empty(epoch: Epoch, key: KeyId, first_seq: u64) -> Self {
        Self {
            epoch,
            key,
            first_seq,
            next_seq: first_seq,
            is_beheaded: false,
            valid_bytes: RECORDS_AT,
            last_record: None,
            damaged: Vec::new(),
        }
    }
}

/// Reads a whole file. Without a header its first valid record says what it holds; `None` if
/// there is none either.
pub(super) fn scan_file(
    file: &dyn DiskFile,
    file_bytes: u64,
    header: Option<SegmentHeader>,
) -> Option<Scanned> {
    let mut buf = Vec::new();
    let mut range = Scan {
        file,
        end: file_bytes,
        epoch: header.map(|header| header.epoch),
        seq_min: header.map_or(0, |header| header.first_seq),
    };
    let mut result = header.map(|head| Scanned::empty(head.epoch, head.key, head.first_seq));
    let mut at = RECORDS_AT;
    while at + record::HEADER_BYTES as u64 <= range.end {
        let valid = patiently(|| {
            let Some(header) = range.header_at(at)? else { return Ok(None) };
            Ok(range.body_at(at, &header, &mut buf)?.then_some(header))
        });
        let found = match valid {
            Ok(Some(header)) => Some((at, header)),
            _ => range.find(at, &mut buf),
        };
        let Some((place, header)) = found else { break };
        let begin = || Scanned::empty(header.epoch, header.key, header.first_seq);
        let scanned = result.get_or_insert_with(begin);
        scanned.is_beheaded |= at == RECORDS_AT && place > at;
        if header.first_seq > scanned.next_seq {
            scanned.damaged.push((scanned.next_seq, header.first_seq));
        }
        at = place + header.record_bytes();
        scanned.next_seq = header.next_seq();
        scanned.valid_bytes = at;
        scanned.last_record = Some((place, header.record_bytes()));
        range.epoch = Some(header.epoch);
        range.seq_min = header.next_seq();
    }
    result
}

/// Tries a read again: a passing error must not make good data count as damaged.
pub(super) fn patiently<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut result = read();
    for _ in 1..READ_ATTEMPTS {
        if result.is_ok() {
            break;
        }
        result = read();
    }
    result
}
