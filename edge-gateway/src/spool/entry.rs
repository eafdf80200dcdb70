//! What one numbered entry of the spool holds, and its bytes in the log.
//!
//! All numbers are little-endian. A *text* is a length of 4 bytes and UTF-8; an *optional* field
//! is there only if its presence bit is set. The payload comes last and has no length: it is what
//! is left. An entry with the fields of version 1:
//!
//! | field | bytes | on |
//! |---|---|---|
//! | format version, 1 | 1 | both |
//! | kind: 1 event, 2 dead letter | 1 | both |
//! | presence: 1 device_id, 2 schema_version, 4 traceparent | 1 | both |
//! | zero | 1 | both |
//! | flags | 4 | both (zero on a dead letter) |
//! | received_at / first_seen, µs since 1970 | 8 | both |
//! | schema_version, optional | 4 | both (always there on an event) |
//! | fleet | text | both |
//! | device_id, optional | text | both (always there on an event) |
//! | traceparent, optional | text | both |
//! | stage, reason, detail | 3 texts | dead letters |
//! | payload | the rest | both |
//!
//! Texts are at most [`TEXT_BYTES_MAX`], an entry fits into one group of the log
//! ([`penstock_common::log::record::GROUP_BYTES_MAX`]). Checksums are the log's.

use std::sync::Arc;

use bytes::Bytes;
use penstock_common::event::{Flags, UnixMicros};

/// One event or dead letter on its way to the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// For `raw-events`.
    Event(EventEntry),
    /// For `dead-letter`.
    DeadLetter(DeadLetterEntry),
}

/// An admitted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventEntry {
    /// The message key.
    pub device_id: String,
    /// The schema version that admitted it.
    pub schema_version: u32,
    /// The device's fleet.
    pub fleet: Arc<str>,
    /// When the whole request had arrived.
    pub received_at: UnixMicros,
    /// Facts noted at admission.
    pub flags: Flags,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The event exactly as the device sent it.
    pub payload: Bytes,
}

/// A rejected event, or a body that could not be split into events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterEntry {
    /// The message key, where a device id could be read.
    pub device_id: Option<String>,
    /// The stage that gave up, e.g. `gateway.admit`.
    pub stage: String,
    /// A stable code, e.g. `schema_violation`.
    pub reason: String,
    /// JSON: what was wrong, where, expected, got.
    pub detail: String,
    /// The schema it was held against, where one was chosen.
    pub schema_version: Option<u32>,
    /// The fleet that brought it.
    pub fleet: Arc<str>,
    /// When the whole request had arrived.
    pub first_seen: UnixMicros,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The original bytes.
    pub payload: Bytes,
}

/// The longest text in an entry.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

const VERSION: u8 = 1;
const KIND_EVENT: u8 = 1;
const KIND_DEAD_LETTER: u8 = 2;
const HAS_DEVICE: u8 = 1;
const HAS_SCHEMA: u8 = 2;
const HAS_TRACE: u8 = 4;

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The bytes end too early.
    #[error("the entry is cut short")]
    Truncated,
    /// Not a format this version knows.
    #[error("the entry is of an unknown format")]
    Unknown,
    /// A text is no UTF-8 or too long.
    #[error("a text in the entry can't be read")]
    Text,
}

impl Entry {
    /// When the whole request had arrived.
    pub const fn received_at(&self) -> UnixMicros {
        match self {
            Self::Event(event) => event.received_at,
            Self::DeadLetter(letter) => letter.first_seen,
        }
    }

    /// About as many bytes as [`Self::encode`] writes, never fewer.
    pub fn encoded_bytes_max(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 4);
        match self {
            Self::Event(e) => {
                32 + e.fleet.len() + e.device_id.len() + text(&e.traceparent) + e.payload.len()
            }
            Self::DeadLetter(d) => {
                let texts = d.stage.len() + d.reason.len() + d.detail.len() + d.fleet.len();
                48 + texts + text(&d.device_id) + text(&d.traceparent) + d.payload.len()
            }
        }
    }

    /// Appends the entry's bytes to `out`.
    ///
    /// # Errors
    /// When a text is longer than [`TEXT_BYTES_MAX`]; part of the entry is then in `out`.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        match self {
            Self::Event(event) => {
                let head = Head {
                    kind: KIND_EVENT,
                    flags: event.flags,
                    time: event.received_at,
                    schema: Some(event.schema_version),
                    fleet: &event.fleet,
                    device: Some(&event.device_id),
                    trace: event.traceparent.as_deref(),
                };
                head.encode(out)?;
                out.extend_from_slice(&event.payload);
            }
            Self::DeadLetter(letter) => {
                let head = Head {
                    kind: KIND_DEAD_LETTER,
                    flags: Flags::NONE,
                    time: letter.first_seen,
                    schema: letter.schema_version,
                    fleet: &letter.fleet,
                    device: letter.device_id.as_deref(),
                    trace: letter.traceparent.as_deref(),
                };
                head.encode(out)?;
                put_text(out, &letter.stage)?;
                put_text(out, &letter.reason)?;
                put_text(out, &letter.detail)?;
                out.extend_from_slice(&letter.payload);
            }
        }
        Ok(())
    }

    /// Reads an entry; its payload shares the memory of `bytes`. Entries in a row are mostly of
    /// one fleet: `fleet` keeps its name between calls, so that it is allocated once.
    ///
    /// # Errors
    /// When the bytes are no entry.
    pub fn decode(bytes: &Bytes, fleet: &mut Arc<str>) -> Result<Self, EntryError> {
        let mut rest = Rest(bytes);
        let [version, kind, presence, _, ..] = rest.array::<4>()?;
        if version != VERSION || presence > HAS_DEVICE | HAS_SCHEMA | HAS_TRACE {
            return Err(EntryError::Unknown);
        }
        let flags = Flags::from_bits(u32::from_le_bytes(rest.array()?));
        let time = UnixMicros(i64::from_le_bytes(rest.array()?));
        let schema_version = match presence & HAS_SCHEMA {
            0 => None,
            _ => Some(u32::from_le_bytes(rest.array()?)),
        };
        let name = rest.text()?;
        if **fleet != *name {
            *fleet = name.into();
        }
        let mut optional = |bit| match presence & bit {
            0 => Ok(None),
            _ => rest.text().map(|text| Some(text.to_owned())),
        };
        let (device_id, traceparent) = (optional(HAS_DEVICE)?, optional(HAS_TRACE)?);
        let fleet = fleet.clone();
        match kind {
            KIND_EVENT => Ok(Self::Event(EventEntry {
                device_id: device_id.ok_or(EntryError::Unknown)?,
                schema_version: schema_version.ok_or(EntryError::Unknown)?,
                fleet,
                received_at: time,
                flags,
                traceparent,
                payload: bytes.slice_ref(rest.0),
            })),
            KIND_DEAD_LETTER => Ok(Self::DeadLetter(DeadLetterEntry {
                device_id,
                stage: rest.text()?.to_owned(),
                reason: rest.text()?.to_owned(),
                detail: rest.text()?.to_owned(),
                schema_version,
                fleet,
                first_seen: time,
                traceparent,
                payload: bytes.slice_ref(rest.0),
            })),
            _ => Err(EntryError::Unknown),
        }
    }
}

/// The fields that events and dead letters share.
struct Head<'a> {
    kind: u8,
    flags: Flags,
    time: UnixMicros,
    schema: Option<u32>,
    fleet: &'a str,
    device: Option<&'a str>,
    trace: Option<&'a str>,
}

impl Head<'_> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        let bit = |is_there: bool, bit: u8| if is_there { bit } else { 0 };
        let presence = bit(self.device.is_some(), HAS_DEVICE)
            | bit(self.schema.is_some(), HAS_SCHEMA)
            | bit(self.trace.is_some(), HAS_TRACE);
        out.extend_from_slice(&[VERSION, self.kind, presence, 0]);
        out.extend_from_slice(&self.flags.bits().to_le_bytes());
        out.extend_from_slice(&self.time.0.to_le_bytes());
        if let Some(version) = self.schema {
            out.extend_from_slice(&version.to_le_bytes());
        }
        put_text(out, self.fleet)?;
        for text in [self.device, self.trace].into_iter().flatten() {
            put_text(out, text)?;
        }
        Ok(())
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), EntryError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(EntryError::Text);
    }
    // At most `TEXT_BYTES_MAX`.
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(EntryError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn text(&mut self) -> Result<&'a str, EntryError> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        if length > TEXT_BYTES_MAX {
            return Err(EntryError::Text);
        }
        let (text, rest) = self.0.split_at_checked(length).ok_or(EntryError::Truncated)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| EntryError::Text)
    }
}

#[cfg(test)]
mod tests;
