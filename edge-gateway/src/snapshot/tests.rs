use std::path::Path;
use std::time::{Duration, Instant};

use penstock_common::clock::ManualClock;
use penstock_common::snapshot::{self as file, Fleet, FleetKey, KeyHash, Limits, Rate, Snapshot};
use prometheus::Registry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;

/// 2026-01-15T08:31:00Z.
const NOW: UnixMicros = UnixMicros(1_768_465_860_000_000);
const PATIENCE: Duration = Duration::from_secs(20);

fn fleet(name: &str, keys: &[(&str, Option<&str>)]) -> Fleet {
    let key = |&(secret, expires_at): &(&str, Option<&str>)| FleetKey {
        id: Uuid::new_v4(),
        sha256: KeyHash::of(secret.as_bytes()),
        expires_at: expires_at.map(|end| end.parse().unwrap()),
    };
    Fleet { name: name.into(), limits: Limits::default(), keys: keys.iter().map(key).collect() }
}

fn snapshot(made_at: &str, fleets: Vec<Fleet>) -> Vec<u8> {
    let schema = |(version, text): (u32, &str)| file::SchemaDocument {
        version,
        schema: serde_json::from_str(text).unwrap(),
    };
    let snapshot = Snapshot {
        made_at: made_at.parse().unwrap(),
        schemas: (1..).zip(SchemaSet::BAKED).map(schema).collect(),
        firmware_rules: serde_json::from_str(SchemaSet::BAKED_RULES).unwrap(),
        fleets,
        core_pressure: CorePressure { hold: true, ..CorePressure::default() },
    };
    snapshot.encode().unwrap()
}

struct Rig {
    dir: TempDir,
    config: SnapshotConfig,
    registry: Registry,
    clock: Arc<ManualClock>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("snapshot.json"));
        let config = SnapshotConfig { file, poll_interval_ms: 10, ..SnapshotConfig::default() };
        Self { dir, config, registry: Registry::new(), clock: Arc::new(ManualClock::new(NOW)) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> (Snapshots, Watcher) {
        let metrics = SnapshotMetrics::new(&self.registry).unwrap();
        open(self.config.clone(), self.clock.clone(), metrics).unwrap()
    }

    /// Opens as after a restart: with metrics of its own.
    fn reopen(&mut self) -> Snapshots {
        self.registry = Registry::new();
        self.open().0
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metrics = family.get_metric().iter();
        metrics.map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }
}

fn put(path: &Path, bytes: &[u8]) {
    file::write(path, bytes).unwrap();
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// I11: without any file there are the schemas that the program brings, and no key.
#[test]
fn the_first_that_can_be_used_is_taken() {
    let mut rig = Rig::new();
    let origin = |snapshots: &Snapshots| snapshots.current().origin;
    let built_in = rig.reopen();
    assert_eq!(origin(&built_in), Origin::Baked);
    assert_eq!(built_in.current().schemas.newest().version(), 3);
    assert_eq!(rig.metric("penstock_snapshot_keys"), 0.0);

    rig.config.image_file = Some(rig.path("image.json"));
    put(&rig.path("image.json"), &snapshot("2026-01-01T00:00:00Z", vec![fleet("f", &[])]));
    let image = rig.reopen();
    assert_eq!(origin(&image), Origin::Image);
    assert!(image.current().keys.fleet("f").is_some());

    put(&rig.path("snapshot.json"), &snapshot("2026-01-15T08:30:00Z", vec![fleet("g", &[])]));
    let from_file = rig.reopen();
    assert_eq!((origin(&from_file), from_file.fault()), (Origin::File, None));
    assert_eq!(from_file.current().age_s(NOW), Some(60));
    assert_eq!(rig.metric("penstock_snapshot_age_seconds"), 60.0);
    assert!(from_file.core_pressure().borrow().hold);

    // The file breaks while the gateway is down: the copy has the keys all the same.
    std::fs::write(rig.path("snapshot.json"), b"{\"format\":1").unwrap();
    let kept = rig.reopen();
    assert_eq!(origin(&kept), Origin::Kept);
    assert!(kept.current().keys.fleet("g").is_some());
    assert!(kept.fault().unwrap().contains("not a whole snapshot"), "{:?}", kept.fault());
    assert_eq!(rig.metric("penstock_snapshot_faulty"), 1.0);
}

#[tokio::test]
async fn a_new_file_is_taken_and_a_broken_one_told_once() {
    let rig = Rig::new();
    let good = snapshot("2026-01-15T08:30:00Z", vec![fleet("f", &[("one", None)])]);
    put(&rig.path("snapshot.json"), &good);
    let (snapshots, watcher) = rig.open();
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watcher.run(stop.clone()));
    let before = snapshots.current();
    assert!(before.keys.fleet_of(b"one", NOW).is_ok());

    let mut broken = good.clone();
    let at = broken.len() / 2;
    broken[at] ^= 1;
    put(&rig.path("snapshot.json"), &broken);
    until("the broken file is seen", || snapshots.fault().is_some()).await;
    // Looked at some more times, told no more often.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.metric("penstock_snapshot_refused_total"), 1.0);
    assert!(Arc::ptr_eq(&before, &snapshots.current()), "the one before holds");

    std::fs::remove_file(rig.path("snapshot.json")).unwrap();
    until("the file is missed", || snapshots.fault().is_some_and(|f| f.contains("No such"))).await;

    let two = snapshot("2026-01-15T08:30:01Z", vec![fleet("f", &[("two", None)])]);
    put(&rig.path("snapshot.json"), &two);
    until("the new one is taken", || snapshots.current().keys.fleet_of(b"two", NOW).is_ok()).await;
    assert_eq!(snapshots.current().keys.fleet_of(b"one", NOW), Err(KeyFault::Unknown));
    assert_eq!(snapshots.fault(), None);
    assert_eq!(rig.metric("penstock_snapshot_taken_total"), 2.0);
    assert_eq!(std::fs::read(rig.path("snapshot.json.kept")).unwrap(), two);
    // Who began with the old one goes on with it.
    assert!(before.keys.fleet_of(b"one", NOW).is_ok());
    stop.cancel();
    watching.await.unwrap();
}

/// I4: several keys at once, each with its own end.
#[test]
fn keys_lead_to_their_fleet_until_they_end() {
    let fleets = [
        fleet("f", &[("old", Some("2026-01-15T08:31:00Z")), ("new", Some("2026-02-01T00:00:00Z"))]),
        fleet("g", &[("g", None)]),
        fleet("h", &[]),
    ];
    let keyring = Keyring::of(&fleets);
    let just_before = UnixMicros(NOW.0 - 1);
    for (key, now, expected) in [
        ("old", just_before, Ok("f")),
        ("old", NOW, Err(KeyFault::Expired)),
        ("new", NOW, Ok("f")),
        ("g", UnixMicros(i64::MAX), Ok("g")),
        ("", NOW, Err(KeyFault::Unknown)),
        ("nonsense", NOW, Err(KeyFault::Unknown)),
    ] {
        let found = keyring.fleet_of(key.as_bytes(), now).map(|fleet| fleet.name.as_ref());
        assert_eq!(found, expected, "{key}");
    }
    assert_eq!((keyring.valid(just_before), keyring.valid(NOW)), (3, 2));
    let end: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
    assert_eq!(keyring.end_of("f", NOW), Some(Some(UnixMicros(end.as_microsecond()))));
    assert_eq!((keyring.end_of("g", NOW), keyring.end_of("h", NOW)), (Some(None), None));
}

#[test]
fn limits_come_along() {
    let limits = Limits { requests: Some(Rate { per_second: 2.0, burst: 3 }), events: None };
    let keyring = Keyring::of(&[Fleet { limits, ..fleet("f", &[("k", None)]) }]);
    assert_eq!(keyring.fleet("f").unwrap().limits, limits);
    assert_eq!(keyring.fleet_of(b"k", NOW).unwrap().limits, limits);
}

#[test]
fn wrong_settings_are_named() {
    let wrong = SnapshotConfig {
        file: Some(PathBuf::new()),
        kept_file: Some(PathBuf::new()),
        image_file: None,
        poll_interval_ms: 1,
    };
    let mut problems = Vec::new();
    wrong.validate(&mut problems);
    let text = problems.join("\n");
    for key in ["snapshot.file is empty", "poll_interval_ms: 1", "kept_file is snapshot.file"] {
        assert!(text.contains(key), "{key} is not in {text}");
    }
    assert_eq!(SnapshotConfig { kept_file: Some(PathBuf::new()), ..wrong }.kept(), None);
}
