//! Every file of `schemas/samples` is admitted or rejected as it says (spec E5, E6).

use std::collections::BTreeMap;
use std::path::PathBuf;

use penstock_common::event::Flags;

use super::*;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    reason: String,
    pointer: String,
    rule: String,
}

fn samples(kind: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schemas/samples").join(kind);
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.insert(name, std::fs::read(path).unwrap());
    }
    files
}

#[test]
fn good_samples_are_accepted_under_their_schema_and_byte_for_byte() {
    let files = samples("good");
    for version in 1..=3 {
        assert!(files.contains_key(&format!("v{version}.json")));
    }
    for (name, bytes) in files {
        let admission = admit(JSON, bytes.clone()).unwrap();
        let Entry::Event(event) = &admission.entries[0] else {
            panic!("{name}: {:?}", admission.outcomes[0]);
        };
        assert_eq!(event.payload, bytes.trim_ascii(), "{name}");
        assert_eq!(format!("v{}", event.schema_version), name[..2], "{name}");
        let unknown = name.contains("unknown");
        assert_eq!(event.flags.contains(Flags::UNKNOWN_FIELDS), unknown, "{name}");
    }
}

#[test]
fn bad_samples_are_rejected_with_the_reason_the_place_and_the_rule() {
    let mut files = samples("bad");
    let expected: BTreeMap<String, Expected> =
        serde_json::from_slice(&files.remove("expected.json").unwrap()).unwrap();
    let named: Vec<_> = expected.keys().collect();
    assert_eq!(files.keys().collect::<Vec<_>>(), named);
    for (name, bytes) in files {
        let rejection = rejection(bytes.clone());
        let Expected { reason, pointer, rule } = &expected[&name];
        assert_eq!(rejection.reason.as_str(), reason, "{name}: {rejection:?}");
        let found = rejection.errors.iter().any(|e| e.pointer == *pointer && e.rule == *rule);
        assert!(found, "{name}: {rejection:?}");
        let admission = admit(JSON, bytes.clone()).unwrap();
        let Entry::DeadLetter(letter) = &admission.entries[0] else { panic!("{name}") };
        assert_eq!(letter.payload.trim_ascii(), bytes.trim_ascii(), "{name}");
    }
}

#[test]
fn all_samples_together_are_one_batch_with_a_status_each() {
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for kind in ["good", "bad"] {
        for (name, bytes) in samples(kind) {
            if name != "expected.json" {
                // Pretty-printed samples onto one line: outside of strings a newline is only space.
                let text: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'\n').collect();
                lines.extend_from_slice(&text);
                lines.push(b'\n');
                expected.push(kind == "good");
            }
        }
    }
    let admission = admit(NDJSON, lines).unwrap();
    let accepted: Vec<_> = reasons(&admission).iter().map(Option::is_none).collect();
    assert_eq!(accepted, expected);
}
