//! Where a page of dead letters ended, as an opaque text: base64url of a small JSON object with a
//! checksum over it and over the query it belongs to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::query::cursor::{CursorError, digest};

/// A text longer than this is none of ours.
const TEXT_MAX: usize = 256;

/// The end of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LetterCursor {
    /// Append time (µs) and number of the last letter shown.
    pub(super) after: (i64, i64),
    /// The catalog's sequence that all pages read.
    pub(super) as_of: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    t: i64,
    n: i64,
    a: i64,
    c: u64,
}

impl LetterCursor {
    fn checksum(&self, query: &str) -> u64 {
        let Self { after: (time, number), as_of } = self;
        digest(&format!("1|{time}|{number}|{as_of}|{query}"))
    }

    /// The text for the client; `query` identifies the query.
    pub(super) fn encode(&self, query: &str) -> String {
        let Self { after: (t, n), as_of: a } = *self;
        let wire = Wire { t, n, a, c: self.checksum(query) };
        // Integers: serialization can't fail.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// Reads it back.
    pub(super) fn decode(text: &str, query: &str) -> Result<Self, CursorError> {
        if text.len() > TEXT_MAX {
            return Err(CursorError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let Wire { t, n, a, c } = serde_json::from_slice(&bytes).map_err(|_| CursorError)?;
        let cursor = Self { after: (t, n), as_of: a };
        if c != cursor.checksum(query) || a < 0 {
            return Err(CursorError);
        }
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_for_the_same_query_only_and_unaltered() {
        let cursor = LetterCursor { after: (-7, 42), as_of: 3 };
        let text = cursor.encode("a");
        assert_eq!(LetterCursor::decode(&text, "a"), Ok(cursor));
        assert_eq!(LetterCursor::decode(&text, "b"), Err(CursorError));
        for at in 0..text.len() {
            let other = if text.as_bytes()[at] == b'A' { "b" } else { "A" };
            let altered = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(LetterCursor::decode(&altered, "a"), Err(CursorError), "{at}");
        }
        assert_eq!(LetterCursor::decode(&"A".repeat(1_000), "a"), Err(CursorError));
    }
}
