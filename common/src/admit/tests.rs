//! The rules on single events: the sample set, every field, and bytes that are no event.

mod fields;
mod samples;

use std::sync::OnceLock;

use super::{ERRORS_MAX, Identity, Reason, Rejected, Rejection, identity};
use crate::event::{Flags, UnixMicros};
use crate::schema::SchemaSet;
use crate::schema::tape::Tape;

/// Shortly after the samples were "measured": 2026-01-15T08:31:00Z.
const RECEIVED_AT: UnixMicros = UnixMicros(1_768_465_860_000_000);

/// What was found out about a good event, without what is borrowed.
#[derive(Debug)]
struct Good {
    event_id: uuid::Uuid,
    device_id: String,
    timestamp: UnixMicros,
    schema_version: u32,
    flags: Flags,
}

fn admit_at(bytes: impl AsRef<[u8]>, received_at: UnixMicros) -> Result<Good, Rejected> {
    static SCHEMAS: OnceLock<SchemaSet> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(|| SchemaSet::baked().unwrap());
    let mut tape = Tape::new();
    let admitted = super::admit(schemas, &mut tape, bytes.as_ref(), received_at)?;
    let (event_id, device_id) = (admitted.event_id, admitted.device_id.clone().into_owned());
    let (timestamp, schema_version) = (admitted.timestamp, admitted.schema_version);
    Ok(Good { event_id, device_id, timestamp, schema_version, flags: admitted.flags })
}

fn admit(bytes: impl AsRef<[u8]>) -> Result<Good, Rejected> {
    admit_at(bytes, RECEIVED_AT)
}

fn rejection(bytes: impl AsRef<[u8]>) -> Rejection {
    let rejection = admit(bytes).unwrap_err().rejection;
    assert!(!rejection.errors.is_empty() && rejection.errors.len() <= ERRORS_MAX);
    rejection
}

/// A valid event with this last part of its event id.
fn event(number: usize) -> String {
    format!(
        r#"{{"event_id":"018f3c2a-7b1e-7c3d-9a4f-{number:012x}","device_id":"press-{number}","device_firmware_version":"1.4.2","timestamp":"2026-01-15T08:30:00Z","metrics":{{"cpu_temp":61.5,"vibration_rms":2.31,"supply_voltage":23.9}}}}"#
    )
}

/// Replaces text that must be there.
fn with(from: &str, to: &str) -> String {
    let event = event(1);
    assert!(event.contains(from), "{from}");
    event.replacen(from, to, 1)
}

#[test]
fn a_good_event_gives_what_travels_beside_it() {
    let good = admit(format!(" \n{}\t", event(7))).unwrap();
    assert_eq!(good.event_id.to_string(), "018f3c2a-7b1e-7c3d-9a4f-000000000007");
    assert_eq!((good.device_id.as_str(), good.schema_version), ("press-7", 1));
    assert_eq!(good.timestamp.to_rfc3339(), "2026-01-15T08:30:00Z");
}

#[test]
fn bytes_that_are_not_one_event_are_malformed() {
    let two = format!("{} {}", event(1), event(2));
    for bytes in [&b""[..], b" ", b"{", b"\xff", b"{\"a\":\"\xff\"}", two.as_bytes()] {
        assert_eq!(rejection(bytes).reason, Reason::MalformedJson, "{bytes:?}");
        let mut tape = Tape::new();
        assert_eq!(identity(&mut tape, bytes), Identity::default());
    }
    assert_eq!(rejection(format!("[{}]", event(1))).reason, Reason::NotAnObject);
}

#[test]
fn the_identity_is_read_whatever_else_is_wrong() {
    let read = |text: String| identity(&mut Tape::new(), text.as_bytes());
    let whole = Identity {
        device_id: Some("press-1".into()),
        event_id: Some("018f3c2a-7b1e-7c3d-9a4f-000000000001".parse().unwrap()),
        event_time: Some(UnixMicros(RECEIVED_AT.0 - 60_000_000)),
    };
    assert_eq!(read(event(1)), whole);
    assert_eq!(read(with("1.4.2", "77.0.0").replace("61.5", "[]")), whole);
    let part = Identity { event_time: None, ..whole.clone() };
    assert_eq!(read(with("2026-01-15T08:30:00Z", "yesterday")), part);
    let part = Identity { event_id: None, ..whole };
    assert_eq!(read(with("\"018f", "\"x18f")), part);
    assert_eq!(read("[1]".into()), Identity::default());
}
