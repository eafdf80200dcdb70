//! Every file of `schemas/samples` is admitted or rejected as it says (spec E5, E6).

use std::collections::BTreeMap;
use std::path::PathBuf;

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
fn good_samples_are_accepted_under_their_schema() {
    let files = samples("good");
    for version in 1..=3 {
        assert!(files.contains_key(&format!("v{version}.json")));
    }
    for (name, bytes) in files {
        let good = admit(&bytes).unwrap_or_else(|rejected| panic!("{name}: {rejected:?}"));
        assert_eq!(format!("v{}", good.schema_version), name[..2], "{name}");
        let unknown = name.contains("unknown");
        assert_eq!(good.flags.contains(Flags::UNKNOWN_FIELDS), unknown, "{name}");
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
        let rejection = rejection(&bytes);
        let Expected { reason, pointer, rule } = &expected[&name];
        assert_eq!(rejection.reason.as_str(), reason, "{name}: {rejection:?}");
        let found = rejection.errors.iter().any(|e| e.pointer == *pointer && e.rule == *rule);
        assert!(found, "{name}: {rejection:?}");
    }
}
