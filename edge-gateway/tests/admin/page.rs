//! The status page and its numbers.

use crate::{Gateway, event};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbers_are_those_of_the_gateway() {
    let gateway = Gateway::start(&[]).await;
    assert_eq!(gateway.post(&format!("[{},{}]", event(1), event(2))).await.status, 202);
    let status = gateway.status_once(|s| !s["spool"]["oldest_received_at"].is_null()).await;
    assert_eq!(status["format"], 1);
    assert_eq!(status["gateway"]["name"], "bench-1");
    assert_eq!(status["gateway"]["fleet"], "press-line");
    assert_eq!(status["gateway"]["is_ready"], true);
    assert_eq!(status["spool"]["pending_entries"], 2);
    assert!(status["spool"]["oldest_age_s"].as_u64().is_some_and(|age| age < 60));
    assert!(status["disk"]["free_bytes"].as_u64().is_some_and(|free| free > 0));
    assert_eq!(status["clock"]["is_set"], true);
    assert_eq!(status["schemas"]["versions"], serde_json::json!([1, 2, 3]));
    assert_eq!(status["link"]["acknowledged_at"], serde_json::Value::Null);
    let snapshot = &status["more"]["snapshot"];
    assert_eq!((&snapshot["origin"], &snapshot["keys"]), (&"built in".into(), &0.into()));
    assert_eq!(status["more"]["certificate"], serde_json::Value::Null, "no TLS here");
    assert_eq!(status["more"]["pressure"]["state"], "open");
    assert_eq!(status["more"]["forwarding"]["is_held"], false);
    // Kafka is away, which is no fault of its topics.
    assert_eq!(status["more"]["forwarding"]["closed_topics"], "");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_bus_is_told_with_what_to_do() {
    let gateway = Gateway::start(&[]).await;
    let status = gateway.status_once(|s| s["link"]["state"] == "silent").await;
    let says = status["says"].as_array().unwrap();
    let told = says.iter().find(|say| say["found"].as_str().unwrap().starts_with("Kafka"));
    let told = told.unwrap_or_else(|| panic!("{status:#}"));
    assert_eq!(told["level"], "warn");
    assert!(told["todo"].as_str().unwrap().contains("127.0.0.1:1"), "{told}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_needs_nothing_but_itself() {
    let gateway = Gateway::start(&[]).await;
    let page = gateway.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "connect-src 'self'", "script-src 'sha256-"] {
        assert!(policy.contains(part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    // No asset from anywhere, and no way for data to become markup.
    for never in ["http://", "https://", "src=", "<link", "@import", "url(", "innerHTML"] {
        assert!(!page.body.contains(never), "{never} is in the page");
    }
    assert_eq!(gateway.get("/nothing").await.status, 404);
    gateway.stop().await;
}
