use penstock_common::admit::Identity;
use penstock_common::codec::decode_event;
use penstock_common::event::{DeadLetterMeta, Epoch, Flags, Provenance, SourceOffset};

use super::*;

const ID: &str = "018f3c2a-7b1e-7c3d-9a4f-000000000001";
/// 2026-01-15T08:31:00Z, a minute after the event.
const FIRST_SEEN: UnixMicros = UnixMicros(1_768_465_860_000_000);

fn event(firmware: &str) -> String {
    format!(
        r#"{{"event_id":"{ID}","device_id":"press-1","device_firmware_version":"{firmware}","timestamp":"2026-01-15T08:30:00Z","metrics":{{"cpu_temp":61.5,"vibration_rms":2.31,"supply_voltage":23.9}}}}"#
    )
}

fn letter(reason: &str, payload: impl Into<Vec<u8>>) -> Letter {
    Letter {
        place: SourceOffset { topic: "dead-letter".into(), partition: 0, offset: 1 },
        append_time: FIRST_SEEN,
        key: None,
        payload: payload.into(),
        meta: DeadLetterMeta {
            stage: "gateway.admit".into(),
            reason: reason.into(),
            detail: "{}".into(),
            schema_version: None,
            fleet: "press-line".into(),
            provenance: Provenance { gateway: "plant-7".into(), epoch: Epoch(255), seq: 42 },
            first_seen: FIRST_SEEN,
            attempts: 1,
            source: None,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        },
        headers: Vec::new(),
        identity: Identity::default(),
    }
}

fn decided_at(letter: &Letter, now: UnixMicros) -> Result<Replayable, Refusal> {
    let schemas = SchemaSet::baked().unwrap();
    let rules = Rules { schemas: &schemas, late_days_max: 88, now };
    decide(&rules, letter, &mut Tape::new())
}

fn decided(letter: &Letter) -> Result<Replayable, Refusal> {
    decided_at(letter, UnixMicros(FIRST_SEEN.0 + 3_600_000_000))
}

#[test]
fn an_event_keeps_its_provenance_and_gets_schema_and_flags_anew() {
    let replayable = decided(&letter("unknown_firmware", event("1.4.2"))).unwrap();
    assert_eq!((replayable.key.as_str(), replayable.schema_version), ("press-1", 1));
    let headers = replayable.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
    let meta = decode_event(headers).unwrap();
    let original = letter("", "").meta;
    assert_eq!((meta.provenance, meta.received_at), (original.provenance, FIRST_SEEN));
    assert_eq!((meta.fleet, meta.traceparent), (original.fleet, original.traceparent));
    assert_eq!((meta.schema_version, meta.flags), (1, Flags::NONE));
    let origin = ("origin", "dead-letter".to_owned());
    assert!(replayable.headers.contains(&origin));
    let mut late = letter("unknown_firmware", event("2.0.0").replace("61.5", "61.5,\"x\":1"));
    late.meta.first_seen.0 += 3_600_000_000;
    let headers = decided(&late).unwrap().headers;
    assert!(headers.contains(&("flags", "late,unknown_fields".into())), "{headers:?}");
    assert!(headers.contains(&("schema", "2".into())), "{headers:?}");
}

#[test]
fn what_can_not_be_replayed_says_why() {
    let refusal = |letter: &Letter| decided(letter).unwrap_err().reason;
    assert_eq!(refusal(&letter("unknown_firmware", event("9.0.0"))), "unknown_firmware");
    assert_eq!(refusal(&letter("x", event("1.0.0").replace("61.5", "900"))), "schema_violation");
    assert_eq!(refusal(&letter("unreadable_headers", event("1.0.0"))), "unreadable_headers");
    assert_eq!(refusal(&letter("id_conflict", event("1.0.0"))), "id_conflict");
    let mut nobodys = letter("schema_violation", event("1.0.0"));
    nobodys.meta.provenance.epoch = Epoch(0);
    assert_eq!(refusal(&nobodys), "unreadable_headers");
    for whole in [&b"[{\"a\":1},"[..], b"\x1f\x8b", b"", b"[]", b"7"] {
        let refusal = decided(&letter("malformed_json", whole)).unwrap_err();
        assert_eq!(refusal.reason, "not_an_event", "{whole:?}");
        assert!(refusal.detail.contains("whole body") && !refusal.errors.is_empty());
    }
    assert_eq!(refusal(&letter("undecodable_body", event("1.0.0"))), "not_an_event");
}

#[test]
fn an_event_that_raw_would_not_keep_is_refused() {
    let letter = letter("unknown_firmware", event("1.0.0"));
    let day = 86_400_000_000;
    let age = |days: i64| UnixMicros(FIRST_SEEN.0 - 60_000_000 + days * day);
    assert!(decided_at(&letter, age(88)).is_ok());
    let late = UnixMicros(age(88).0 + 1);
    assert_eq!(decided_at(&letter, late).unwrap_err().reason, "too_late");
}

#[test]
fn a_refusal_is_bounded_and_storable() {
    let error = || FieldError::new("/a".repeat(200), "r", "e\0".repeat(200), "g".repeat(200));
    let errors = (0..16).map(|_| error()).collect();
    let json = Refusal { errors, ..Refusal::new("x", "y") }.to_json();
    assert!(json.len() <= REFUSAL_BYTES_MAX, "{}", json.len());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(!value["errors"].as_array().unwrap().is_empty());
    assert!(!json.contains("\\u0000"));
}
