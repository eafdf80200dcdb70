//! The identity of the metrics (docs/contracts/admin.md): what came in is what became of it.

use crate::{Gateway, event};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_in_is_what_became_of_it() {
    let gateway = Gateway::start(&[]).await;
    let bad = event(7).replace("1.4.2", "9.0.0");
    assert_eq!(gateway.post(&event(1)).await.status, 202);
    assert_eq!(gateway.post(&format!("[{},{bad},{}]", event(2), event(3))).await.status, 207);
    assert_eq!(gateway.post("{]").await.status, 400);
    // Refused before its events were known: not received.
    assert_eq!(gateway.post(&"x".repeat(2 << 20)).await.status, 413);
    let metric = async |name: &str| gateway.metric(&format!("penstock_{name}")).await;
    let received = metric("gateway_events_received_total").await;
    let accepted = metric("gateway_events_accepted_total").await;
    let rejected = metric("gateway_events_rejected_total").await;
    let not_kept = metric("gateway_events_rejected_not_kept_total").await;
    let refused = metric("gateway_events_refused_total").await;
    assert_eq!((received, accepted, rejected, not_kept, refused), (5, 3, 2, 0, 0));
    let found = metric("spool_found_entries").await;
    let spooled = metric("spool_committed_entries_total").await;
    let retired = metric("spool_retired_entries_total").await;
    let waiting = metric("spool_pending_entries").await;
    assert_eq!((found, spooled, retired, waiting), (0, accepted + rejected, 0, 5));
    assert_eq!(metric("forward_acknowledged_records_total").await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_budget_rejections_are_counted_and_not_kept() {
    let set = ["dead_letters.device_burst=3", "dead_letters.device_per_hour=1"];
    let gateway = Gateway::start(&set).await;
    let bad = event(7).replace("1.4.2", "9.0.0");
    let body = format!("[{}]", [bad.as_str(); 10].join(","));
    // The device is told in full all the same.
    let answer = gateway.post(&body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body.matches("unknown_firmware").count(), 10);
    // Another device has its own budget, and accepted events have none.
    let other = event(8).replace("1.4.2", "9.0.0");
    assert_eq!(gateway.post(&format!("[{other},{}]", event(9))).await.status, 207);
    let metric = async |name: &str| gateway.metric(&format!("penstock_{name}")).await;
    assert_eq!(metric("gateway_events_received_total").await, 12);
    assert_eq!(metric("gateway_events_accepted_total").await, 1);
    assert_eq!(metric("gateway_events_rejected_total").await, 4);
    assert_eq!(metric("gateway_events_rejected_not_kept_total").await, 7);
    assert_eq!(metric("spool_committed_entries_total").await, 5);
    gateway.stop().await;
}
