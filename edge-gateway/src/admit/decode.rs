//! From headers and a body as sent to text to split: content type, content encoding.
//!
//! Decompression stops one byte past [`BODY_BYTES_MAX`], so that a bomb costs as much as an honest
//! body. zstd frames may ask for a window of at most 8 MiB (RFC 8878's recommendation).

use std::io::{self, Read};

use bytes::Bytes;

use super::{BODY_BYTES_MAX, Refusal};

/// Largest zstd window, as a power of two.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Longest header value repeated in an answer.
const HEADER_BYTES_SHOWN_MAX: usize = 128;

/// How events lie in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One JSON text: an object or an array of them.
    Json,
    /// One JSON text a line.
    Lines,
}

/// How the body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// Why a body could not be decompressed.
#[derive(Debug)]
pub(super) enum Failure {
    TooLarge,
    Corrupt(String),
}

/// Reads `Content-Type`. Missing is refused too: a guess would accept what a later version, which
/// takes more types, would read otherwise.
pub(super) fn layout(content_type: Option<&str>) -> Result<Layout, Refusal> {
    let value = content_type.unwrap_or_default();
    let refused = || Refusal::MediaType(shown(value));
    let mut parts = value.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    for parameter in parts.map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or_else(refused)?;
        let charset = value.trim_matches('"');
        // Parameters other than the charset mean nothing for these types.
        if name.trim().eq_ignore_ascii_case("charset")
            && !["utf-8", "utf8", "us-ascii"].iter().any(|ok| charset.eq_ignore_ascii_case(ok))
        {
            return Err(refused());
        }
    }
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(Layout::Json)
    } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
        Ok(Layout::Lines)
    } else {
        Err(refused())
    }
}

/// Reads `Content-Encoding`: at most one coding.
pub(super) fn coding(content_encoding: Option<&str>) -> Result<Coding, Refusal> {
    let value = content_encoding.unwrap_or_default().trim();
    let is = |name: &str| value.eq_ignore_ascii_case(name);
    if value.is_empty() || is("identity") {
        Ok(Coding::Identity)
    } else if is("gzip") || is("x-gzip") {
        Ok(Coding::Gzip)
    } else if is("zstd") {
        Ok(Coding::Zstd)
    } else {
        Err(Refusal::Encoding(shown(value)))
    }
}

fn shown(value: &str) -> String {
    penstock_common::admit::cut(value.to_owned(), HEADER_BYTES_SHOWN_MAX)
}

impl Coding {
    /// What a body in this coding should have been.
    pub(super) const fn expected(self) -> &'static str {
        match self {
            Self::Identity => "a body",
            Self::Gzip => "a complete gzip stream",
            Self::Zstd => "complete zstd frames with a window of at most 8 MiB",
        }
    }
}

/// Undoes the content encoding, with a bound.
pub(super) fn decompress(coding: Coding, body: Bytes) -> Result<Bytes, Failure> {
    let corrupt = |error: io::Error| Failure::Corrupt(error.to_string());
    match coding {
        Coding::Identity if body.len() > BODY_BYTES_MAX => Err(Failure::TooLarge),
        Coding::Identity => Ok(body),
        // An empty body is no stream, but it is clear what it means: nothing.
        _ if body.is_empty() => Ok(body),
        Coding::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(body.as_ref())),
        Coding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(body.as_ref()).map_err(corrupt)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(corrupt)?;
            read_bounded(decoder)
        }
    }
}

fn read_bounded(reader: impl Read) -> Result<Bytes, Failure> {
    let mut out = Vec::new();
    let read = reader.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut out);
    // Too large comes first: what follows the bound is not looked at.
    if out.len() > BODY_BYTES_MAX {
        return Err(Failure::TooLarge);
    }
    match read {
        Ok(_) => Ok(out.into()),
        Err(error) => Err(Failure::Corrupt(error.to_string())),
    }
}
