//! Turning groups into records: compress, seal, checksum.

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use crate::event::Epoch;

use super::group::KEPT_BYTES_MAX;
use super::{
    AUTHENTICATED_BYTES, CODEC_LZ4, CODEC_PLAIN, CODEC_ZSTD, Group, HEADER_BYTES, LZ4_RATIO_MAX,
    RecordHeader, VERSION,
};
use crate::log::seal::{Key, KeyId, Place, SALT_BYTES, SEAL_BYTES};

/// How bodies are compressed, where that makes them smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: next to no time.
    Lz4,
    /// zstd: for what is written once and may lie for long.
    Zstd,
}

/// zstd's own default: higher ones cost far more than they bring on JSON.
const ZSTD_LEVEL: i32 = 3;

enum Compressor {
    None,
    Lz4(Box<CompressTable>),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    /// Without memory for zstd, bodies stay as they are.
    fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Lz4 => Self::Lz4(Box::new(CompressTable::large())),
            Compression::Zstd => match zstd::bulk::Compressor::new(ZSTD_LEVEL) {
                Ok(compressor) => Self::Zstd(Box::new(compressor)),
                Err(_) => Self::None,
            },
        }
    }

    fn bytes_max(&self, plain: usize) -> usize {
        match self {
            Self::None => plain,
            Self::Lz4(_) => get_maximum_output_size(plain),
            Self::Zstd(_) => zstd::compress_bound(plain),
        }
    }

    /// Compresses into `body`: codec and length, unless nothing is won.
    fn compress(&mut self, plain: &[u8], body: &mut [u8]) -> Option<(u8, usize)> {
        let (codec, length) = match self {
            Self::None => return None,
            Self::Lz4(table) => (CODEC_LZ4, compress_into_with_table(plain, body, table).ok()?),
            Self::Zstd(compressor) => {
                (CODEC_ZSTD, compressor.compress_to_buffer(plain, body).ok()?)
            }
        };
        let is_readable = codec != CODEC_LZ4 || plain.len() <= length.saturating_mul(LZ4_RATIO_MAX);
        (length < plain.len() && is_readable).then_some((codec, length))
    }
}

/// Turns groups into records; keeps its buffers between them.
pub struct Encoder {
    compressor: Compressor,
    key: Option<Key>,
    out: Vec<u8>,
}

impl Encoder {
    /// An encoder that seals with `key`, if there is one.
    pub fn new(compression: Compression, key: Option<&Key>) -> Self {
        Self { compressor: Compressor::new(compression), key: key.cloned(), out: Vec::new() }
    }

    /// The record of a group of 1 to [`super::GROUP_BYTES_MAX`] bytes. With a key, no two groups
    /// may be written under one epoch and number: see [`crate::log::seal`].
    pub fn encode(&mut self, group: &Group, epoch: Epoch, first_seq: u64) -> &[u8] {
        let plain = &group.body;
        let seal_bytes = if self.key.is_some() { SEAL_BYTES } else { 0 };
        let space = HEADER_BYTES + seal_bytes + self.compressor.bytes_max(plain.len());
        if self.out.len() > KEPT_BYTES_MAX.max(space) {
            self.out = Vec::new();
        }
        if self.out.len() < space {
            self.out.resize(space, 0);
        }
        let (head, body) = self.out.split_at_mut(HEADER_BYTES);
        let text = &mut body[if seal_bytes > 0 { SALT_BYTES } else { 0 }..];
        let (codec, length) = self.compressor.compress(plain, text).unwrap_or_else(|| {
            text[..plain.len()].copy_from_slice(plain);
            (CODEC_PLAIN, plain.len())
        });
        let body = &mut body[..length + seal_bytes];
        let mut header = RecordHeader {
            version: VERSION,
            codec,
            // Both are at most `BODY_BYTES_MAX`: the writer refuses larger groups.
            body_bytes: body.len() as u32,
            plain_bytes: plain.len() as u32,
            count: group.count,
            key: self.key.as_ref().map_or(KeyId::NONE, Key::id),
            epoch,
            first_seq,
            body_crc: 0,
        };
        if let Some(key) = &self.key {
            header.encode(head);
            let is_sealed =
                key.seal(Place { epoch, first_seq }, &head[..AUTHENTICATED_BYTES], body);
            // It fails only beyond 256 GiB.
            assert!(is_sealed, "a group of {length} bytes could not be sealed");
        }
        header.body_crc = crc32c::crc32c(body);
        header.encode(head);
        &self.out[..HEADER_BYTES + length + seal_bytes]
    }
}
