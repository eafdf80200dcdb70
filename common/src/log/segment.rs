//! The segment: a file of records of one epoch.
//!
//! Its name is `{ordinal:016x}.seg`; ordinals ascend and are never used twice. It begins with a
//! header of 96 bytes, little-endian; records follow without gaps. A file holds at most one
//! segment's worth of records ([`super::LogConfig::segment_bytes`]) and one record more.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `PNSTKSEG` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 6 | zero |
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

use crate::event::Epoch;

use super::record::u64_at;

/// Length of a segment's header.
pub const HEADER_BYTES: usize = 96;
/// Where the first record begins.
pub const RECORDS_AT: u64 = HEADER_BYTES as u64;

const MAGIC: [u8; 8] = *b"PNSTKSEG";
const VERSION: u8 = 1;
const SUFFIX: &str = ".seg";
/// What a quarantined file's name ends with.
const DAMAGED_SUFFIX: &str = ".damaged";

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
    /// The segment before it.
    pub previous: Option<SegmentEnd>,
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8] = VERSION;
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

    /// Reads the header of the file with this ordinal; `None` when it is damaged or not of this
    /// format.
    pub fn decode(bytes: &[u8; HEADER_BYTES], ordinal: u64) -> Option<Self> {
        let crc = crc32c::crc32c(&bytes[..92]).to_le_bytes();
        if bytes[..8] != MAGIC || bytes[8..10] != [VERSION, 0] || bytes[92..] != crc {
            return None;
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
            previous: (previous.ordinal != 0).then_some(previous),
        };
        (header.ordinal == ordinal && previous.ordinal < ordinal).then_some(header)
    }
}

/// The file name of a segment.
pub fn file_name(ordinal: u64) -> String {
    format!("{ordinal:016x}{SUFFIX}")
}

/// The file name of a quarantined segment.
pub fn damaged_name(ordinal: u64) -> String {
    format!("{ordinal:016x}{SUFFIX}{DAMAGED_SUFFIX}")
}

/// What a file of the log's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment.
    Segment(u64),
    /// A quarantined segment.
    Damaged(u64),
}

/// What a file is by its name; `None` if it is none of the log's.
pub fn parse_name(name: &str) -> Option<FileKind> {
    let (stem, damaged) = match name.strip_suffix(DAMAGED_SUFFIX) {
        Some(stem) => (stem, true),
        None => (name, false),
    };
    let digits = stem.strip_suffix(SUFFIX)?;
    let ordinal = u64::from_str_radix(digits, 16).ok()?;
    if digits.len() != 16 || ordinal == 0 || file_name(ordinal) != stem {
        return None;
    }
    Some(if damaged { FileKind::Damaged(ordinal) } else { FileKind::Segment(ordinal) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> impl Strategy<Value = SegmentHeader> {
        (2..u64::MAX, any::<u64>(), any::<u64>(), any::<Option<(u64, u64, u64)>>()).prop_map(
            |(ordinal, epoch, first_seq, previous)| SegmentHeader {
                ordinal,
                epoch: Epoch(epoch),
                first_seq,
                previous: previous.map(|(epoch, next_seq, valid_bytes)| SegmentEnd {
                    ordinal: 1 + epoch % (ordinal - 1),
                    epoch: Epoch(epoch),
                    next_seq,
                    valid_bytes,
                }),
            },
        )
    }

    proptest! {
        #[test]
        fn headers_round_trip_and_no_flipped_bit_passes(header in header(), bit in 0..768usize) {
            let mut bytes = header.encode();
            prop_assert_eq!(SegmentHeader::decode(&bytes, header.ordinal), Some(header));
            prop_assert_eq!(SegmentHeader::decode(&bytes, header.ordinal ^ 1), None);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(SegmentHeader::decode(&bytes, header.ordinal), None);
        }

        #[test]
        fn names_round_trip(ordinal in 1..u64::MAX) {
            prop_assert_eq!(parse_name(&file_name(ordinal)), Some(FileKind::Segment(ordinal)));
            prop_assert_eq!(parse_name(&damaged_name(ordinal)), Some(FileKind::Damaged(ordinal)));
        }
    }

    #[test]
    fn other_names_are_not_the_logs() {
        for name in ["LOCK", "0000000000000000.seg", "1.seg", "000000000000000A.seg", "x.damaged"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
