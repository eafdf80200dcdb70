//! Request bodies: content type, content encoding, splitting, the check of every event.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use edge_gateway::admit::{Admitter, BODY_BYTES_MAX, Request};
use edge_gateway::spool::entry::Entry;
use penstock_common::event::UnixMicros;
use penstock_common::schema::SchemaSet;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::{Target, fuzz, kind};

struct Bodies {
    admitter: Admitter,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Target for Bodies {
    const NAME: &'static str = "body";
    const PIECES: &'static [&'static [u8]] = &[
        b"\"",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"\\u0000",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\n",
        b"\r\n",
        b" ",
        b"1e999",
        b"-0",
        b"-",
        b"1.",
        b"0.1e-400",
        b"123456789012345678901234567890",
        b"null",
        b"true",
        b"\xff",
        b"\xc3\xa9",
        b"\xef\xbb\xbf",
        b"\0",
        b"\"metrics\":{},",
        b"\"device_id\":\"",
        b"\"device_firmware_version\":\"9.9.9-x+y\",",
        b"\"timestamp\":\"9999-12-31T23:59:59.999999999Z\",",
        b"\"timestamp\":\"0000-01-01T00:00:00-23:59\",",
        b"\"event_id\":\"018f3c2a-7b1e-7c3d-9a4f-000000000001\",",
    ];

    fn run(&mut self, random: &mut StdRng, case: &[u8]) -> String {
        let (encoding, body) = match random.random_range(0..8) {
            0 => (Some("gzip"), gzip(case)),
            1 => (Some("zstd"), self.zstd.compress(case).unwrap()),
            // Not what it is said to be.
            2 => (
                Some(["gzip", "zstd", "br", "identity, gzip"][random.random_range(0..4)]),
                case.to_vec(),
            ),
            // Damaged behind the compression.
            3 => (Some("gzip"), damaged(random, gzip(case))),
            4 => {
                let compressed = self.zstd.compress(case).unwrap();
                (Some("zstd"), damaged(random, compressed))
            }
            _ => (None, case.to_vec()),
        };
        let types = [
            "application/json",
            "application/x-ndjson",
            "application/json; charset=utf-8",
            "application/json; charset",
        ];
        let content_type = match random.random_range(0..8) {
            0 => types[random.random_range(0..types.len())],
            1..=3 => types[1],
            _ => types[0],
        };
        let admission = self.admitter.admit(Request {
            content_type: Some(content_type),
            content_encoding: encoding,
            received_at: UnixMicros(1_768_465_860_000_000),
            is_clock_set: true,
            traceparent: None,
            topic: None,
            body: Bytes::from(body),
        });
        let admission = match admission {
            Ok(admission) => admission,
            Err(refusal) => return kind(&format!("{refusal:?}")),
        };
        assert_eq!(admission.outcomes.len(), admission.entries.len());
        let mut bytes = 0;
        for entry in &admission.entries {
            let mut written = Vec::new();
            entry.encode(&mut written).expect("what was admitted can be written");
            let mut fleet: Arc<str> = "".into();
            let read = Entry::decode(&Bytes::from(written), &mut fleet);
            assert_eq!(read.as_ref(), Ok(entry));
            bytes += match entry {
                Entry::Event(event) => event.payload.len(),
                Entry::DeadLetter(letter) => letter.payload.len(),
            };
        }
        assert!(bytes <= BODY_BYTES_MAX, "{bytes} bytes of events");
        let first = admission.outcomes.iter().find_map(|outcome| outcome.rejection());
        first.map_or_else(
            || format!("{} accepted", admission.accepted()),
            |rejection| {
                let rules = rejection.errors.iter().map(|error| error.rule.as_str());
                format!("{:?} {}", rejection.reason, rules.take(3).collect::<Vec<_>>().join(" "))
            },
        )
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn damaged(random: &mut StdRng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
    }
    if random.random_bool(0.2) {
        bytes.truncate(random.random_range(0..=bytes.len()));
    }
    bytes
}

#[test]
fn no_body_is_too_much() {
    let admitter = Admitter::new(SchemaSet::baked().unwrap(), "press-line".into());
    fuzz(Bodies { admitter, zstd: zstd::bulk::Compressor::new(1).unwrap() });
}
