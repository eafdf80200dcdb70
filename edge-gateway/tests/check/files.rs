//! The files that others put beside the gateway: the snapshot, the certificate.

use penstock_common::schema::SchemaSet;
use penstock_common::snapshot::{
    self as file, CorePressure, Fleet, FleetKey, KeyHash, Limits, SchemaDocument, Snapshot,
};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use uuid::Uuid;

use crate::Bench;

/// Puts a snapshot there with one key of the fleet.
fn put_snapshot(bench: &Bench, made_at: jiff::Timestamp, expires_at: Option<jiff::Timestamp>) {
    let schema = |(version, text): (u32, &str)| SchemaDocument {
        version,
        schema: serde_json::from_str(text).unwrap(),
    };
    let key = FleetKey { id: Uuid::new_v4(), sha256: KeyHash::of(b"one"), expires_at };
    let snapshot = Snapshot {
        made_at,
        schemas: (1..).zip(SchemaSet::BAKED).map(schema).collect(),
        firmware_rules: serde_json::from_str(SchemaSet::BAKED_RULES).unwrap(),
        fleets: vec![Fleet {
            name: "press-line".into(),
            limits: Limits::default(),
            keys: vec![key],
        }],
        core_pressure: CorePressure::default(),
    };
    file::write(&bench.path("snapshot.json"), &snapshot.encode().unwrap()).unwrap();
}

fn days(days: i64) -> jiff::Timestamp {
    jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days)
}

/// I4, I11: the age, the version, the fleets, and whether devices can get in at all.
#[test]
fn the_snapshot() {
    let bench = Bench::new();
    let set = format!("snapshot.file={}", bench.path("snapshot.json").display());
    let check = || bench.check(&["http.auth=required", &set]);
    bench.check(&[]).says("snapshot", "ok", "no key is asked for");

    let said = check();
    said.says("snapshot", "fail", "the built-in one is used, which knows no key");
    said.says("keys", "fail", "The fleet press-line has no good key");
    said.says("schemas", "ok", "v1, v2, v3 built in");

    put_snapshot(&bench, days(-2), None);
    let said = check();
    said.says("snapshot", "ok", "(2 d 0 h ago)");
    said.says("snapshot", "ok", "1 fleets, 1 good keys");
    said.says("schemas", "ok", "v1, v2, v3 in the snapshot");
    said.says("keys", "ok", "press-line has a good key");
    assert_eq!(said.failed(), ["kafka"]);

    put_snapshot(&bench, days(-40), Some(days(3)));
    let said = check();
    said.says("snapshot", "warn", "is 40 d 0 h old");
    said.says("keys", "warn", "The last key of the fleet press-line ends at");
    put_snapshot(&bench, days(0), Some(days(-1)));
    check().says("keys", "fail", "has no good key");

    // A copy that a gateway has kept is better than nothing, and what is broken is named.
    put_snapshot(&bench, days(0), None);
    std::fs::copy(bench.path("snapshot.json"), bench.path("snapshot.json.kept")).unwrap();
    std::fs::write(bench.path("snapshot.json"), "{\"format\":1").unwrap();
    let said = check();
    said.says("snapshot", "warn", "not a whole snapshot");
    said.says("keys", "ok", "press-line");
}

fn certificate(end_year: i32) -> (String, String) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(end_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// I13: whether it fits its key, and when it ends.
#[test]
fn the_certificate() {
    let bench = Bench::new();
    let set = ["cert", "key"].map(|part| {
        format!("http.tls.{part}_file={}", bench.path(&format!("{part}.pem")).display())
    });
    let check = || bench.check(&[&set[0], &set[1]]);
    let put = |certificate: &str, key: &str| {
        std::fs::write(bench.path("cert.pem"), certificate).unwrap();
        std::fs::write(bench.path("key.pem"), key).unwrap();
    };
    bench.check(&[]).says("certificate", "ok", "on this machine only");
    let said = bench.check(&["http.listen=0.0.0.0:0"]);
    said.says("certificate", "warn", "travel in the clear");
    check().says("certificate", "fail", "put the file there");

    let (good, key) = certificate(2090);
    put(&good, &key);
    check().says("certificate", "ok", "good until 2090-01-01T00:00:00");
    put(&good, &certificate(2090).1);
    check().says("certificate", "fail", "is not the key of the certificate");
    let (ended, key) = certificate(2021);
    put(&ended, &key);
    check().says("certificate", "fail", "has ended at 2021-01-01T00:00:00");
}
