//! Where a page ended, as an opaque text: base64url of a small JSON object with a checksum over
//! it and over the query it belongs to. It grants nothing; the checksum catches accidents.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::row::Key;

/// A text longer than this is none of ours.
const TEXT_MAX: usize = 1_024;

/// The end of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The last event shown.
    pub after: Key,
    /// The catalog's sequence that all pages read.
    pub as_of: i64,
}

/// A text that is no cursor of this query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is damaged or belongs to another query")]
pub struct CursorError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    t: i64,
    e: Uuid,
    f: String,
    a: i64,
    c: u64,
}

impl Cursor {
    /// The text for the client; `query` identifies the query.
    pub fn encode(&self, query: &str) -> String {
        let Key { effective_time, event_id, fleet } = &self.after;
        let mut wire = Wire {
            t: *effective_time,
            e: Uuid::from_u128(*event_id),
            f: fleet.to_string(),
            a: self.as_of,
            c: 0,
        };
        wire.c = checksum(&wire, query);
        // Integers, a UUID and a string: serialization can't fail.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When it was altered, or belongs to another query.
    pub fn decode(text: &str, query: &str) -> Result<Self, CursorError> {
        if text.len() > TEXT_MAX {
            return Err(CursorError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| CursorError)?;
        if wire.c != checksum(&wire, query) || wire.a < 0 {
            return Err(CursorError);
        }
        let Wire { t: effective_time, e, f, a: as_of, .. } = wire;
        let after = Key { effective_time, event_id: e.as_u128(), fleet: f.into() };
        Ok(Self { after, as_of })
    }
}

fn checksum(wire: &Wire, query: &str) -> u64 {
    let Wire { t, e, f, a, .. } = wire;
    digest(&format!("1|{t}|{e}|{f}|{a}|{query}"))
}

/// FNV-1a, 64 bits.
pub fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        let after = Key { effective_time: -5, event_id: 7, fleet: "press|1".into() };
        Cursor { after, as_of: 42 }
    }

    #[test]
    fn it_comes_back_for_the_same_query_only() {
        let text = cursor().encode("device=a");
        assert_eq!(Cursor::decode(&text, "device=a"), Ok(cursor()));
        assert_eq!(Cursor::decode(&text, "device=b"), Err(CursorError));
    }

    #[test]
    fn every_altered_character_is_noticed() {
        let text = cursor().encode("q");
        for at in 0..text.len() {
            for other in ['A', 'b', '7', '-'] {
                let mut altered: Vec<char> = text.chars().collect();
                if altered[at] == other {
                    continue;
                }
                altered[at] = other;
                let altered: String = altered.into_iter().collect();
                assert_eq!(Cursor::decode(&altered, "q"), Err(CursorError), "{at} {other}");
            }
        }
        assert_eq!(Cursor::decode(&text[1..], "q"), Err(CursorError));
        assert_eq!(Cursor::decode("", "q"), Err(CursorError));
        assert_eq!(Cursor::decode(&"A".repeat(5_000), "q"), Err(CursorError));
    }
}
