//! The sample set as one body; `common/src/admit` has it one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

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
fn all_samples_together_are_one_batch_with_a_status_each() {
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    let mut payloads = Vec::new();
    for kind in ["good", "bad"] {
        for (name, bytes) in samples(kind) {
            if name != "expected.json" {
                // Pretty-printed samples onto one line: outside of strings a newline is only space.
                let text: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'\n').collect();
                payloads.push(text.trim_ascii().to_vec());
                lines.extend_from_slice(&text);
                lines.push(b'\n');
                expected.push(kind == "good");
            }
        }
    }
    let admission = admit(NDJSON, lines).unwrap();
    let accepted: Vec<_> = reasons(&admission).iter().map(Option::is_none).collect();
    assert_eq!(accepted, expected);
    // Good or bad, the bytes are kept.
    for (entry, bytes) in admission.entries.iter().zip(payloads) {
        match entry {
            Entry::Event(event) => assert_eq!(event.payload, bytes),
            Entry::DeadLetter(letter) => assert_eq!(letter.payload, bytes),
        }
    }
}
