//! Every bad input of the contract: what the device is told, and what is kept.

use std::path::Path;

use edge_gateway::listen::ListenConfig;
use edge_gateway::spool::entry::Entry;
use tokio::io::AsyncWriteExt;

use crate::client::{JSON, head};
use crate::server::{RealSpool, Server};
use crate::{array, event};

/// Sends one body; checks status, problem and the reasons of what is in the spool.
async fn told(headers: &str, body: impl AsRef<[u8]>, status: u16, problem: &str, kept: &[&str]) {
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let mut client = server.client().await;
    let answer = client.post(headers, body.as_ref()).await;
    assert_eq!((answer.status, answer.problem()), (status, problem), "{answer:?}");
    let reasons: Vec<String> = spool
        .entries()
        .into_iter()
        .map(|entry| match entry {
            Entry::DeadLetter(letter) => letter.reason,
            Entry::Event(event) => panic!("{event:?}"),
        })
        .collect();
    assert_eq!(reasons, kept);
    server.stop().await;
}

fn with(from: &str, to: &str) -> String {
    let event = event(1);
    assert!(event.contains(from));
    event.replacen(from, to, 1)
}

#[tokio::test]
async fn bad_bodies() {
    let rejected = "events-rejected";
    let unreadable = "unreadable-body";
    for (body, status, problem, kept) in [
        (event(1)[..99].to_owned().into_bytes(), 400, unreadable, &["malformed_json"][..]),
        (with("61.5", "NaN").into_bytes(), 400, unreadable, &["malformed_json"]),
        (with("61.5", "1e999").into_bytes(), 400, rejected, &["number_out_of_range"]),
        (with("press-1", "\u{fffd}").into_bytes(), 400, rejected, &["schema_violation"]),
        (b"[{\"a\":\"\xff\"}]".to_vec(), 400, unreadable, &["malformed_json"]),
        (
            with("\"metrics\"", "\"metrics\":{},\"metrics\"").into_bytes(),
            400,
            rejected,
            &["duplicate_key"],
        ),
        (with("}}", "},\"x\":\"\\ud800\"}").into_bytes(), 400, rejected, &["lone_surrogate"]),
        (
            with("}}", &format!("}},\"x\":{}{}}}", "[".repeat(999), "]".repeat(999))).into_bytes(),
            400,
            rejected,
            &["too_deep"],
        ),
        (with("1.4.2", "9.0.0").into_bytes(), 400, rejected, &["unknown_firmware"]),
        (b"[1,2]".to_vec(), 400, rejected, &["not_an_object", "not_an_object"]),
        (b"[]".to_vec(), 400, "empty-body", &[]),
        (Vec::new(), 400, "empty-body", &[]),
        (array(101).into_bytes(), 413, "too-many-events", &[]),
        (
            format!("\"{}\"", "x".repeat(65_536)).into_bytes(),
            413,
            "event-too-large",
            &["too_large"],
        ),
    ] {
        told(JSON, body, status, problem, kept).await;
    }
}

#[tokio::test]
async fn unreadable_bodies_say_where() {
    let spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let body = format!("[{},{{]", event(0));
    let at = body.rfind(']').unwrap();
    let answer = server.client().await.post_json(&body).await;
    let event = &answer.body["events"][0];
    assert_eq!((event["index"].as_u64(), event["status"].as_u64()), (Some(1), Some(400)));
    assert_eq!(event["errors"][0]["offset"], at);
    assert!(answer.body["detail"].as_str().unwrap().contains(&format!("byte {at}")), "{answer:?}");
}

#[tokio::test]
async fn wrong_types_and_encodings() {
    told("", event(1), 415, "media-type", &[]).await;
    told("Content-Type: text/plain\r\n", event(1), 415, "media-type", &[]).await;
    told(&format!("{JSON}Content-Encoding: br\r\n"), event(1), 415, "encoding", &[]).await;
    let gzip = format!("{JSON}Content-Encoding: gzip\r\n");
    told(&gzip, event(1), 400, "unreadable-body", &["undecodable_body"]).await;
    let bomb = vec![0; 64 << 20];
    let zstd = zstd::stream::encode_all(&bomb[..], 1).unwrap();
    told(&format!("{JSON}Content-Encoding: zstd\r\n"), zstd, 413, "body-too-large", &[]).await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &bomb).unwrap();
    told(&gzip, encoder.finish().unwrap(), 413, "body-too-large", &[]).await;
}

#[tokio::test]
async fn two_mebibytes_are_refused_and_the_client_reads_why() {
    let body = vec![b' '; 2 << 20];
    told(JSON, &body, 413, "body-too-large", &[]).await;
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    // In chunks, so that nobody could know beforehand.
    let mut client = server.client().await;
    let chunked =
        format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n");
    client.send(chunked).await;
    client.send(format!("{:x}\r\n", body.len())).await;
    client.send(&body).await;
    client.send("\r\n0\r\n\r\n").await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert!(client.is_closed().await);
    // A client that asks first is told before it sends.
    let mut client = server.client().await;
    client.send(head(&format!("{JSON}Expect: 100-continue\r\n"), body.len())).await;
    assert_eq!(client.answer().await.unwrap().status, 413);
    assert!(spool.entries().is_empty());
}

#[tokio::test]
async fn other_methods_and_paths() {
    let spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let mut client = server.client().await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let length = 4;
        client
            .send(format!(
                "{method} /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nbody"
            ))
            .await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.problem()), (405, "method-not-allowed"));
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    for path in ["/", "/v1/events/", "/v2/events"] {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.problem()), (404, "not-found"));
    }
    // The same connection still takes events.
    assert_eq!(client.post_json(event(1)).await.status, 202);
}

#[tokio::test]
async fn a_truncated_body_is_never_accepted() {
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let body = array(2);
    for cut in [0, 1, body.len() / 2, body.len() - 1] {
        let mut client = server.client().await;
        client.send(head(JSON, body.len())).await;
        client.send(&body[..cut]).await;
        client.stream.shutdown().await.unwrap();
        if let Some(answer) = client.answer().await {
            assert_eq!((answer.status, answer.problem()), (400, "incomplete-body"), "{cut}");
        }
    }
    server.stop().await;
    assert!(spool.entries().is_empty());
}

#[tokio::test]
async fn slow_clients_are_told_and_dropped() {
    let config =
        ListenConfig { body_timeout_ms: 200, head_timeout_ms: 200, ..ListenConfig::default() };
    let mut spool = RealSpool::open();
    let server = Server::start(config, spool.handle.clone()).await;
    let body = array(2);
    let mut client = server.client().await;
    client.send(head(JSON, body.len())).await;
    client.send(&body[..body.len() - 1]).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.problem()), (408, "body-timeout"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_closed().await);
    // One that never finishes its head gets nothing but the end.
    let mut client = server.client().await;
    client.send("POST /v1/events HTTP/1.1\r\nHost:").await;
    assert!(client.answer().await.is_none());
    assert!(spool.entries().is_empty());
}

#[tokio::test]
async fn every_bad_sample_is_answered_and_kept() {
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let mut client = server.client().await;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/samples/bad");
    let expected = std::fs::read(dir.join("expected.json")).unwrap();
    let expected: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&expected).unwrap();
    for (name, expected) in expected {
        let body = std::fs::read(dir.join(&name)).unwrap();
        let answer = client.post_json(&body).await;
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        let event = &answer.body["events"][0];
        assert_eq!(event["reason"], expected["reason"], "{name}");
        let entries = spool.entries();
        let [Entry::DeadLetter(letter)] = &entries[..] else { panic!("{name}: {entries:?}") };
        assert_eq!(letter.reason, expected["reason"].as_str().unwrap(), "{name}");
        assert_eq!(letter.payload.trim_ascii(), body.trim_ascii(), "{name}");
    }
}
