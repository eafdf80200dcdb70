//! Keys of fleets, their limits, and the snapshot that gateways work from (spec I4, I9, I11).

use cloud_core::access::secret::{Kind, Secret};
use cloud_core::bus::kafka::KafkaAdmin;
use cloud_core::snapshot::pressure::{Backlog, PressureConfig, judge};
use cloud_core::snapshot::{backlog, gather};
use cloud_core::store::access::AccessStore;
use cloud_core::store::fleets::{CreateError, FleetStore, KeyEntry};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use penstock_common::snapshot::{CorePressure, KEYS_MAX, KeyHash, Limits, Rate, Snapshot};
use uuid::Uuid;

use crate::support::events::fleet;
use crate::support::{Rig, Store};

const HOUR_MICROS: i64 = 3_600 * 1_000_000;

/// A key for that many hours, and its secret.
fn key(fleet: &str, hours: Option<i64>) -> (KeyEntry, Secret) {
    let (secret, now) = (Secret::random(Kind::FleetKey), SystemClock.now().0);
    let key = KeyEntry {
        key_id: Uuid::new_v4(),
        fleet: fleet.into(),
        hash: secret.hash(),
        created_at: now,
        expires_at: hours.map(|hours| now + hours * HOUR_MICROS),
        revoked_at: None,
    };
    (key, secret)
}

async fn snapshot(store: &FleetStore, fleets: &[&str]) -> anyhow::Result<Snapshot> {
    let fleets: Vec<String> = fleets.iter().map(|&name| name.into()).collect();
    let gathered = gather(store, &fleets, CorePressure::default(), SystemClock.now()).await?;
    // As a gateway would read it.
    Ok(Snapshot::decode(&gathered.encode()?)?.snapshot)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_good_keys_are_in_the_snapshot_and_secrets_are_nowhere() {
    let rig = Rig::new(Store::Directory).await;
    let store = FleetStore::new(rig.catalog.pool().clone());
    let made =
        [key("press", None), key("press", Some(1)), key("press", Some(-1)), key("mill", None)];
    for (key, _) in &made {
        store.create_key(key, "a test").await.unwrap();
    }
    let revoked = made[0].0.key_id;
    assert_eq!(store.revoke_key(revoked, "a test").await.unwrap().as_deref(), Some("press"));
    assert_eq!(store.revoke_key(revoked, "a test").await.unwrap(), None);
    assert_eq!(store.keys(Some("press")).await.unwrap().len(), 3);
    assert_eq!(store.keys(None).await.unwrap().len(), 4);

    let all = snapshot(&store, &[]).await.unwrap();
    let keys = |name: &str| {
        let fleet = all.fleets.iter().find(|fleet| fleet.name == name).unwrap();
        fleet.keys.iter().map(|key| (key.id, key.sha256)).collect::<Vec<_>>()
    };
    let of = |at: usize| (made[at].0.key_id, KeyHash::of(made[at].1.reveal().as_bytes()));
    assert_eq!(keys("press"), [of(1)]);
    assert_eq!(keys("mill"), [of(3)]);
    let expires_at = all.fleets.iter().flat_map(|f| &f.keys).find_map(|key| key.expires_at);
    assert_eq!(expires_at.unwrap().as_microsecond(), made[1].0.expires_at.unwrap());
    assert_eq!(all.schema_set().unwrap().newest().version(), 3);

    let one = snapshot(&store, &["mill"]).await.unwrap();
    assert_eq!(one.fleets.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["mill"]);
    let error = snapshot(&store, &["mill", "lathe"]).await.unwrap_err().to_string();
    assert!(error.contains("no fleet lathe"), "{error}");

    let audit = AccessStore::new(rig.catalog.pool().clone()).audit(None, 100).await.unwrap();
    let actions: Vec<&str> = audit.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(
        actions,
        ["keys.revoke", "keys.create", "keys.create", "keys.create", "keys.create"]
    );
    let file = String::from_utf8(all.encode().unwrap()).unwrap();
    for (_, secret) in &made {
        assert!(!format!("{audit:?}{file}").contains(secret.reveal()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_and_lifted_and_keys_are_not_endless() {
    let rig = Rig::new(Store::Directory).await;
    let store = FleetStore::new(rig.catalog.pool().clone());
    let limits = Limits {
        requests: Some(Rate { per_second: 0.5, burst: 10 }),
        events: Some(Rate { per_second: 5_000.0, burst: u32::MAX }),
    };
    for limits in [limits, Limits { events: None, ..limits }, Limits::default()] {
        store.set_limits("press", &limits, "a test").await.unwrap();
        assert_eq!(store.fleets().await.unwrap()["press"], limits);
        assert_eq!(snapshot(&store, &[]).await.unwrap().fleets[0].limits, limits);
    }
    for _ in 0..KEYS_MAX {
        store.create_key(&key("press", None).0, "a test").await.unwrap();
    }
    let one_more = store.create_key(&key("press", None).0, "a test").await.unwrap_err();
    assert!(matches!(&one_more, CreateError::TooMany(fleet) if fleet == "press"), "{one_more}");
    store.create_key(&key("mill", None).0, "a test").await.unwrap();
    let revoked = store.keys(Some("press")).await.unwrap()[0].key_id;
    store.revoke_key(revoked, "a test").await.unwrap();
    store.create_key(&key("press", None).0, "a test").await.unwrap();
}

/// I9: the backlog is what raw has not stored, by number and by age.
#[tokio::test(flavor = "multi_thread")]
async fn the_raw_backlog_is_seen_and_gateways_are_told_to_hold() {
    let rig = Rig::new(Store::Directory).await;
    let admin = KafkaAdmin::open(&rig.kafka).unwrap();
    let config =
        PressureConfig { hold_records: 200, release_records: 50, hold_s: 3_600, release_s: 0 };
    let look = async |now: UnixMicros| {
        let (positions, topic) = (rig.catalog.positions(), rig.topic());
        backlog::read(&positions, &admin, &topic, &config, now).await.unwrap()
    };
    let (now, later) = (SystemClock.now(), UnixMicros(SystemClock.now().0 + 2 * HOUR_MICROS));
    assert_eq!(look(now).await, Backlog::default());

    // Nobody has begun to read: all of it is behind, and none of it is old.
    let sent = rig.send(&fleet(10, 20)).await;
    let now = UnixMicros(SystemClock.now().0.max(now.0));
    let found = look(now).await;
    assert_eq!((found.records, found.older_than_hold), (200, 0));
    // In two hours it is.
    let all = Backlog { records: 200, older_than_hold: 200, older_than_release: 200 };
    assert_eq!(look(later).await, all);
    let at = "2026-01-15T08:30:00Z".parse().unwrap();
    let pressure = judge(&config, false, &found, at);
    assert!(pressure.hold && pressure.reason.contains("200 raw events"), "{pressure:?}");

    let raw = rig.start();
    rig.drained(&sent).await;
    assert_eq!(look(later).await, Backlog::default());
    assert!(!judge(&config, true, &Backlog::default(), at).hold);
    raw.stop().await;
}
