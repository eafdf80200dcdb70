//! What stands in the spool's segments: records, and the entries in them.

use std::sync::Arc;

use bytes::Bytes;
use edge_gateway::spool::entry::{DeadLetterEntry, Entry, EventEntry};
use penstock_common::event::{Epoch, Flags, UnixMicros};
use penstock_common::log::record::{
    Compression, Encoder, Frames, GROUP_BYTES_MAX, Group, HEADER_BYTES, RecordHeader,
};
use penstock_common::log::seal::{KEY_BYTES, Key, KeyId, Keys};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::{Target, fuzz, kind};

const PIECES: &[&[u8]] = &[
    b"\xf5PS\xa9",
    b"\x01",
    b"\x02",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x10\x00\x00\x00",
    b"\x00\x00\x40\x00",
    b"\x00\x00\x00\x01",
    b"\xf0\xff\xff\xff\xff",
    b"\x1fa\x01\x00",
    b"\xc3",
    b"press-17",
];

/// One of each kind, with everything and with nothing.
fn entries() -> Vec<Entry> {
    let event = EventEntry {
        device_id: "press-17".into(),
        schema_version: 3,
        fleet: "press-line".into(),
        received_at: UnixMicros(1_768_465_860_000_000),
        flags: Flags::from_bits(5),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        payload: Bytes::from_static(b"{\"event_id\":\"018f3c2a-7b1e-7c3d-9a4f-000000000001\"}"),
    };
    let letter = DeadLetterEntry {
        device_id: None,
        stage: "gateway.admit".into(),
        reason: "schema_violation".into(),
        detail: "{\"index\":0,\"errors\":[]}".into(),
        schema_version: None,
        fleet: "press-line".into(),
        first_seen: UnixMicros(-1),
        traceparent: None,
        payload: Bytes::new(),
    };
    vec![
        Entry::Event(event.clone()),
        Entry::Event(EventEntry { traceparent: None, payload: Bytes::new(), ..event }),
        Entry::DeadLetter(letter.clone()),
        Entry::DeadLetter(DeadLetterEntry {
            device_id: Some(String::new()),
            schema_version: Some(u32::MAX),
            ..letter
        }),
    ]
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes).unwrap();
    bytes
}

fn decode_entry(bytes: &[u8]) -> String {
    let mut fleet: Arc<str> = "".into();
    match Entry::decode(&Bytes::copy_from_slice(bytes), &mut fleet) {
        Ok(entry) => {
            let again = Entry::decode(&encoded(&entry).into(), &mut fleet);
            assert_eq!(again, Ok(entry), "what was read can be written and read");
            "good".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

struct Entries;

impl Target for Entries {
    const NAME: &'static str = "entry";
    const PIECES: &'static [&'static [u8]] = PIECES;

    fn seeds(&self) -> Vec<Vec<u8>> {
        entries().iter().map(encoded).collect()
    }

    fn run(&mut self, _: &mut StdRng, case: &[u8]) -> String {
        decode_entry(case)
    }
}

fn key() -> Key {
    Key::new(KeyId(1), &[7; KEY_BYTES])
}

struct Records;

impl Target for Records {
    const NAME: &'static str = "record";
    const PIECES: &'static [&'static [u8]] = PIECES;

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut group = Group::new();
        let mut seeds = Vec::new();
        let key = key();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for key in [None, None, Some(&key)] {
                entries().iter().for_each(|entry| group.push(&encoded(entry)));
                seeds.push(Encoder::new(compression, key).encode(&group, Epoch(7), 40).to_vec());
            }
            group.clear();
        }
        seeds
    }

    fn run(&mut self, random: &mut StdRng, case: &[u8]) -> String {
        let mut bytes = case.to_vec();
        if random.random_bool(0.8) {
            mend(random, &mut bytes);
        }
        let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return "short".to_owned();
        };
        let header = match RecordHeader::decode(head) {
            Ok(header) => header,
            Err(error) => return kind(&error.to_string()),
        };
        // As much as the header says, as the reader does.
        let mut body = body[..body.len().min(header.body_bytes())].to_vec();
        match header.decode_body(&mut body, &Keys::new(vec![key()])) {
            Ok(plain) => {
                assert!(plain.len() <= GROUP_BYTES_MAX);
                assert_eq!(Frames::of(&plain).count(), header.count as usize);
                let ends: Vec<String> = Frames::of(&plain).take(50).map(decode_entry).collect();
                format!("read: {}", ends.last().cloned().unwrap_or_default())
            }
            Err(error) => kind(&error.to_string()),
        }
    }
}

/// Makes length and checksums fit what is there, so that what lies behind them is tried.
fn mend(random: &mut StdRng, bytes: &mut [u8]) {
    let Some((head, body)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    if random.random_bool(0.9) {
        head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        if head[5] == 0 {
            head.copy_within(8..12, 12);
        }
    }
    head[40..44].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&head[..44]);
    head[44..48].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn no_entry_is_too_much() {
    fuzz(Entries);
}

#[test]
fn no_record_is_too_much() {
    fuzz(Records);
}
