//! The segment: a file of records of one epoch, all sealed with one key or none.
//!
//! Its name is `{ordinal:016x}.seg`, or `.dead` in the dead lane; ordinals ascend and are never
//! used twice, but a segment keeps its own when it moves to the other lane. It begins with a
//! header of 96 bytes, little-endian; records follow without gaps. A file holds at most one
//! segment's worth of records ([`super::LogConfig::segment_bytes`]) and one record more.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `PNSTKSEG` |
//! | 8 | 2 | format version: 2; 1 is read too |
//! | 10 | 1 | origin: 0 written record by record, 1 moved here whole (from version 2) |
//! | 11 | 1 | why it was moved: a code of the log's owner |
//! | 12 | 4 | key id of all its records ([`super::seal`]); 0 = not sealed, as in version 1 |
//! | 16 | 8 | ordinal, as in the name |
//! | 24 | 8 | epoch of all its records |
//! | 32 | 8 | number of its first entry |
//! | 40 | 8 | written: ordinal of the segment before it, 0 = none; moved: when, in µs since 1970 |
//! | 48 | 8 | written: epoch of the segment before it; moved: zero |
//! | 56 | 8 | the number after the last entry of the segment before it; moved: of its own |
//! | 64 | 8 | the valid length of the segment before it, what stands behind does not count; moved: its own |
//! | 72 | 20 | zero |
//! | 92 | 4 | CRC-32C of the 92 bytes before |
//!
//! The header, and the file's name, are synced before the first record is written. So every
//! segment is closed by its successor, which says where it ended. A file that no successor names
//! and that is not the newest is what remains of a failed attempt: nothing in it was
//! acknowledged. A moved segment is written whole, as `*.part`, and gets its name once it is
//! synced: it says itself where it ends.
//!
//! # Versions
//! A program writes the newest version it knows and reads all earlier ones, so an upgrade needs
//! nothing. Every version keeps magic, version, length and checksum of the header where they are:
//! a program that was rolled back knows a later segment for what it is, sets it aside as
//! `*.locked` like one whose key is missing, and takes it up again after the next upgrade.

use crate::event::{Epoch, UnixMicros};

use super::record::{u32_at, u64_at};
use super::seal::KeyId;

/// Length of a segment's header.
pub const HEADER_BYTES: usize = 96;
/// Where the first record begins.
pub const RECORDS_AT: u64 = HEADER_BYTES as u64;

const MAGIC: [u8; 8] = *b"PNSTKSEG";
const ORIGIN_WRITTEN: u8 = 0;
const ORIGIN_MOVED: u8 = 1;
const VERSION: u16 = 2;
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
    /// How it came to be.
    pub origin: Origin,
}

/// How a segment came to be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Written here, record by record.
    Written {
        /// The segment before it.
        previous: Option<SegmentEnd>,
    },
    /// Moved here whole.
    Moved {
        /// Why and when.
        moved: Moved,
        /// The number after its last entry's.
        next_seq: u64,
        /// Its own valid length.
        valid_bytes: u64,
    },
}

/// Why and when a segment was moved to another lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// A code of the log's owner.
    pub reason: u8,
    /// When.
    pub at: UnixMicros,
}

impl Moved {
    /// Of a segment whose header is damaged.
    pub const UNKNOWN: Self = Self { reason: 0, at: UnixMicros(0) };
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
        match &self.origin {
            Origin::Written { previous: None } => {}
            Origin::Written { previous: Some(previous) } => {
                put(40, previous.ordinal);
                put(48, previous.epoch.0);
                put(56, previous.next_seq);
                put(64, previous.valid_bytes);
            }
            Origin::Moved { moved, next_seq, valid_bytes } => {
                put(40, moved.at.0.cast_unsigned());
                put(56, *next_seq);
                put(64, *valid_bytes);
                out[10..12].copy_from_slice(&[ORIGIN_MOVED, moved.reason]);
            }
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
        let header = Self {
            ordinal: u64_at(bytes, 16),
            epoch: Epoch(u64_at(bytes, 24)),
            first_seq: u64_at(bytes, 32),
            key: KeyId(u32_at(bytes, 12)),
            origin: Origin::decode(bytes).ok_or(HeaderError::Damaged)?,
        };
        let follows = header.previous().is_none_or(|previous| previous.ordinal < ordinal);
        let is_of_this_file = header.ordinal == ordinal && follows;
        if version == 0 || !is_of_this_file { Err(HeaderError::Damaged) } else { Ok(header) }
    }

    /// The segment before it, if it is known.
    pub const fn previous(&self) -> Option<SegmentEnd> {
        match self.origin {
            Origin::Written { previous } => previous,
            Origin::Moved { .. } => None,
        }
    }

    /// Where it ends itself, if it says so.
    pub const fn own_end(&self) -> Option<SegmentEnd> {
        match self.origin {
            Origin::Moved { next_seq, valid_bytes, .. } => {
                let Self { ordinal, epoch, .. } = *self;
                Some(SegmentEnd { ordinal, epoch, next_seq, valid_bytes })
            }
            Origin::Written { .. } => None,
        }
    }

    /// Why and when it was moved, if it was.
    pub const fn moved(&self) -> Option<Moved> {
        match self.origin {
            Origin::Moved { moved, .. } => Some(moved),
            Origin::Written { .. } => None,
        }
    }
}

impl Origin {
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (next_seq, valid_bytes) = (u64_at(bytes, 56), u64_at(bytes, 64));
        match bytes[10] {
            ORIGIN_WRITTEN => {
                let (ordinal, epoch) = (u64_at(bytes, 40), Epoch(u64_at(bytes, 48)));
                let previous = SegmentEnd { ordinal, epoch, next_seq, valid_bytes };
                Some(Self::Written { previous: (ordinal != 0).then_some(previous) })
            }
            ORIGIN_MOVED => {
                let at = UnixMicros(u64_at(bytes, 40).cast_signed());
                Some(Self::Moved { moved: Moved { reason: bytes[11], at }, next_seq, valid_bytes })
            }
            _ => None,
        }
    }
}

/// One of the sequences of segments in the log's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// What is written goes here.
    Main,
    /// What had to leave it waits here.
    Dead,
}

/// What a file of the log's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A segment.
    Segment,
    /// A quarantined segment.
    Damaged,
    /// A segment that can't be read yet: its key is missing, or its format is later.
    Locked,
    /// A segment that was not whole yet when something came between.
    Partial,
}

const LANES: [(Lane, &str); 2] = [(Lane::Main, ".seg"), (Lane::Dead, ".dead")];
const KINDS: [(FileKind, &str); 4] = [
    (FileKind::Segment, ""),
    (FileKind::Damaged, ".damaged"),
    (FileKind::Locked, ".locked"),
    (FileKind::Partial, ".part"),
];

/// A file's name.
pub fn name_of(lane: Lane, ordinal: u64, kind: FileKind) -> String {
    let lane = LANES.iter().find(|(one, _)| *one == lane).map_or("", |(_, suffix)| suffix);
    let kind = KINDS.iter().find(|(one, _)| *one == kind).map_or("", |(_, suffix)| suffix);
    format!("{ordinal:016x}{lane}{kind}")
}

/// Lane, ordinal and kind of a file by its name; `None` if it is none of the log's.
pub fn parse_name(name: &str) -> Option<(Lane, u64, FileKind)> {
    let ordinal = u64::from_str_radix(name.get(..16)?, 16).ok().filter(|ordinal| *ordinal != 0)?;
    let of_lane = |lane| KINDS.iter().map(move |(kind, _)| (lane, ordinal, *kind));
    let mut all = LANES.iter().flat_map(|(lane, _)| of_lane(*lane));
    all.find(|(lane, ordinal, kind)| name_of(*lane, *ordinal, *kind) == name)
}

/// The file name of a segment of the main lane.
pub fn file_name(ordinal: u64) -> String {
    name_of(Lane::Main, ordinal, FileKind::Segment)
}

/// The file name of a quarantined segment of the main lane.
pub fn damaged_name(ordinal: u64) -> String {
    name_of(Lane::Main, ordinal, FileKind::Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(ordinal: u64) -> impl Strategy<Value = Origin> {
        any::<Option<(u64, u64, u64)>>().prop_map(move |previous| Origin::Written {
            previous: previous.map(|(epoch, next_seq, valid_bytes)| SegmentEnd {
                ordinal: 1 + epoch % (ordinal - 1),
                epoch: Epoch(epoch),
                next_seq,
                valid_bytes,
            }),
        })
    }

    fn moved() -> impl Strategy<Value = Origin> {
        any::<(u8, i64, u64, u64)>().prop_map(|(reason, at, next_seq, valid_bytes)| {
            let moved = Moved { reason, at: UnixMicros(at) };
            Origin::Moved { moved, next_seq, valid_bytes }
        })
    }

    fn header() -> impl Strategy<Value = SegmentHeader> {
        let origin = (2..u64::MAX).prop_flat_map(|ordinal| {
            (Just(ordinal), prop_oneof![written(ordinal).boxed(), moved().boxed()])
        });
        (origin, any::<(u64, u64, u32)>()).prop_map(
            |((ordinal, origin), (epoch, first_seq, key))| SegmentHeader {
                ordinal,
                epoch: Epoch(epoch),
                first_seq,
                key: KeyId(key),
                origin,
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
            for (lane, _) in LANES {
                for (kind, _) in KINDS {
                    let name = name_of(lane, ordinal, kind);
                    prop_assert_eq!(parse_name(&name), Some((lane, ordinal, kind)), "{}", name);
                }
            }
        }
    }

    #[test]
    fn other_names_are_not_the_logs() {
        let names = [
            "LOCK",
            "0000000000000000.seg",
            "1.seg",
            "000000000000000A.seg",
            "x.damaged",
            "0000000000000001",
            "0000000000000001.seg.bak",
            "000000000000000é.seg",
        ];
        for name in names {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
