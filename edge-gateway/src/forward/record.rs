//! A spool entry as a message on the bus.

use std::sync::Arc;

use penstock_common::codec;
use penstock_common::event::{DeadLetterMeta, EventMeta, Provenance};
use penstock_common::topic::Topic;
use serde_json::{Value, json};

use super::OutboundRecord;
use super::fates::Form;
use crate::spool::SpooledEntry;
use crate::spool::entry::{DeadLetterEntry, Entry, EventEntry};

/// The stage's name in dead letters.
const STAGE: &str = "gateway.forward";
/// The reason of an event that the bus would refuse for ever.
const REASON: &str = "refused_by_bus";

/// Names the entry by (gateway, epoch, seq) and puts what is known of it into headers. The
/// payload is moved, or cut into parts, and never touched.
pub fn outbound(gateway: &Arc<str>, spooled: SpooledEntry, form: &Form) -> OutboundRecord {
    let provenance =
        Provenance { gateway: gateway.clone(), epoch: spooled.epoch, seq: spooled.seq };
    let letter = match (spooled.entry, form) {
        (Entry::Event(event), Form::AsIs) => return event_record(event, provenance),
        (Entry::Event(event), Form::Letter { reason }) => refused(event, reason),
        (Entry::Event(event), Form::Parts { reason, .. }) => {
            refused(event, reason.as_deref().unwrap_or_default())
        }
        (Entry::DeadLetter(letter), _) => letter,
    };
    match form {
        Form::AsIs | Form::Letter { .. } => letter_record(letter, provenance),
        Form::Parts { bytes_max, next, .. } => {
            letter_record(part(letter, *bytes_max, *next), provenance)
        }
    }
}

/// Where an entry of this form goes.
pub const fn topic_of(entry: &Entry, form: Option<&Form>) -> Topic {
    match (entry, form) {
        (Entry::Event(_), None | Some(Form::AsIs)) => Topic::RawEvents,
        _ => Topic::DeadLetter,
    }
}

/// Whose it is: what its partition follows from.
pub fn key_of(entry: &Entry) -> Option<&str> {
    match entry {
        Entry::Event(event) => Some(&event.device_id),
        Entry::DeadLetter(letter) => letter.device_id.as_deref(),
    }
}

/// The bytes of its payload.
pub const fn payload_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Event(event) => event.payload.len(),
        Entry::DeadLetter(letter) => letter.payload.len(),
    }
}

fn event_record(event: EventEntry, provenance: Provenance) -> OutboundRecord {
    OutboundRecord {
        topic: Topic::RawEvents,
        headers: codec::encode_event(&EventMeta {
            schema_version: event.schema_version,
            fleet: event.fleet,
            provenance,
            received_at: event.received_at,
            flags: event.flags,
            traceparent: event.traceparent,
        }),
        key: Some(event.device_id),
        payload: event.payload,
    }
}

fn letter_record(letter: DeadLetterEntry, provenance: Provenance) -> OutboundRecord {
    OutboundRecord {
        topic: Topic::DeadLetter,
        headers: codec::encode_dead_letter(&DeadLetterMeta {
            stage: letter.stage,
            reason: letter.reason,
            detail: letter.detail,
            schema_version: letter.schema_version,
            fleet: letter.fleet,
            provenance,
            first_seen: letter.first_seen,
            attempts: 1,
            source: None,
            traceparent: letter.traceparent,
        }),
        key: letter.device_id,
        payload: letter.payload,
    }
}

/// An event that the bus would refuse for ever.
fn refused(event: EventEntry, said: &str) -> DeadLetterEntry {
    let topic = Topic::RawEvents.base_name();
    let detail = json!({ "topic": topic, "said": said, "bytes": event.payload.len() });
    DeadLetterEntry {
        device_id: Some(event.device_id),
        stage: STAGE.to_owned(),
        reason: REASON.to_owned(),
        detail: detail.to_string(),
        schema_version: Some(event.schema_version),
        fleet: event.fleet,
        first_seen: event.received_at,
        traceparent: event.traceparent,
        payload: event.payload,
    }
}

/// A part of a letter that is too large whole. The first one has the letter's own detail.
fn part(letter: DeadLetterEntry, bytes_max: usize, number: usize) -> DeadLetterEntry {
    let bytes = letter.payload.len();
    let bytes_max = bytes_max.max(1);
    let from = (number * bytes_max).min(bytes);
    let payload = letter.payload.slice(from..(from + bytes_max).min(bytes));
    let own: Value = match number {
        0 => serde_json::from_str(&letter.detail).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    let (part, parts) = (number + 1, bytes.div_ceil(bytes_max));
    let detail = json!({ "part": part, "parts": parts, "bytes": bytes, "from": from, "of": own });
    DeadLetterEntry { detail: detail.to_string(), payload, ..letter }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use penstock_common::event::{Epoch, Flags, UnixMicros};

    use super::*;
    use crate::spool::Position;

    fn event(payload: Vec<u8>) -> SpooledEntry {
        let entry = Entry::Event(EventEntry {
            device_id: "d".into(),
            schema_version: 2,
            fleet: "f".into(),
            received_at: UnixMicros(7),
            flags: Flags::NONE,
            traceparent: None,
            payload: payload.into(),
        });
        let position = Position { segment: 1, epoch: Epoch(255), seq: 9 };
        SpooledEntry { position, epoch: Epoch(255), seq: 9, entry }
    }

    fn header<'a>(record: &'a OutboundRecord, name: &str) -> &'a str {
        let found = record.headers.iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    }

    /// N4: with the reason, the bytes, and under the number that the ledger waits for.
    #[test]
    fn an_event_that_the_bus_refuses_is_a_dead_letter_under_its_own_number() {
        let form = Form::Letter { reason: "too large".into() };
        assert_eq!(topic_of(&event(vec![1]).entry, Some(&form)), Topic::DeadLetter);
        let record = outbound(&"g".into(), event(vec![1, 2, 3]), &form);
        assert_eq!((record.topic, record.key.as_deref()), (Topic::DeadLetter, Some("d")));
        assert_eq!(record.payload, Bytes::from_static(&[1, 2, 3]));
        for (name, value) in [
            ("epoch", "00000000000000ff"),
            ("seq", "9"),
            ("stage", "gateway.forward"),
            ("reason", "refused_by_bus"),
            ("schema", "2"),
            ("first_seen", "7"),
            ("detail", r#"{"bytes":3,"said":"too large","topic":"raw-events"}"#),
        ] {
            assert_eq!(header(&record, name), value, "{name}");
        }
    }

    #[test]
    fn the_parts_of_a_letter_are_the_whole_of_it() {
        let payload: Vec<u8> = (0..=99).collect();
        let mut joined = Vec::new();
        for next in 0..4 {
            let form = Form::Parts { reason: Some("too large".into()), bytes_max: 30, next };
            let record = outbound(&"g".into(), event(payload.clone()), &form);
            let detail: Value = serde_json::from_str(header(&record, "detail")).unwrap();
            assert_eq!((&detail["part"], &detail["parts"]), (&json!(next + 1), &json!(4)));
            assert_eq!(detail["from"], json!(joined.len()));
            assert_eq!(detail["of"]["said"] == "too large", next == 0);
            joined.extend_from_slice(&record.payload);
        }
        assert_eq!(joined, payload);
    }
}
