//! Request bodies: one object, an array, or lines; plain or compressed.

use std::io::Write;

use bytes::Bytes;

/// How events are put together in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One bare object.
    Object,
    /// A JSON array.
    Array,
    /// One object a line.
    Lines,
}

impl Framing {
    /// The request's `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Object | Self::Array => "application/json",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// The request's `Content-Encoding`, if any.
    pub(crate) const fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// A body being put together.
pub(crate) struct Parts {
    framing: Framing,
    buffer: Vec<u8>,
    events: usize,
}

/// A little more than a usual event, in bytes.
const EVENT_BYTES_USUAL: usize = 300;

impl Parts {
    pub(crate) fn new(framing: Framing, events: usize) -> Self {
        Self { framing, buffer: Vec::with_capacity(events * EVENT_BYTES_USUAL + 2), events: 0 }
    }

    /// Adds the event that `render` appends; returns its bytes.
    pub(crate) fn event(&mut self, render: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        match (self.framing, self.events) {
            (Framing::Object, _) | (Framing::Lines, 0) => {}
            (Framing::Array, 0) => self.buffer.push(b'['),
            (Framing::Array, _) => self.buffer.push(b','),
            (Framing::Lines, _) => self.buffer.push(b'\n'),
        }
        self.events += 1;
        let start = self.buffer.len();
        render(&mut self.buffer);
        &self.buffer[start..]
    }

    /// The finished body.
    pub(crate) fn finish(mut self, compression: Compression) -> Bytes {
        match self.framing {
            Framing::Object => {}
            Framing::Array => self.buffer.push(b']'),
            Framing::Lines => self.buffer.push(b'\n'),
        }
        compress(self.buffer, compression)
    }

    /// A body that ends within its last event: as sent, and before compression.
    pub(crate) fn finish_broken(mut self, compression: Compression) -> (Bytes, Bytes) {
        self.buffer.truncate(self.buffer.len() - 2);
        let plain = Bytes::from(self.buffer.clone());
        (compress(self.buffer, compression), plain)
    }
}

fn compress(plain: Vec<u8>, compression: Compression) -> Bytes {
    let compressed = match compression {
        Compression::None => return plain.into(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&plain).and_then(|()| encoder.finish())
        }
        Compression::Zstd => zstd::encode_all(plain.as_slice(), 1),
    };
    // Writing to memory does not fail.
    compressed.unwrap_or_default().into()
}
