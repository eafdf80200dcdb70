//! The record: one commit group as it stands in a segment.
//!
//! All numbers are little-endian. A header of 48 bytes, then the body:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `F5 50 53 A9` (never part of valid UTF-8) |
//! | 4 | 1 | format version: 2; 1 is read too |
//! | 5 | 1 | codec of the body: 0 plain, 1 one LZ4 block, 2 one zstd frame (from version 2) |
//! | 6 | 2 | zero |
//! | 8 | 4 | body length as stored, at most [`BODY_BYTES_MAX`] |
//! | 12 | 4 | body length uncompressed, at most [`GROUP_BYTES_MAX`] |
//! | 16 | 4 | count of entries, at least 1 |
//! | 20 | 4 | key id ([`super::seal`]); 0 = not sealed, the only value in version 1 |
//! | 24 | 8 | epoch |
//! | 32 | 8 | number of the first entry in its epoch |
//! | 40 | 4 | CRC-32C of the body as stored |
//! | 44 | 4 | CRC-32C of the 44 bytes before |
//!
//! The body is compressed, then sealed if there is a key, then checksummed. Uncompressed it is
//! `count` entries, each a length of 4 bytes and its bytes.
//!
//! Epochs are random, so that bytes inside an entry can't pass for a record when a damaged
//! segment is searched for the next valid one: whoever wrote the entry does not know the epoch.

mod encode;
mod group;

use lz4_flex::block::decompress_into;

use crate::event::Epoch;

use super::seal::{KeyId, Keys, Place, SEAL_BYTES};

pub use self::encode::{Compression, Encoder};
pub use self::group::{FRAME_BYTES, Frames, Group, frame};

/// Length of a record's header.
pub const HEADER_BYTES: usize = 48;
/// The largest group, uncompressed and with its length fields.
pub const GROUP_BYTES_MAX: usize = 16 << 20;
/// The largest body as stored: compression is given up where it would not shrink it.
pub const BODY_BYTES_MAX: usize = GROUP_BYTES_MAX + SEAL_BYTES;

pub(super) const MAGIC: [u8; 4] = [0xF5, b'P', b'S', 0xA9];
const VERSION: u8 = 2;
const CODEC_PLAIN: u8 = 0;
const CODEC_LZ4: u8 = 1;
const CODEC_ZSTD: u8 = 2;
/// The last codec of each version.
const CODEC_MAX: [u8; VERSION as usize + 1] = [0, CODEC_LZ4, CODEC_ZSTD];
/// One byte of an LZ4 block stands for at most 255 bytes; a header that claims more is refused
/// before anything is allocated for it.
const LZ4_RATIO_MAX: usize = 256;
/// What of the header is authenticated with a sealed body: all before the checksums.
const AUTHENTICATED_BYTES: usize = 40;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record's header, or a damaged one.
    #[error("no valid record header")]
    Header,
    /// A header of a later format.
    #[error("a record of an unknown format")]
    Unknown,
    /// The body does not match its checksum.
    #[error("the record's body is damaged")]
    Checksum,
    /// The body matches its checksum and still is not what the header says.
    #[error("the record's body is malformed")]
    Body,
    /// It is sealed with a key that is not there.
    #[error("the record is sealed with the key {0}, which is not in the key file")]
    NoKey(KeyId),
    /// Its checksum holds, but it was not sealed like this with that key.
    #[error("the record was altered, or sealed with another key of the id {0}")]
    Seal(KeyId),
}

/// A record's header, already checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    version: u8,
    codec: u8,
    body_bytes: u32,
    plain_bytes: u32,
    /// How many entries.
    pub count: u32,
    /// What it is sealed with.
    pub key: KeyId,
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
        let (version, codec) = (bytes[4], bytes[5]);
        let header = Self {
            version,
            codec,
            body_bytes: u32_at(bytes, 8),
            plain_bytes: u32_at(bytes, 12),
            count: u32_at(bytes, 16),
            key: KeyId(u32_at(bytes, 20)),
            epoch: Epoch(u64_at(bytes, 24)),
            first_seq: u64_at(bytes, 32),
            body_crc: u32_at(bytes, 40),
        };
        let is_known = (1..=VERSION).contains(&version)
            && codec <= CODEC_MAX[usize::from(version)]
            && bytes[6..8] == [0, 0]
            && (version > 1 || header.key == KeyId::NONE);
        if !is_known {
            return Err(RecordError::Unknown);
        }
        let (body, plain) = (header.body_bytes(), header.plain_bytes as usize);
        let text = body.checked_sub(header.seal_bytes());
        let within = body <= BODY_BYTES_MAX
            && plain <= GROUP_BYTES_MAX
            && header.count > 0
            && header.count as usize <= plain / FRAME_BYTES
            && header.first_seq <= u64::MAX - u64::from(header.count)
            && text.is_some_and(|text| match codec {
                CODEC_PLAIN => text == plain,
                CODEC_LZ4 => plain <= text.saturating_mul(LZ4_RATIO_MAX),
                _ => text < plain,
            });
        if within { Ok(header) } else { Err(RecordError::Header) }
    }

    const fn seal_bytes(&self) -> usize {
        if self.key.0 == KeyId::NONE.0 { 0 } else { SEAL_BYTES }
    }

    fn encode(&self, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        out[4] = self.version;
        out[5] = self.codec;
        out[6..8].fill(0);
        out[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.plain_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..24].copy_from_slice(&self.key.0.to_le_bytes());
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

    /// Checks, opens and uncompresses the body; the result is `count` well-formed entries. What is
    /// left in `body` is of no use.
    ///
    /// # Errors
    /// When it is damaged, or sealed with a key that is not among `keys`.
    pub fn decode_body(&self, body: &mut [u8], keys: &Keys) -> Result<Vec<u8>, RecordError> {
        if !self.matches(body) {
            return Err(RecordError::Checksum);
        }
        let text = if self.key == KeyId::NONE {
            &*body
        } else {
            let key = keys.get(self.key).ok_or(RecordError::NoKey(self.key))?;
            let mut header = [0; HEADER_BYTES];
            self.encode(&mut header);
            let place = Place { epoch: self.epoch, first_seq: self.first_seq };
            let opened = key.open(place, &header[..AUTHENTICATED_BYTES], body);
            opened.ok_or(RecordError::Seal(self.key))?
        };
        let plain = self.uncompress(text)?;
        let mut frames = Frames { rest: &plain };
        let count = frames.by_ref().count();
        if count == self.count as usize && frames.rest.is_empty() {
            Ok(plain)
        } else {
            Err(RecordError::Body)
        }
    }

    fn uncompress(&self, text: &[u8]) -> Result<Vec<u8>, RecordError> {
        if self.codec == CODEC_PLAIN {
            return Ok(text.to_vec());
        }
        let mut plain = vec![0; self.plain_bytes as usize];
        let length = match self.codec {
            CODEC_LZ4 => decompress_into(text, &mut plain).ok(),
            _ => zstd::bulk::decompress_to_buffer(text, &mut plain).ok(),
        };
        if length == Some(plain.len()) { Ok(plain) } else { Err(RecordError::Body) }
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
