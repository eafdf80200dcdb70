//! Rebuild marks: versions, leases, and when they may be worked on.

use cloud_core::rollup::window::{HOUR, MINUTE};
use cloud_core::store::rollup::apply::{ApplyError, Rebuilt};
use cloud_core::store::rollup::rebuild::{Leased, Ready};
use uuid::Uuid;

use crate::rollup_store::{Scene, close, late};
use crate::support::events::T0;

fn ready(event_next: i64, lease_ms: u64) -> Ready {
    let raw = [(0, (event_next, 0))].into_iter().collect();
    Ready { raw, delay_ms: 0, settle_ms: 3_600_000, lease_ms }
}

async fn lease(scene: &Scene, ready: &Ready) -> (Uuid, Vec<Leased>) {
    let lease = Uuid::new_v4();
    let hours = scene.store.rebuild_hours(ready, 10).await.unwrap();
    match hours.as_slice() {
        [] => (lease, Vec::new()),
        [hour, ..] => (lease, scene.store.lease(ready, *hour, 10, lease).await.unwrap()),
    }
}

fn nothing(lease: Uuid, marks: Vec<Leased>) -> Rebuilt {
    Rebuilt { hour: T0, lease, marks, changed: vec![], gone: vec![] }
}

async fn with_marks(scene: &Scene) {
    let mut flush = scene.flush(0, 10);
    flush.closes = vec![close("a", T0 + HOUR), close("b", T0 + 10 * MINUTE)];
    flush.marks = vec![late("a", T0, 7), late("b", T0, 8)];
    scene.store.flush_stream(&flush).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_changes_during_a_rebuild_stays() {
    let scene = Scene::new().await;
    with_marks(&scene).await;
    let (name, marks) = lease(&scene, &ready(10, 60_000)).await;
    assert_eq!(marks.len(), 2);
    assert!(lease(&scene, &ready(10, 60_000)).await.1.is_empty(), "they are taken");
    // Another late event comes for one of them.
    scene.store.mark(&[late("a", T0 + MINUTE, 11)]).await.unwrap();
    let applied = scene.store.apply(&nothing(name, marks)).await.unwrap();
    assert_eq!((applied.done, applied.parked), (1, 0));
    assert!(lease(&scene, &ready(11, 60_000)).await.1.is_empty(), "raw has not stored it yet");
    let (name, marks) = lease(&scene, &ready(12, 60_000)).await;
    assert_eq!(marks.len(), 1);
    assert_eq!((&*marks[0].device, marks[0].event_offset), ("a", Some(11)));
    let applied = scene.store.apply(&nothing(name, marks)).await.unwrap();
    assert_eq!((applied.done, applied.parked), (1, 0));
    assert_eq!(scene.number("SELECT count(*) FROM rebuild_mark").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_a_lease_changes_nothing() {
    let scene = Scene::new().await;
    with_marks(&scene).await;
    let (slow, slow_marks) = lease(&scene, &ready(10, 0)).await;
    let (quick, quick_marks) = lease(&scene, &ready(10, 60_000)).await;
    assert_eq!((slow_marks.len(), quick_marks.len()), (2, 2));
    let before = scene.state().await;
    let error = scene.store.apply(&nothing(slow, slow_marks.clone())).await.unwrap_err();
    assert!(matches!(error, ApplyError::LeaseLost(2)), "{error}");
    assert_eq!(scene.state().await, before);
    scene.store.apply(&nothing(quick, quick_marks)).await.unwrap();
    let error = scene.store.apply(&nothing(slow, slow_marks)).await.unwrap_err();
    assert!(matches!(error, ApplyError::LeaseLost(2)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_wait_for_their_device_and_for_raw() {
    let scene = Scene::new().await;
    let mut flush = scene.flush(0, 10);
    flush.closes = vec![close("a", T0 + 5 * MINUTE)];
    let mut both = late("a", T0 + 4 * MINUTE, 7);
    both.replay_offset = Some(3);
    flush.marks = vec![both, late("b", T0, 7)];
    scene.store.flush_stream(&flush).await.unwrap();
    let mut waiting = ready(7, 0);
    assert!(lease(&scene, &waiting).await.1.is_empty(), "raw-events");
    waiting.raw.insert(0, (8, 3));
    assert!(lease(&scene, &waiting).await.1.is_empty(), "replay-events");
    waiting.raw.insert(0, (8, 4));
    assert_eq!(lease(&scene, &waiting).await.1.len(), 1, "b has closed nothing");
    let mut flush = scene.flush(10, 11);
    flush.closes = vec![close("b", T0 + MINUTE)];
    flush.marks = vec![late("a", T0 + 30 * MINUTE, 7)];
    scene.store.flush_stream(&flush).await.unwrap();
    let (name, marks) = lease(&scene, &waiting).await;
    // Of two marks of one hour the earlier decides on the begin, the later on the end.
    assert_eq!(marks.len(), 2);
    let applied = scene.store.apply(&nothing(name, marks)).await.unwrap();
    assert_eq!((applied.done, applied.parked), (1, 1));
    assert!(lease(&scene, &waiting).await.1.is_empty());
    let mut flush = scene.flush(11, 12);
    flush.closes = vec![close("a", T0 + 31 * MINUTE)];
    scene.store.flush_stream(&flush).await.unwrap();
    let (name, marks) = lease(&scene, &waiting).await;
    assert_eq!(scene.store.apply(&nothing(name, marks)).await.unwrap().done, 1);
    assert_eq!(scene.number("SELECT count(*) FROM rebuild_mark").await, 0);
}
