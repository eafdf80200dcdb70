//! The snapshot's parser, behind its checksum and before it.

use penstock_common::snapshot::Snapshot;
use rand::RngExt;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};

use crate::{Target, fuzz, kind};

struct Snapshots;

impl Target for Snapshots {
    const NAME: &'static str = "snapshot";
    const PIECES: &'static [&'static [u8]] = &[
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"1e999",
        b"-1",
        b"0.0000001",
        b"null",
        b"true",
        b"\xff",
        b"4294967296",
        b"99999999999999999999",
        b"\"2026-01-15T08:30:00Z\"",
        b"\"-009999-01-01T00:00:00Z\"",
        b"\"format\":1,",
        b"\"snapshot\":{},",
        b"\"keys\":[],",
        b"\"schema\":1",
        b"\"firmware\":\"*\"",
        b"\"properties\":{\"metrics\":{\"properties\":{\"a\":{}}}}",
        b"\"minimum\":1e308,",
        b"\"type\":\"number\",",
        b"\"$ref\":\"#\",",
        b"\"pattern\":\"(a*)*$\",",
        b"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
    ];

    fn run(&mut self, random: &mut StdRng, case: &[u8]) -> String {
        // Cases are the content; mostly it comes in an envelope that fits, as only then anything
        // of it is looked at.
        let bytes = match random.random_range(0..8) {
            0 => case.to_vec(),
            _ => enveloped(case),
        };
        let decoded = match Snapshot::decode(&bytes) {
            Ok(decoded) => decoded,
            Err(error) => return kind(&error.to_string()),
        };
        let again = decoded.snapshot.encode().expect("what was read can be written");
        let again = Snapshot::decode(&again).expect("what was written can be read");
        assert_eq!(again.snapshot.fleets, decoded.snapshot.fleets);
        assert_eq!(again.snapshot.core_pressure, decoded.snapshot.core_pressure);
        match decoded.snapshot.schema_set() {
            Ok(schemas) => format!("{} schemas", schemas.schemas().len()),
            Err(error) => kind(&error.to_string()),
        }
    }
}

fn enveloped(content: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(content);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let head = format!(r#"{{"format":1,"sha256":"{digits}","snapshot":"#);
    [head.as_bytes(), content, b"}"].concat()
}

#[test]
fn no_snapshot_is_too_much() {
    fuzz(Snapshots);
}
