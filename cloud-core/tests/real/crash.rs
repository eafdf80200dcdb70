//! A crash at any point of a flush: every event is stored once, nothing is left over.

use std::sync::Arc;

use cloud_core::failpoint::{Action, Failpoints, Gate};
use cloud_core::raw::sweep::sweep;
use cloud_core::raw::{ROLE, RawConfig};
use cloud_core::source;
use cloud_core::store::files::Kind;
use cloud_core::store::positions::Claim;
use penstock_common::topic::Topic;

use crate::support::events::fleet;
use crate::support::{PARTITIONS, Rig, Store, eventually};

async fn crash_at(point: &'static str, store: Store) {
    let rig = Rig::new(store).await;
    let failpoints = Failpoints::default();
    let gate = Arc::new(Gate::default());
    failpoints.arm(point, Action::Hold(Arc::clone(&gate)));
    let sent = rig.send(&fleet(10, 20)).await;

    let doomed = rig.start_with(failpoints);
    gate.reached().await;
    doomed.crash().await;

    let survivor = rig.start();
    rig.drained(&sent).await;
    let more = rig.send(&fleet(10, 5)).await;
    rig.drained(&more).await;
    survivor.stop().await;
    let sent: Vec<_> = sent.into_iter().chain(more).collect();
    rig.assert_stored_exactly(&sent).await;

    // What the crash left is abandoned, then deleted; what is published stays.
    let published = rig.catalog.totals().await.unwrap().files;
    let swept = sweep(&rig.catalog, &rig.objects, &stale_after(0)).await.unwrap();
    let left = u64::from(point != "after_commit");
    assert_eq!((swept.abandoned, swept.deleted as u64), (left, left), "{point}");
    let abandoned = rig.database.client().await;
    let sql = "SELECT path FROM raw_file WHERE state = 'abandoned'";
    for row in abandoned.query(sql, &[]).await.unwrap() {
        assert!(!rig.objects.exists(row.get(0)).await.unwrap());
    }
    assert_eq!(rig.catalog.totals().await.unwrap().files, published);
    rig.assert_stored_exactly(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_after_pending() {
    crash_at("after_pending", Store::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_after_upload() {
    crash_at("after_upload", Store::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_after_upload_to_s3() {
    crash_at("after_upload", Store::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_before_commit() {
    crash_at("before_commit", Store::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_after_commit() {
    crash_at("after_commit", Store::Directory).await;
}

/// Each step fails a few times, the last one after it has been done.
#[tokio::test(flavor = "multi_thread")]
async fn failed_and_unanswered_steps_are_tried_again() {
    let rig = Rig::new(Store::Directory).await;
    let failpoints = Failpoints::default();
    for point in ["after_pending", "after_upload", "before_commit", "after_commit"] {
        failpoints.arm(point, Action::Fail(2));
    }
    let running = rig.start_with(failpoints);
    let sent = rig.send(&fleet(10, 20)).await;
    rig.drained(&sent).await;
    let retries = running.metrics.retries.clone();
    running.stop().await;
    rig.assert_stored_exactly(&sent).await;
    for (step, times) in [("announce", 2), ("upload", 2), ("publish", 4)] {
        assert_eq!(retries.with_label_values(&[step]).get(), times, "{step}");
    }
}

async fn steal(rig: &Rig) -> Vec<Claim> {
    let topic = Topic::RawEvents.name(&rig.kafka.topic_prefix);
    let bounds: Vec<_> = (0..PARTITIONS)
        .map(|partition| cloud_core::bus::Watermarks { partition, low: 0, high: i64::MAX })
        .collect();
    rig.catalog.positions().claim(ROLE, &topic, &bounds, source::next_offset).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_publishes_nothing() {
    let rig = Rig::new(Store::Directory).await;
    let failpoints = Failpoints::default();
    let gate = Arc::new(Gate::default());
    failpoints.arm("after_upload", Action::Hold(Arc::clone(&gate)));
    let sent = rig.send(&fleet(10, 20)).await;
    let zombie = rig.start_with(failpoints);
    gate.reached().await;
    // While it sleeps, its partitions get another owner.
    steal(&rig).await;
    gate.release();
    let error = zombie.task.await.unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("is not ours"), "{error:#}");
    assert_eq!(zombie.metrics.fenced.get(), 1);
    assert_eq!(rig.catalog.totals().await.unwrap().files, 0);
    assert!(
        rig.catalog.positions().of_role(ROLE).await.unwrap().iter().all(|p| p.next_offset == 0)
    );

    let survivor = rig.start();
    rig.drained(&sent).await;
    survivor.stop().await;
    rig.assert_stored_exactly(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_file_was_swept_writes_it_anew() {
    let rig = Rig::new(Store::Directory).await;
    let failpoints = Failpoints::default();
    let gate = Arc::new(Gate::default());
    failpoints.arm("after_upload", Action::Hold(Arc::clone(&gate)));
    let sent = rig.send(&fleet(10, 20)).await;
    let slow = rig.start_with(failpoints.clone());
    gate.reached().await;
    let swept = sweep(&rig.catalog, &rig.objects, &stale_after(0)).await.unwrap();
    assert_eq!((swept.abandoned, swept.deleted), (1, 1));
    failpoints.arm("after_upload", Action::Fail(0));
    gate.release();
    rig.drained(&sent).await;
    slow.stop().await;
    rig.assert_stored_exactly(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_dies_is_finished_by_the_next() {
    let rig = Rig::new(Store::Directory).await;
    let (id, path) = (uuid::Uuid::new_v4(), "staging/x.parquet");
    rig.catalog.announce(Kind::Raw, id, path).await.unwrap();
    rig.objects.put(path, "x".into()).await.unwrap();
    // It died after abandoning.
    assert_eq!(rig.catalog.abandon_stale(0).await.unwrap(), 1);
    assert!(rig.objects.exists(path).await.unwrap());
    let swept = sweep(&rig.catalog, &rig.objects, &stale_after(60_000)).await.unwrap();
    assert_eq!((swept.abandoned, swept.deleted), (0, 1));
    assert!(!rig.objects.exists(path).await.unwrap());
    // A slow writer uploads after that; a day later it is deleted again, and the row with it.
    rig.objects.put(path, "x".into()).await.unwrap();
    assert_eq!(sweep(&rig.catalog, &rig.objects, &stale_after(60_000)).await.unwrap().deleted, 0);
    let client = rig.database.client().await;
    let day = "UPDATE raw_file SET object_deleted_at = now() - interval '25 hours'";
    client.execute(day, &[]).await.unwrap();
    assert_eq!(sweep(&rig.catalog, &rig.objects, &stale_after(60_000)).await.unwrap().deleted, 1);
    eventually("the object is gone", async || !rig.objects.exists(path).await.unwrap()).await;
    assert_eq!(rig.database.number("SELECT count(*) FROM raw_file").await, 0);
}

fn stale_after(stale_pending_ms: u64) -> RawConfig {
    RawConfig { stale_pending_ms, ..RawConfig::default() }
}
