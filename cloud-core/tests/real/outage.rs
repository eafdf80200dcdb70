//! Postgres or the object store away for a while: the writer keeps what it has and goes on.

use std::time::Duration;

use crate::support::events::fleet;
use crate::support::proxy::Proxy;
use crate::support::{Rig, Store, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_goes_away_and_comes_back() {
    let mut rig = Rig::new(Store::Directory).await;
    let (head, name) = rig.catalog_config.dsn.rsplit_once('/').unwrap();
    let (user, target) = head.rsplit_once('@').unwrap();
    let proxy = Proxy::to(target.to_owned()).await;
    rig.catalog_config.dsn = format!("{user}@{}/{name}", proxy.address);

    let running = rig.start();
    let mut sent = rig.send(&fleet(10, 20)).await;
    rig.drained(&sent).await;
    for _ in 0..3 {
        proxy.cut();
        sent.extend(rig.send(&fleet(10, 20)).await);
        let announce = running.metrics.retries.with_label_values(&["announce"]);
        let before = announce.get();
        eventually("the writer has noticed", async || announce.get() > before + 1).await;
        sent.extend(rig.send(&fleet(10, 20)).await);
        proxy.mend();
        rig.drained(&sent).await;
    }
    running.stop().await;
    rig.assert_stored_exactly(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_object_store_goes_away_and_comes_back() {
    let mut rig = Rig::new(Store::S3).await;
    let target = rig.store_config.s3.endpoint.strip_prefix("http://").unwrap().to_owned();
    let proxy = Proxy::to(target).await;
    let mut behind = rig.store_config.clone();
    behind.s3.endpoint = format!("http://{}", proxy.address);
    let direct = rig.objects.clone();
    rig.objects = cloud_core::store::object::Objects::open(&behind).unwrap();

    let running = rig.start();
    let mut sent = rig.send(&fleet(10, 20)).await;
    rig.drained(&sent).await;
    proxy.cut();
    sent.extend(rig.send(&fleet(10, 50)).await);
    let upload = running.metrics.retries.with_label_values(&["upload"]);
    eventually("the writer has noticed", async || upload.get() > 0).await;
    sent.extend(rig.send(&fleet(10, 50)).await);
    proxy.mend();
    rig.drained(&sent).await;
    running.stop().await;
    rig.objects = direct;
    rig.assert_stored_exactly(&sent).await;
}

/// Partitions are taken away while a flush can't get on: they are let go, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_flush_does_not_hold_up_a_rebalance() {
    let mut rig = Rig::new(Store::Directory).await;
    rig.raw.revoke_grace_ms = 200;
    let staging = rig.dir.path().join("objects/staging");
    std::fs::write(&staging, "in the way").unwrap();
    let mut sent = rig.send(&fleet(10, 20)).await;
    let stuck = rig.start();
    let upload = stuck.metrics.retries.with_label_values(&["upload"]);
    eventually("the first writer is stuck", async || upload.get() > 0).await;
    let second = rig.start();
    let revocations = &stuck.source.revocations;
    eventually("the first writer has let go", async || revocations.get() > 0).await;
    sent.extend(rig.send(&fleet(10, 20)).await);
    std::fs::remove_file(&staging).unwrap();
    rig.drained(&sent).await;
    stuck.stop().await;
    second.stop().await;
    rig.assert_stored_exactly(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_flush_does_not_hold_up_the_end() {
    let mut rig = Rig::new(Store::Directory).await;
    rig.raw.drain_ms = 300;
    let staging = rig.dir.path().join("objects/staging");
    std::fs::write(&staging, "in the way").unwrap();
    let sent = rig.send(&fleet(10, 20)).await;
    let stuck = rig.start();
    let upload = stuck.metrics.retries.with_label_values(&["upload"]);
    eventually("the writer is stuck", async || upload.get() > 0).await;
    tokio::time::timeout(Duration::from_secs(20), stuck.stop()).await.unwrap();
    assert_eq!(rig.catalog.totals().await.unwrap().files, 0);

    std::fs::remove_file(&staging).unwrap();
    let next = rig.start();
    rig.drained(&sent).await;
    next.stop().await;
    rig.assert_stored_exactly(&sent).await;
}
