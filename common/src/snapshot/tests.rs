use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).unwrap()
}

/// What every test begins with.
pub(super) fn sample() -> Snapshot {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let key = |number: u128, secret: &str, expires_at| FleetKey {
        id: Uuid::from_u128(number),
        sha256: KeyHash::of(secret.as_bytes()),
        expires_at,
    };
    Snapshot {
        made_at: at("2026-01-15T08:30:00Z"),
        schemas: vec![SchemaDocument {
            version: 1,
            schema: raw(r#"{"properties": {"metrics": {"properties": {"a": {}}}}}"#),
        }],
        firmware_rules: raw(r#"{"rules": [{"firmware": ">=1.0.0", "schema": 1}]}"#),
        fleets: vec![
            Fleet {
                name: "press-line".into(),
                limits: Limits {
                    requests: Some(Rate { per_second: 100.0, burst: 500 }),
                    events: None,
                },
                keys: vec![key(1, "one", None), key(2, "two", Some(at("2026-02-01T00:00:00.5Z")))],
            },
            Fleet { name: "mill-2".into(), limits: Limits::default(), keys: Vec::new() },
        ],
        core_pressure: CorePressure {
            hold: true,
            reason: "behind".into(),
            as_of: at("2026-01-15T08:29:59Z"),
        },
    }
}

fn enveloped(snapshot: &str) -> Vec<u8> {
    let sha256 = hex(&Sha256::digest(snapshot.as_bytes()));
    format!(r#"{{"format":1,"sha256":"{sha256}","snapshot":{snapshot}}}"#).into_bytes()
}

/// The frozen bytes: if this test has to change, the format's version must too.
#[test]
fn the_file_is_exactly_this() {
    let bytes = sample().encode().unwrap();
    let expected = concat!(
        r#"{"format":1,"#,
        r#""sha256":"19b6e9003e433e2133d8d5c0404a0206fa9247e794a51429d6f71223621333e9","#,
        r#""snapshot":{"made_at":"2026-01-15T08:30:00Z","#,
        r#""schemas":[{"version":1,"schema":{"properties": {"metrics": {"properties": {"a": {}}}}}}],"#,
        r#""firmware_rules":{"rules": [{"firmware": ">=1.0.0", "schema": 1}]},"#,
        r#""fleets":[{"name":"press-line","#,
        r#""limits":{"requests":{"per_second":100.0,"burst":500}},"keys":["#,
        r#"{"id":"00000000-0000-0000-0000-000000000001","#,
        r#""sha256":"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"},"#,
        r#"{"id":"00000000-0000-0000-0000-000000000002","#,
        r#""sha256":"3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3","#,
        r#""expires_at":"2026-02-01T00:00:00.5Z"}]},"#,
        r#"{"name":"mill-2","limits":{},"keys":[]}],"#,
        r#""core_pressure":{"hold":true,"reason":"behind","as_of":"2026-01-15T08:29:59Z"}}}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

#[test]
fn what_is_written_is_read_and_its_schemas_work() {
    let bytes = sample().encode().unwrap();
    let Decoded { snapshot, sha256 } = Snapshot::decode(&bytes).unwrap();
    assert_eq!(snapshot.encode().unwrap(), bytes);
    assert_eq!(snapshot.fleets, sample().fleets);
    assert_eq!(snapshot.core_pressure, sample().core_pressure);
    assert!(String::from_utf8(bytes).unwrap().contains(&sha256));
    let schemas = snapshot.schema_set().unwrap();
    assert_eq!(schemas.newest().metrics().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn unknown_fields_are_passed_over_and_optional_ones_may_be_absent() {
    let text = r#"{"made_at": "2026-01-15T08:30:00Z", "later": [1], "schemas": [],
        "fleets": [{"name": "f", "colour": 1, "keys": [], "limits": {"bytes": {}}}],
        "firmware_rules": {}}"#;
    let with_more = enveloped(text);
    let decoded = Snapshot::decode(&with_more).unwrap().snapshot;
    assert_eq!(decoded.fleets[0].limits, Limits::default());
    assert_eq!(decoded.core_pressure, CorePressure::default());
    assert!(!decoded.core_pressure.hold && decoded.core_pressure.as_of == Timestamp::UNIX_EPOCH);
}

/// I11: whatever part of the content a disk or a hand changes, the file is refused; and so is
/// every part of it.
#[test]
fn a_flipped_byte_or_a_cut_file_is_refused() {
    let bytes = sample().encode().unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    let content = text.find(r#""snapshot":"#).unwrap() + r#""snapshot":"#.len();
    for at in content..bytes.len() - 2 {
        for bit in [1, 1 << 4, 1 << 7] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            assert!(Snapshot::decode(&damaged).is_err(), "byte {at}, bit {bit}");
        }
    }
    for length in 0..bytes.len() - 1 {
        assert!(Snapshot::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn what_is_no_snapshot_is_refused_with_its_reason() {
    let good = String::from_utf8(sample().encode().unwrap()).unwrap();
    let content = good.split_once(r#""snapshot":"#).unwrap().1.trim_end();
    let content = &content[..content.len() - 1];
    let changed = |from: &str, to: &str| {
        assert!(content.contains(from), "{from}");
        enveloped(&content.replace(from, to))
    };
    let cases = [
        (good.replace(r#""format":1"#, r#""format":2"#).into_bytes(), "reads format 1"),
        (good.replace("behind", "before").into_bytes(), "damaged, or was changed by hand"),
        (changed("mill-2", "press-line"), "fleet press-line is there twice"),
        (changed("mill-2", "mill 2"), "no name of a fleet"),
        (changed("3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3", "0"), "64"),
        (
            changed(
                "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
                "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
            ),
            "there twice",
        ),
        (changed(r#""burst":500"#, r#""burst":0"#), "burst: 0"),
        (changed("100.0", "1e300"), "per_second: 1"),
        (changed(r#""version":1"#, r#""version":10000"#), "1 to 9999"),
        (changed("behind", &"x".repeat(501)), "at most 500"),
        (changed(r#""hold":true"#, r#""held":true"#), "missing field `hold`"),
        (b"[]".to_vec(), "not a whole snapshot"),
        (Vec::new(), "not a whole snapshot"),
        (vec![b' '; BYTES_MAX + 1], "16777217 bytes"),
    ];
    for (bytes, expected) in cases {
        let error = Snapshot::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
    let broken = Snapshot { firmware_rules: raw(r#"{"rules":[]}"#), schemas: vec![], ..sample() };
    assert!(broken.schema_set().unwrap_err().to_string().contains("no schema"));
}

#[test]
fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot.json");
    assert!(read(&path).unwrap_err().is_missing());
    for number in [1, 2] {
        let mut snapshot = sample();
        snapshot.schemas[0].version = number;
        let bytes = snapshot.encode().unwrap();
        write(&path, &bytes).unwrap();
        let (decoded, found) = read(&path).unwrap();
        assert_eq!((decoded.snapshot.schemas[0].version, found), (number, bytes));
    }
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    let error = write(&dir.path().join("none/snapshot.json"), b"").unwrap_err();
    assert!(error.to_string().contains("none/snapshot.json"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_key_is_shown_nowhere_and_its_hash_in_short() {
    let hash = KeyHash::of(b"one");
    assert_eq!(format!("{hash:?}"), "KeyHash(7692c3ad…)");
    assert!(hash == KeyHash::from_bytes(*hash.bytes()) && hash != KeyHash::of(b"two"));
}

/// Any JSON in the place of any value: refused or read, and what is read can be written.
#[test]
fn no_content_makes_it_panic() {
    let any = any::<u8>().prop_flat_map(|kind| match kind % 6 {
        0 => Just(Value::Null).boxed(),
        1 => any::<bool>().prop_map(Value::from).boxed(),
        2 => any::<f64>().prop_map(Value::from).boxed(),
        3 => ".{0,12}".prop_map(Value::from).boxed(),
        4 => Just(json!([])).boxed(),
        _ => Just(json!({"firmware": "*", "schema": 1})).boxed(),
    });
    let whole: Value = serde_json::from_slice(&sample().encode().unwrap()).unwrap();
    let mut places = Vec::new();
    pointers(&whole["snapshot"], "", &mut places);
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&(proptest::sample::select(places), any), |(place, value)| {
            let mut changed = whole["snapshot"].clone();
            *changed.pointer_mut(&place).unwrap() = value;
            if let Ok(decoded) = Snapshot::decode(&enveloped(&changed.to_string())) {
                decoded.snapshot.encode().unwrap();
                let _ = decoded.snapshot.schema_set();
            }
            Ok(())
        })
        .unwrap();
}

fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                pointers(value, &format!("{at}/{name}"), out);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}
