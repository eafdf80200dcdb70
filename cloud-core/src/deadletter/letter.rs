//! One dead letter, read from its record. Pure. Whatever can't be read, the bytes and the place
//! are kept: a dead letter has nowhere else to go.

use std::borrow::Cow;

use penstock_common::admit::{self, Identity, is_key};
use penstock_common::codec::{DEAD_LETTER_HEADERS, decode_dead_letter};
use penstock_common::event::{DeadLetterMeta, Epoch, Provenance, SourceOffset, UnixMicros};
use penstock_common::schema::tape::Tape;

use crate::bus::Record;
use crate::store::dead_letters::IndexEntry;

/// The stage of what this role itself could not read.
pub const STAGE: &str = "core.deadletter";
/// The reason of a letter whose headers can't be read.
pub const UNREADABLE_HEADERS: &str = "unreadable_headers";
/// The reason of a letter that made this role panic.
pub const STAGE_PANIC: &str = "stage_panic";
/// The reason of a copy that lost against another one with its identity and other bytes.
pub const ID_CONFLICT: &str = "id_conflict";

/// What a name is replaced by that can't be read.
pub const UNKNOWN: &str = "unknown";

/// Longest detail in the index; the whole of it is in the file.
const PREVIEW_BYTES_MAX: usize = 512;
/// Longest code and longest name in the index. PostgreSQL refuses to index very long ones, and a
/// letter must not be refused.
const CODE_BYTES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 256;

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its place on the dead-letter topic.
    pub place: SourceOffset,
    /// When the bus appended it.
    pub append_time: UnixMicros,
    /// The original key.
    pub key: Option<Vec<u8>>,
    /// The original bytes.
    pub payload: Vec<u8>,
    /// Its context; where the headers can't be read, what can be said in their place.
    pub meta: DeadLetterMeta,
    /// The headers that were not understood: all of them where the context can't be read.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What the bytes say of an event's identity.
    pub identity: Identity,
}

impl Letter {
    /// Reads a record of the dead-letter topic.
    pub fn read(topic: &str, record: &Record, tape: &mut Tape) -> Self {
        let (meta, headers) = match decode_dead_letter(record.headers()) {
            Ok(meta) => match out_of_range(&meta) {
                None => (meta, not_understood(record)),
                Some(name) => {
                    let error = format!("header {name:?} does not fit its column");
                    (stand_in(record, UNREADABLE_HEADERS, &error, 1), all_headers(record))
                }
            },
            Err(error) => {
                let error = error.to_string();
                (stand_in(record, UNREADABLE_HEADERS, &error, 1), all_headers(record))
            }
        };
        let identity = admit::identity(tape, record.payload());
        Self { meta, headers, identity, ..Self::bare(topic, record) }
    }

    /// A record that made this role panic, taken as it is.
    pub fn opaque(topic: &str, record: &Record, attempts: u32) -> Self {
        let error = format!("reading this letter panicked {attempts} times");
        let meta = stand_in(record, STAGE_PANIC, &error, attempts);
        Self { meta, headers: all_headers(record), ..Self::bare(topic, record) }
    }

    fn bare(topic: &str, record: &Record) -> Self {
        Self {
            place: SourceOffset {
                topic: topic.to_owned(),
                partition: record.partition,
                offset: record.offset,
            },
            append_time: record.append_time,
            key: record.key().map(<[u8]>::to_vec),
            payload: record.payload().to_vec(),
            meta: stand_in(record, UNREADABLE_HEADERS, "", 1),
            headers: Vec::new(),
            identity: Identity::default(),
        }
    }

    /// The memory it holds, roughly.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + v.len() + 48).sum();
        let key = self.key.as_ref().map_or(0, Vec::len);
        size_of::<Self>() + self.payload.len() + self.meta.detail.len() + headers + key + 256
    }

    /// Whether its context was read.
    fn is_readable(&self) -> bool {
        self.meta.stage != STAGE
    }

    /// What the index gets.
    pub fn index_entry(&self) -> IndexEntry {
        let Self { meta, identity, .. } = self;
        let key = || self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let device = identity.device_id.as_deref().or_else(key).filter(|id| !id.is_empty());
        let fleet = storable(&meta.fleet, NAME_BYTES_MAX);
        let resolvable = self.is_readable()
            && fleet == *meta.fleet
            && ![ID_CONFLICT, UNREADABLE_HEADERS].contains(&meta.reason.as_str())
            && comes_before_raw(&meta.stage)
            && identity.device_id.as_deref().is_some_and(is_key)
            && identity.event_id.is_some()
            && identity.event_time.is_some();
        IndexEntry {
            partition: self.place.partition,
            offset: self.place.offset,
            append_time: self.append_time.0,
            first_seen: meta.first_seen.0,
            stage: storable(&meta.stage, CODE_BYTES_MAX),
            reason: storable(&meta.reason, CODE_BYTES_MAX),
            detail_preview: storable(&meta.detail, PREVIEW_BYTES_MAX),
            fleet,
            gateway: storable(&meta.provenance.gateway, NAME_BYTES_MAX),
            epoch: narrow(meta.provenance.epoch.0),
            seq: narrow(meta.provenance.seq),
            schema_version: meta.schema_version.and_then(|version| version.try_into().ok()),
            attempts: meta.attempts.into(),
            device_id: device.map(|id| storable(id, NAME_BYTES_MAX)),
            event_id: identity.event_id,
            event_time: identity.event_time.map(|time| time.0),
            payload_bytes: i64::try_from(self.payload.len()).unwrap_or(i64::MAX),
            resolvable,
        }
    }
}

/// Whether the raw store lacks what this stage gave up on. The event of a later stage's letter is
/// there in any case: that says nothing about what the stage could not do with it.
fn comes_before_raw(stage: &str) -> bool {
    stage.starts_with("gateway.") || ["core.raw", "core.guard"].contains(&stage)
}

/// As text for PostgreSQL: without NUL, which it does not take, and not too long.
fn storable(text: &str, bytes_max: usize) -> String {
    let text = if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    };
    admit::cut(text.into_owned(), bytes_max)
}

/// `out_of_range` has seen that it fits.
fn narrow(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The first number that has no place in the file.
fn out_of_range(meta: &DeadLetterMeta) -> Option<&'static str> {
    if i64::try_from(meta.provenance.epoch.0).is_err() {
        Some("epoch")
    } else if i64::try_from(meta.provenance.seq).is_err() {
        Some("seq")
    } else if meta.schema_version.is_some_and(|version| i32::try_from(version).is_err()) {
        Some("schema")
    } else {
        None
    }
}

/// The context of a letter whose own can't be read: as much of it as can, and why.
fn stand_in(record: &Record, reason: &str, error: &str, attempts: u32) -> DeadLetterMeta {
    let number = |name| text(record, name).and_then(|text| text.parse::<u64>().ok());
    let fits = |number: Option<u64>| number.filter(|n| i64::try_from(*n).is_ok()).unwrap_or(0);
    let epoch = text(record, "epoch").and_then(|text| text.parse::<Epoch>().ok());
    DeadLetterMeta {
        stage: STAGE.to_owned(),
        reason: reason.to_owned(),
        detail: serde_json::json!({ "error": error }).to_string(),
        schema_version: None,
        fleet: text(record, "fleet").unwrap_or(UNKNOWN).into(),
        provenance: Provenance {
            gateway: text(record, "gateway").unwrap_or(UNKNOWN).into(),
            epoch: Epoch(fits(epoch.map(|epoch| epoch.0))),
            seq: fits(number("seq")),
        },
        first_seen: record.append_time,
        attempts,
        source: None,
        traceparent: None,
    }
}

fn text<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers().find(|(known, _)| *known == name)?;
    std::str::from_utf8(value).ok()
}

fn all_headers(record: &Record) -> Vec<(String, Vec<u8>)> {
    record.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

/// Headers of a later format, and optional ones that are no text.
fn not_understood(record: &Record) -> Vec<(String, Vec<u8>)> {
    let mut headers = all_headers(record);
    headers.retain(|(name, value)| {
        !DEAD_LETTER_HEADERS.contains(&name.as_str()) || std::str::from_utf8(value).is_err()
    });
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_common::codec::{Headers, encode_dead_letter};

    fn meta() -> DeadLetterMeta {
        DeadLetterMeta {
            stage: "gateway.admit".into(),
            reason: "unknown_firmware".into(),
            detail: r#"{"index":0}"#.into(),
            schema_version: None,
            fleet: "press-line".into(),
            provenance: Provenance { gateway: "plant-7".into(), epoch: Epoch(255), seq: 42 },
            first_seen: UnixMicros(7),
            attempts: 1,
            source: None,
            traceparent: None,
        }
    }

    const EVENT: &str = r#"{"event_id":"018f3c2a-7b1e-7c3d-9a4f-000000000001",
        "device_id":"press-1","timestamp":"2026-01-15T08:30:00Z"}"#;

    fn read(headers: &Headers, more: &[(&str, &[u8])], payload: &[u8]) -> Letter {
        let known = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let all = known.chain(more.iter().copied());
        let record = Record::new((3, 9), UnixMicros(5), Some(b"press-1"), payload, all);
        Letter::read("dead-letter", &record, &mut Tape::new())
    }

    #[test]
    fn a_letter_keeps_its_context_and_what_was_not_understood() {
        let more = [("later", b"x".as_slice()), ("traceparent", b"\xff")];
        let letter = read(&encode_dead_letter(&meta()), &more, EVENT.as_bytes());
        assert_eq!(letter.meta, meta());
        assert_eq!((letter.place.partition, letter.place.offset), (3, 9));
        let kept: Vec<_> = letter.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(kept, ["later", "traceparent"]);
        let entry = letter.index_entry();
        assert_eq!((entry.device_id.as_deref(), entry.seq), (Some("press-1"), 42));
        assert!(entry.resolvable && entry.event_id.is_some() && entry.event_time.is_some());
    }

    #[test]
    fn unreadable_headers_are_a_reason_and_all_are_kept() {
        let good = encode_dead_letter(&meta());
        let mut broken = good.clone();
        broken.retain(|(name, _)| *name != "stage");
        let mut wide = good.clone();
        for header in &mut wide {
            if header.0 == "epoch" {
                header.1 = "f".repeat(16);
            }
        }
        for (headers, epoch) in [(broken, 255), (wide, 0), (Vec::new(), 0)] {
            let letter = read(&headers, &[("odd", b"\xff")], EVENT.as_bytes());
            assert_eq!(
                (letter.meta.stage.as_str(), letter.meta.reason.as_str()),
                (STAGE, UNREADABLE_HEADERS)
            );
            assert_eq!(letter.headers.len(), headers.len() + 1);
            assert_eq!(letter.meta.provenance.epoch, Epoch(epoch));
            assert_eq!(letter.meta.first_seen, UnixMicros(5));
            let entry = letter.index_entry();
            assert!(!entry.resolvable);
            assert_eq!(entry.device_id.as_deref(), Some("press-1"));
        }
    }

    #[test]
    fn what_the_index_can_not_hold_is_cut_and_never_refused() {
        let long = "x".repeat(10_000);
        let meta = DeadLetterMeta {
            stage: long.clone(),
            reason: "a\0b".into(),
            detail: long.clone(),
            fleet: long.as_str().into(),
            ..meta()
        };
        let letter = read(&encode_dead_letter(&meta), &[], EVENT.as_bytes());
        assert_eq!(letter.meta, meta);
        let entry = letter.index_entry();
        assert_eq!(entry.reason, "a\u{fffd}b");
        assert!(entry.stage.len() < 100 && entry.fleet.len() < 300);
        assert!(entry.detail_preview.len() < 600 && !entry.resolvable);
    }

    #[test]
    fn bytes_without_an_event_have_no_identity_but_the_key() {
        let letter = read(&encode_dead_letter(&meta()), &[], b"\xff");
        assert_eq!(letter.identity, Identity::default());
        let entry = letter.index_entry();
        assert_eq!((entry.device_id.as_deref(), entry.resolvable), (Some("press-1"), false));
    }

    #[test]
    fn letters_whose_event_is_stored_in_any_case_are_not_looked_for() {
        let resolvable = |stage: &str, reason: &str| {
            let meta = DeadLetterMeta { stage: stage.into(), reason: reason.into(), ..meta() };
            read(&encode_dead_letter(&meta), &[], EVENT.as_bytes()).index_entry().resolvable
        };
        assert!(resolvable("gateway.admit", "schema_violation"));
        assert!(resolvable("core.raw", "stage_panic"));
        assert!(!resolvable("core.raw", UNREADABLE_HEADERS));
        assert!(!resolvable("core.rollup", "stage_panic"));
        assert!(!resolvable("core.compact", ID_CONFLICT));
    }

    #[test]
    fn a_record_that_made_the_stage_panic_is_taken_as_it_is() {
        let record = Record::new((3, 9), UnixMicros(5), None, EVENT.as_bytes(), [("a", &b"b"[..])]);
        let letter = Letter::opaque("dead-letter", &record, 3);
        assert_eq!((letter.meta.stage.as_str(), letter.meta.reason.as_str()), (STAGE, STAGE_PANIC));
        assert_eq!((letter.meta.attempts, &letter.payload[..]), (3, EVENT.as_bytes()));
        assert_eq!(letter.headers, [("a".to_owned(), b"b".to_vec())]);
        assert_eq!(letter.identity, Identity::default());
    }
}
