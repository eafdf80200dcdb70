//! The dead-letter store: every letter once, whatever it is and wherever a crash comes.

use std::sync::Arc;

use cloud_core::failpoint::{Action, Failpoints, Gate};
use cloud_core::raw::RawConfig;
use cloud_core::raw::sweep::sweep;
use penstock_common::event::UnixMicros;

use crate::support::letters::{Draft, draft, drafts, event, meta};
use crate::support::{Rig, Store};

async fn crash_at(point: &'static str, store: Store) {
    let rig = Rig::new(store).await;
    let failpoints = Failpoints::default();
    let gate = Arc::new(Gate::default());
    failpoints.arm(point, Action::Hold(Arc::clone(&gate)));
    let first = drafts(10, 20);
    let mut ids = rig.send_letters(&first).await;

    let doomed = rig.start_letters(failpoints);
    gate.reached().await;
    doomed.crash().await;

    let survivor = rig.start_letters(Failpoints::default());
    rig.letters_stored(&ids).await;
    let more = drafts(10, 5);
    ids.extend(rig.send_letters(&more).await);
    rig.letters_stored(&ids).await;
    survivor.stop().await;
    let all: Vec<Draft> = first.into_iter().chain(more).collect();
    rig.assert_letters_exactly(&ids, &all).await;

    // What the crash left goes; what is published stays.
    let at_once = RawConfig { stale_pending_ms: 0, ..rig.raw.clone() };
    let swept = sweep(&rig.catalog, &rig.objects, &at_once).await.unwrap();
    assert_eq!(swept.abandoned, u64::from(point != "after_commit"), "{point}");
    rig.assert_letters_exactly(&ids, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_survive_a_crash_after_pending() {
    crash_at("after_pending", Store::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_survive_a_crash_after_upload_to_s3() {
    crash_at("after_upload", Store::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_survive_a_crash_before_commit() {
    crash_at("before_commit", Store::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_survive_a_crash_after_commit() {
    crash_at("after_commit", Store::Directory).await;
}

/// Each step fails a few times, the last one after it has been done.
#[tokio::test(flavor = "multi_thread")]
async fn failed_and_unanswered_steps_lose_and_double_no_letter() {
    let rig = Rig::new(Store::Directory).await;
    let failpoints = Failpoints::default();
    for point in ["after_pending", "after_upload", "before_commit", "after_commit"] {
        failpoints.arm(point, Action::Fail(1));
    }
    let running = rig.start_letters(failpoints);
    let all = drafts(5, 20);
    let ids = rig.send_letters(&all).await;
    rig.letters_stored(&ids).await;
    let metrics = running.metrics.clone();
    running.stop().await;
    rig.assert_letters_exactly(&ids, &all).await;
    for (step, times) in [("announce", 1), ("upload", 1), ("publish", 2)] {
        assert_eq!(metrics.retries.with_label_values(&[step]).get(), times, "{step}");
    }
    assert_eq!(metrics.stored_of("gateway.admit", "unknown_firmware"), 100);
}

/// Letters that nobody foresaw are stored like all others, and hold nothing up.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_letters_are_stored_too() {
    let rig = Rig::new(Store::Directory).await;
    let (_, text) = event("dev-1", 10, "9.0.0");
    let mut all = vec![
        Draft { key: "dev-1".into(), payload: b"\xff\x00".to_vec(), headers: Vec::new() },
        Draft {
            key: "\0".into(),
            payload: Vec::new(),
            headers: vec![("fleet".into(), b"\xff".to_vec()), ("x".into(), b"y\0".to_vec())],
        },
        draft("dev-1", &meta("malformed_json", 1), vec![b'['; 1 << 20]),
    ];
    let mut odd = meta("with\0nul", 10);
    odd.stage = "s".repeat(5_000);
    odd.fleet = "f".repeat(5_000).into();
    odd.detail = "not JSON \0".into();
    odd.first_seen = UnixMicros(i64::MAX);
    all.push(draft("dev-1", &odd, text.clone()));
    let mut wide = draft("dev-2", &meta("schema_violation", 10), text);
    for (name, value) in &mut wide.headers {
        if name == "epoch" {
            *value = b"ffffffffffffffff".to_vec();
        }
    }
    all.push(wide);
    all.extend(drafts(4, 4));

    let ids = rig.send_letters(&all).await;
    let running = rig.start_letters(Failpoints::default());
    rig.letters_stored(&ids).await;
    let metrics = running.metrics.clone();
    running.stop().await;
    rig.assert_letters_exactly(&ids, &all).await;
    assert_eq!(metrics.stored_of("core.deadletter", "unreadable_headers"), 3);
    assert_eq!(metrics.stored_of("other", "other"), 1);
    let letters = rig.letters().await;
    let kept = letters.iter().find(|letter| letter.payload.is_empty()).unwrap();
    assert_eq!(kept.headers, all[1].headers);
    let whole = letters.iter().find(|letter| letter.meta.detail == "not JSON \0").unwrap();
    assert_eq!(whole.meta, odd);
}
