use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 äöü€\u{1F600}]{0,40}"
}

fn event() -> impl Strategy<Value = Entry> {
    let payload = vec(any::<u8>(), 0..300);
    (text(), any::<u32>(), text(), any::<i64>(), any::<u32>(), option::of(text()), payload)
        .prop_map(|(device_id, schema_version, fleet, time, flags, traceparent, payload)| {
            Entry::Event(EventEntry {
                device_id,
                schema_version,
                fleet: fleet.into(),
                received_at: UnixMicros(time),
                flags: Flags::from_bits(flags),
                traceparent,
                payload: payload.into(),
            })
        })
}

fn dead_letter() -> impl Strategy<Value = Entry> {
    let optional = (option::of(text()), option::of(any::<u32>()), option::of(text()));
    let payload = vec(any::<u8>(), 0..300);
    (optional, vec(text(), 4), any::<i64>(), payload).prop_map(
        |((device_id, schema_version, traceparent), texts, time, payload)| {
            Entry::DeadLetter(DeadLetterEntry {
                device_id,
                stage: texts[0].clone(),
                reason: texts[1].clone(),
                detail: texts[2].clone(),
                schema_version,
                fleet: texts[3].as_str().into(),
                first_seen: UnixMicros(time),
                traceparent,
                payload: payload.into(),
            })
        },
    )
}

fn encode(entry: &Entry) -> Bytes {
    let mut out = Vec::new();
    entry.encode(&mut out).unwrap();
    assert!(out.len() <= entry.encoded_bytes_max());
    out.into()
}

fn decode(bytes: &Bytes) -> Result<Entry, EntryError> {
    Entry::decode(bytes, &mut Arc::from(""))
}

proptest! {
    #[test]
    fn entries_round_trip(entry in prop_oneof![event(), dead_letter()]) {
        prop_assert_eq!(decode(&encode(&entry)).unwrap(), entry);
    }

    #[test]
    fn a_truncated_entry_is_refused_or_only_its_payload_is_short(
        entry in prop_oneof![event(), dead_letter()], cut: prop::sample::Index,
    ) {
        let bytes = encode(&entry);
        let payload = match &entry {
            Entry::Event(event) => event.payload.len(),
            Entry::DeadLetter(letter) => letter.payload.len(),
        };
        let n = cut.index(bytes.len());
        // The payload has no length of its own: the log's does that, under its checksum.
        prop_assert_eq!(decode(&bytes.slice(..n)).is_ok(), n >= bytes.len() - payload);
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in vec(any::<u8>(), 0..200), kind in 0..4_u8) {
        let _ = decode(&Bytes::from(bytes.clone()));
        let mut bytes = [&[VERSION, kind, 7, 0][..], &bytes].concat();
        let _ = decode(&Bytes::from(bytes.clone()));
        if let Some(length) = bytes.get_mut(20..24) {
            length.copy_from_slice(&u32::MAX.to_le_bytes());
            prop_assert!(decode(&Bytes::from(bytes)).is_err());
        }
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let entry = Entry::Event(EventEntry {
        device_id: "d-1".into(),
        schema_version: 3,
        fleet: "f".into(),
        received_at: UnixMicros(0x0102_0304),
        flags: Flags::LATE,
        traceparent: None,
        payload: Bytes::from_static(b"{}"),
    });
    let expected = [
        &[1, 1, 3, 0][..],
        &[1, 0, 0, 0],
        &[4, 3, 2, 1, 0, 0, 0, 0],
        &[3, 0, 0, 0],
        b"\x01\0\0\0f",
        b"\x03\0\0\0d-1",
        b"{}",
    ];
    assert_eq!(encode(&entry), expected.concat());
}

#[test]
fn entries_of_one_fleet_share_its_name_and_the_payload_is_not_copied() {
    let bytes = encode(&Entry::Event(EventEntry {
        device_id: "d".into(),
        schema_version: 1,
        fleet: "press-line".into(),
        received_at: UnixMicros(0),
        flags: Flags::NONE,
        traceparent: None,
        payload: vec![7; 1000].into(),
    }));
    let mut fleet = Arc::from("");
    let mut decode = || match Entry::decode(&bytes, &mut fleet) {
        Ok(Entry::Event(event)) => event,
        other => panic!("{other:?}"),
    };
    let (first, second) = (decode(), decode());
    assert!(Arc::ptr_eq(&first.fleet, &second.fleet));
    assert!(bytes.as_ptr_range().contains(&first.payload.as_ptr()));
}

#[test]
fn a_text_beyond_its_limit_is_refused() {
    let entry = Entry::Event(EventEntry {
        device_id: "x".repeat(TEXT_BYTES_MAX + 1),
        schema_version: 1,
        fleet: "f".into(),
        received_at: UnixMicros(0),
        flags: Flags::NONE,
        traceparent: None,
        payload: Bytes::new(),
    });
    assert_eq!(entry.encode(&mut Vec::new()), Err(EntryError::Text));
}
