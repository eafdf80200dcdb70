//! The record: one commit group as it stands in a segment.
//!
//! All numbers are little-endian. A header of 48 bytes, then the body:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `F5 50 53 A9` (never part of valid UTF-8) |
//! | 4 | 1 | format version, 1 |
//! | 5 | 1 | codec of the body: 0 plain, 1 one LZ4 block |
//! | 6 | 2 | key id; 0 = not encrypted, the only value of version 1 |
//! | 8 | 4 | body length as stored, at most [`BODY_BYTES_MAX`] |
//! | 12 | 4 | body length uncompressed, at most [`GROUP_BYTES_MAX`] |
//! | 16 | 4 | count of entries, at least 1 |
//! | 20 | 4 | zero |
//! | 24 | 8 | epoch |
//! | 32 | 8 | number of the first entry in its epoch |
//! | 40 | 4 | CRC-32C of the body as stored |
//! | 44 | 4 | CRC-32C of the 44 bytes before |
//!
//! The uncompressed body is `count` entries, each a length of 4 bytes and its bytes.
//!
//! Epochs are random, so that bytes inside an entry can't pass for a record when a damaged
//! segment is searched for the next valid one: whoever wrote the entry does not know the epoch.

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use crate::event::Epoch;

/// Length of a record's header.
pub const HEADER_BYTES: usize = 48;
/// The largest group, uncompressed and with its length fields.
pub const GROUP_BYTES_MAX: usize = 16 << 20;
/// The largest body as stored: compression is given up where it would not shrink it.
pub const BODY_BYTES_MAX: usize = GROUP_BYTES_MAX;
/// The length field before each entry.
pub const FRAME_BYTES: usize = 4;

pub(super) const MAGIC: [u8; 4] = [0xF5, b'P', b'S', 0xA9];
const VERSION: u8 = 1;
const CODEC_PLAIN: u8 = 0;
const CODEC_LZ4: u8 = 1;
/// One byte of an LZ4 block stands for at most 255 bytes; a header that claims more is refused
/// before anything is allocated for it.
const LZ4_RATIO_MAX: usize = 256;
/// Output buffers above this are not kept between groups.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Entries to be written as one record: in order, all or none.
#[derive(Clone, Debug, Default)]
pub struct Group {
    body: Vec<u8>,
    count: u32,
}

impl Group {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &[u8]) {
        frame(&mut self.body, |out| out.extend_from_slice(entry));
        self.count += 1;
    }

    /// Adds `count` entries that [`frame`] wrote.
    pub fn push_framed(&mut self, framed: &[u8], count: u32) {
        self.body.extend_from_slice(framed);
        self.count += count;
    }

    /// Removes all entries, keeping the memory unless it is large.
    pub fn clear(&mut self) {
        self.body.clear();
        self.body.shrink_to(KEPT_BYTES_MAX);
        self.count = 0;
    }

    /// How many entries it has.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its uncompressed length with the length fields.
    pub const fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// Appends one entry to `out`, written by `write`, with its length before it.
///
/// Entries are far below 4 GiB: a group of more than [`GROUP_BYTES_MAX`] is refused when it is
/// appended to the log.
pub fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    write(out);
    let length = u32::try_from(out.len() - at - FRAME_BYTES).unwrap_or(u32::MAX);
    out[at..at + FRAME_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record's header, or a damaged one.
    #[error("no valid record header")]
    Header,
    /// A header of a later format or with a key this version does not have.
    #[error("a record of an unknown format")]
    Unknown,
    /// The body does not match its checksum.
    #[error("the record's body is damaged")]
    Checksum,
    /// The body matches its checksum and still is not what the header says.
    #[error("the record's body is malformed")]
    Body,
}

/// A record's header, already checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    codec: u8,
    body_bytes: u32,
    plain_bytes: u32,
    /// How many entries.
    pub count: u32,
    /// The epoch of all its entries.
    pub epoch: Epoch,
    /// The number of the first.
    pub first_seq: u64,
    body_crc: u32,
}

impl RecordHeader {
    /// The number after its last entry's.
    pub const fn next_seq(&self) -> u64 {
        self.first_seq + self.count as u64
    }

    /// Length of the body as stored.
    pub const fn body_bytes(&self) -> usize {
        self.body_bytes as usize
    }

    /// Length of the whole record.
    pub const fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.body_bytes as u64
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// When it is damaged, out of limits or of an unknown format.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, RecordError> {
        if bytes[..4] != MAGIC || u32_at(bytes, 44) != crc32c::crc32c(&bytes[..44]) {
            return Err(RecordError::Header);
        }
        if bytes[4] != VERSION || bytes[5] > CODEC_LZ4 || bytes[6..8] != [0, 0] {
            return Err(RecordError::Unknown);
        }
        let header = Self {
            codec: bytes[5],
            body_bytes: u32_at(bytes, 8),
            plain_bytes: u32_at(bytes, 12),
            count: u32_at(bytes, 16),
            epoch: Epoch(u64_at(bytes, 24)),
            first_seq: u64_at(bytes, 32),
            body_crc: u32_at(bytes, 40),
        };
        let (body, plain) = (header.body_bytes(), header.plain_bytes as usize);
        let within = body <= BODY_BYTES_MAX
            && plain <= GROUP_BYTES_MAX
            && header.count > 0
            && header.count as usize <= plain / FRAME_BYTES
            && header.first_seq <= u64::MAX - u64::from(header.count)
            && match header.codec {
                CODEC_PLAIN => body == plain,
                _ => plain <= body.saturating_mul(LZ4_RATIO_MAX),
            };
        if within { Ok(header) } else { Err(RecordError::Header) }
    }

    fn encode(&self, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.codec;
        out[6..8].fill(0);
        out[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.plain_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..24].fill(0);
        out[24..32].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_seq.to_le_bytes());
        out[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..44]);
        out[44..48].copy_from_slice(&crc.to_le_bytes());
    }

    /// Whether `body` is the body that was written with this header.
    pub fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.body_bytes() && crc32c::crc32c(body) == self.body_crc
    }

    /// Checks and uncompresses the body; the result is `count` well-formed entries.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn decode_body(&self, body: &[u8]) -> Result<Vec<u8>, RecordError> {
        if !self.matches(body) {
            return Err(RecordError::Checksum);
        }
        let plain = if self.codec == CODEC_LZ4 {
            let mut plain = vec![0; self.plain_bytes as usize];
            match decompress_into(body, &mut plain) {
                Ok(n) if n == plain.len() => plain,
                _ => return Err(RecordError::Body),
            }
        } else {
            body.to_vec()
        };
        let mut frames = Frames { rest: &plain };
        let count = frames.by_ref().count();
        if count == self.count as usize && frames.rest.is_empty() {
            Ok(plain)
        } else {
            Err(RecordError::Body)
        }
    }
}

/// The entries of an uncompressed body; ends early where it is malformed.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// The entries of `body`.
    pub const fn of(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<FRAME_BYTES>()?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some(entry)
    }
}

/// Turns groups into records; keeps its buffers between them.
pub struct Encoder {
    compress: bool,
    table: CompressTable,
    out: Vec<u8>,
}

impl Encoder {
    /// An encoder that compresses bodies where that shrinks them, or never does.
    pub fn new(compress: bool) -> Self {
        Self { compress, table: CompressTable::large(), out: Vec::new() }
    }

    /// The record of a group of 1 to [`GROUP_BYTES_MAX`] bytes.
    pub fn encode(&mut self, group: &Group, epoch: Epoch, first_seq: u64) -> &[u8] {
        let plain = &group.body;
        let space = if self.compress { get_maximum_output_size(plain.len()) } else { plain.len() };
        if self.out.len() > KEPT_BYTES_MAX.max(HEADER_BYTES + space) {
            self.out = Vec::new();
        }
        if self.out.len() < HEADER_BYTES + space {
            self.out.resize(HEADER_BYTES + space, 0);
        }
        let (head, body) = self.out.split_at_mut(HEADER_BYTES);
        let compressed = if self.compress {
            compress_into_with_table(plain, body, &mut self.table)
                .ok()
                .filter(|&n| n < plain.len() && plain.len() <= n.saturating_mul(LZ4_RATIO_MAX))
        } else {
            None
        };
        let (codec, length) = match compressed {
            Some(length) => (CODEC_LZ4, length),
            None => {
                body[..plain.len()].copy_from_slice(plain);
                (CODEC_PLAIN, plain.len())
            }
        };
        let header = RecordHeader {
            codec,
            // Both are at most `GROUP_BYTES_MAX`: the writer refuses larger groups.
            body_bytes: length as u32,
            plain_bytes: plain.len() as u32,
            count: group.count,
            epoch,
            first_seq,
            body_crc: crc32c::crc32c(&body[..length]),
        };
        header.encode(head);
        &self.out[..HEADER_BYTES + length]
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests;
