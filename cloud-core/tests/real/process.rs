//! A whole process: roles, ports, readiness, drain.

use std::time::Duration;

use cloud_core::access::Role;
use cloud_core::config::CoreConfig;
use cloud_core::role;
use cloud_core::store::access::AccessStore;
use tokio_util::sync::CancellationToken;

use crate::support::events::fleet;
use crate::support::proxy::Proxy;
use crate::support::{self, Rig, Store, eventually, http};

fn config(rig: &Rig) -> CoreConfig {
    let mut config = CoreConfig {
        kafka: rig.kafka.clone(),
        catalog: rig.catalog_config.clone(),
        store: rig.store_config.clone(),
        raw: rig.raw.clone(),
        ready_file: Some(rig.dir.path().join("ready.json")),
        ..CoreConfig::default()
    };
    config.raw.late_days_max = rig.raw.late_days_max;
    config.api.listen = "127.0.0.1:0".into();
    config.admin.listen = "127.0.0.1:0".into();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn all_roles_in_one_process() {
    let rig = Rig::new(Store::Directory).await;
    let stop = CancellationToken::new();
    let core = tokio::spawn(role::run(config(&rig), "all".parse().unwrap(), stop.clone()));
    let path = rig.dir.path().join("ready.json");
    eventually("the ready file", async || path.exists()).await;
    let ready: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let (api, admin) = (ready["api"].as_str().unwrap(), ready["admin"].as_str().unwrap());
    let sent = rig.send(&fleet(10, 20)).await;
    rig.drained(&sent).await;

    assert_eq!(http::get(api, "/v1/status").await.0, 401);
    let access = AccessStore::new(rig.catalog.pool().clone());
    let token = support::api::token(&access, Role::Viewer, None).await;
    let (status, body) = http::get_as(api, &token, "/v1/status").await;
    assert_eq!(status, 200);
    assert!(body.contains("\"rows_published\":200"), "{body}");
    assert_eq!(http::get(admin, "/healthz").await, (200, "ok\n".into()));
    eventually("readiness", async || http::get(admin, "/readyz").await.0 == 200).await;
    let (_, metrics) = http::get(admin, "/metrics").await;
    assert!(metrics.contains("penstock_raw_events_total 200"), "{metrics}");

    let more = rig.send(&fleet(10, 5)).await;
    rig.drained(&more).await;
    stop.cancel();
    core.await.unwrap().unwrap();
    let sent: Vec<_> = sent.into_iter().chain(more).collect();
    rig.assert_stored_exactly(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_waits_for_postgres() {
    let rig = Rig::new(Store::Directory).await;
    let mut config = config(&rig);
    let (head, name) = rig.catalog_config.dsn.rsplit_once('/').unwrap();
    let (user, target) = head.rsplit_once('@').unwrap();
    let proxy = Proxy::to(target.to_owned()).await;
    proxy.cut();
    config.catalog.dsn = format!("{user}@{}/{name}", proxy.address);
    // A fixed port: without the ready file nobody says which one was taken.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    config.admin.listen = free.to_string();
    let admin = free.to_string();
    let stop = CancellationToken::new();
    let core = tokio::spawn(role::run(config, "api".parse().unwrap(), stop.clone()));
    let reachable = async || tokio::net::TcpStream::connect(free).await.is_ok();
    eventually("the admin port", reachable).await;
    let (status, body) = http::get(&admin, "/readyz").await;
    assert_eq!((status, body.as_str()), (503, "catalog: not migrated yet\n"));
    assert!(!rig.dir.path().join("ready.json").exists());
    proxy.mend();
    eventually("readiness", async || http::get(&admin, "/readyz").await.0 == 200).await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), core).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_ends_the_process_with_its_key() {
    let rig = Rig::new(Store::Directory).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(&rig);
    config.api.listen = taken.local_addr().unwrap().to_string();
    let error = role::run(config, "api".parse().unwrap(), CancellationToken::new()).await;
    assert!(format!("{:#}", error.unwrap_err()).contains("api.listen"));
}
