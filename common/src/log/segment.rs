//! The segment: a file of records of one epoch, all sealed with one key or none.
//!
//! Its name is `{ordinal:016x}.seg`; ordinals ascend and are never used twice. It begins with a
//! header of 96 bytes, little-endian; records follow without gaps. A file holds at most one
//! segment's worth of records ([`super::LogConfig::segment_bytes`]) and one record more.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `PNSTKSEG` |
//! | 8 | 2 | format version: 2; 1 is read too |
//! | 10 | 2 | zero |
//! | 12 | 4 | key id of all its records ([`super::seal`]); 0 = not sealed, as in version 1 |
//! | 16 | 8 | ordinal, as in the name |
//! | 24 | 8 | epoch of all its records |
//! | 32 | 8 | number of its first entry |
//! | 40 | 8 | ordinal of the segment before it; 0 = there is none |
//! | 48 | 8 | epoch of the segment before it |
//! | 56 | 8 | the number after that segment's last entry |
//! | 64 | 8 | that segment's valid length: what stands behind it does not count |
//! | 72 | 20 | zero |
//! | 92 | 4 | CRC-32C of the 92 bytes before |
//!
//! The header, and the file's name, are synced before the first record is written. So every
//! segment is closed by its successor, which says where it ended. A file that no successor names
//! and that is not the newest is what remains of a failed attempt: nothing in it was
//! acknowledged.
//!
//! # Versions
//! A program writes the newest version it knows and reads all earlier ones, so an upgrade needs
//! nothing. Every version keeps magic, version, length and checksum of the header where they are:
//! a program that was rolled back knows a later segment for what it is, sets it aside as
//! `*.locked` like one whose key is missing, and takes it up again after the next upgrade.

use crate::event::Epoch;

use super::record::{u32_at, u64_at};
use super::seal::KeyId;

/// Length of a segment's header.
pub const HEADER_BYTES: usize = 96;
/// Where the first record begins.
pub const RECORDS_AT: u64 = HEADER_BYTES as u64;

const MAGIC: [u8; 8] = *b"PNSTKSEG";
const VERSION: u16 = 2;
const SUFFIX: &str = ".seg";
/// What a quarantined file's name ends with.
const DAMAGED_SUFFIX: &str = ".damaged";
/// What the name of a file ends with that can't be read yet.
const LOCKED_SUFFIX: &str = ".locked";

/// Where a segment ended, as its successor declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Its ordinal; never 0.
    pub ordinal: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// The number after its last entry's.
    pub next_seq: u64,
    /// How many of its bytes count.
    pub valid_bytes: u64,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its place among the segments; never 0.
    pub ordinal: u64,
    /// The epoch of all its records.
    pub epoch: Epoch,
    /// The number of its first entry.
    pub first_seq: u64,
    /// What its records are sealed with.
    pub key: KeyId,
    /// The segment before it.
    pub previous: Option<SegmentEnd>,
}

/// Why a file has no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// It is damaged or of something else.
    Damaged,
    /// It is of a later format.
    Version(u16),
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.key.0.to_le_bytes());
        let mut put = |at: usize, value: u64| out[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(16, self.ordinal);
        put(24, self.epoch.0);
        put(32, self.first_seq);
        if let Some(previous) = &self.previous {
            put(40, previous.ordinal);
            put(48, previous.epoch.0);
            put(56, previous.next_seq);
            put(64, previous.valid_bytes);
        }
        let crc = crc32c::crc32c(&out[..92]);
        out[92..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of the file with this ordinal.
    ///
    /// # Errors
    /// When it is damaged, of another file, or of a later format.
    pub fn decode(bytes: &[u8; HEADER_BYTES], ordinal: u64) -> Result<Self, HeaderError> {
        let crc = crc32c::crc32c(&bytes[..92]).to_le_bytes();
        if bytes[..8] != MAGIC || bytes[92..] != crc {
            return Err(HeaderError::Damaged);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version > VERSION {
            return Err(HeaderError::Version(version));
        }
        let previous = SegmentEnd {
            ordinal: u64_at(bytes, 40),
            epoch: Epoch(u64_at(bytes, 48)),
            next_seq: u64_at(bytes, 56),
            valid_bytes: u64_at(bytes, 64),
        };
        let header = Self {
            ordinal: u64_at(bytes, 16),
            epoch: Epoch(u64_at(bytes, 24)),
            first_seq: u64_at(bytes, 32),
            key: KeyId(u32_at(bytes, 12)),
            previous: (previous.ordinal != 0).then_some(previous),
        };
        let is_of_this_file = header.ordinal == ordinal && previous.ordinal < ordinal;
        if version == 0 || !is_of_this_file { Err(HeaderError::Damaged) } else { Ok(header) }
    }
}

/// The file name of a segment.
pub fn file_name(ordinal: u64) -> String {
    format!("{ordinal:016x}{SUFFIX}")
}

/// The file name of a quarantined segment.
pub fn damaged_name(ordinal: u64) -> String {
    file_name(ordinal) + DAMAGED_SUFFIX
}

/// The file name of a segment that can't be read yet: its key is missing, or its format is later.
pub fn locked_name(ordinal: u64) -> String {
    file_name(ordinal) + LOCKED_SUFFIX
}

/// The name of a segment's file of this kind.
pub fn name_of(ordinal: u64, kind: FileKind) -> String {
    match kind {
        FileKind::Segment => file_name(ordinal),
        FileKind::Damaged => damaged_name(ordinal),
        FileKind::Locked => locked_name(ordinal),
    }
}

/// What a file of the log's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A segment.
    Segment,
    /// A quarantined segment.
    Damaged,
    /// A segment that can't be read yet.
    Locked,
}

/// The ordinal and kind of a file by its name; `None` if it is none of the log's.
pub fn parse_name(name: &str) -> Option<(u64, FileKind)> {
    let kinds = [(DAMAGED_SUFFIX, FileKind::Damaged), (LOCKED_SUFFIX, FileKind::Locked)];
    let set_aside =
        kinds.iter().find_map(|(suffix, kind)| Some((name.strip_suffix(suffix)?, *kind)));
    let (stem, kind) = set_aside.unwrap_or((name, FileKind::Segment));
    let digits = stem.strip_suffix(SUFFIX)?;
    let ordinal = u64::from_str_radix(digits, 16).ok()?;
    (ordinal != 0 && file_name(ordinal) == stem).then_some((ordinal, kind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> impl Strategy<Value = SegmentHeader> {
        (2..u64::MAX, any::<(u64, u64, u32)>(), any::<Option<(u64, u64, u64)>>()).prop_map(
            |(ordinal, (epoch, first_seq, key), previous)| SegmentHeader {
                ordinal,
                epoch: Epoch(epoch),
                first_seq,
                key: KeyId(key),
                previous: previous.map(|(epoch, next_seq, valid_bytes)| SegmentEnd {
                    ordinal: 1 + epoch % (ordinal - 1),
                    epoch: Epoch(epoch),
                    next_seq,
                    valid_bytes,
                }),
            },
        )
    }

    fn with_version(header: &SegmentHeader, version: u16) -> [u8; HEADER_BYTES] {
        let mut bytes = header.encode();
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..92]);
        bytes[92..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn headers_round_trip_and_no_flipped_bit_passes(header in header(), bit in 0..768usize) {
            let mut bytes = header.encode();
            let damaged = Err(HeaderError::Damaged);
            prop_assert_eq!(SegmentHeader::decode(&bytes, header.ordinal), Ok(header));
            prop_assert_eq!(SegmentHeader::decode(&bytes, header.ordinal ^ 1), damaged);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(SegmentHeader::decode(&bytes, header.ordinal), damaged);
        }

        #[test]
        fn earlier_versions_are_read_and_later_ones_known(header in header()) {
            let header = SegmentHeader { key: KeyId::NONE, ..header };
            let decode = |version| {
                SegmentHeader::decode(&with_version(&header, version), header.ordinal)
            };
            prop_assert_eq!(decode(0), Err(HeaderError::Damaged));
            prop_assert_eq!(decode(1), Ok(header));
            prop_assert_eq!(decode(3), Err(HeaderError::Version(3)));
        }

        #[test]
        fn names_round_trip(ordinal in 1..u64::MAX) {
            let parsed = |kind| Some((ordinal, kind));
            prop_assert_eq!(parse_name(&file_name(ordinal)), parsed(FileKind::Segment));
            prop_assert_eq!(parse_name(&damaged_name(ordinal)), parsed(FileKind::Damaged));
            prop_assert_eq!(parse_name(&locked_name(ordinal)), parsed(FileKind::Locked));
        }
    }

    #[test]
    fn other_names_are_not_the_logs() {
        for name in ["LOCK", "0000000000000000.seg", "1.seg", "000000000000000A.seg", "x.damaged"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
