//! Accepted, partly accepted, and how requests may look.

use std::io::Write;

use edge_gateway::listen::ListenConfig;
use edge_gateway::spool::entry::Entry;
use serde_json::json;

use crate::client::{JSON, head, request};
use crate::server::{NOW, RealSpool, Server};
use crate::{array, event};

fn payloads(entries: &[Entry]) -> Vec<String> {
    let payload = |entry: &Entry| match entry {
        Entry::Event(event) => String::from_utf8(event.payload.to_vec()).unwrap(),
        Entry::DeadLetter(letter) => panic!("{letter:?}"),
    };
    entries.iter().map(payload).collect()
}

#[tokio::test]
async fn what_is_accepted_is_in_the_spool_byte_for_byte() {
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let mut client = server.client().await;
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let answer = client.post(&format!("{JSON}{trace}"), event(7)).await;
    assert_eq!((answer.status, &answer.body), (202, &json!({"accepted": 1})));
    let entries = spool.entries();
    assert_eq!(payloads(&entries), [event(7)]);
    let Entry::Event(entry) = &entries[0] else { unreachable!() };
    assert_eq!((entry.received_at, entry.fleet.as_ref()), (NOW, "plant-7"));
    assert_eq!(entry.traceparent.as_deref().map(str::len), Some(55));

    let answer = client.post_json(array(100)).await;
    assert_eq!((answer.status, &answer.body), (202, &json!({"accepted": 100})));
    assert_eq!(payloads(&spool.entries()), (0..100).map(event).collect::<Vec<_>>());

    let lines = format!("{}\n{}\n", event(1), event(2));
    let answer = client.post("content-type: application/x-ndjson\r\n", lines).await;
    assert_eq!(answer.status, 202);
    assert_eq!(payloads(&spool.entries()), [event(1), event(2)]);
    assert_eq!(server.metric("penstock_gateway_events_accepted_total"), 103.0);
    assert_eq!(server.metric("penstock_gateway_requests_total"), 3.0);
    assert_eq!(server.metric("penstock_gateway_connections"), 1.0);
    server.stop().await;
}

#[tokio::test]
async fn a_mixed_batch_has_a_status_for_each_event() {
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let hot = event(1).replace("61.5", "900");
    let body = format!("[{},{hot},{}]", event(0), event(2));
    let answer = server.client().await.post_json(body).await;
    assert_eq!(answer.status, 207);
    let id = |number: usize| format!("018f3c2a-7b1e-7c3d-9a4f-{number:012x}");
    let expected = json!({"accepted": 2, "rejected": 1, "events": [
        {"index": 0, "event_id": id(0), "status": 202},
        {"index": 1, "event_id": id(1), "status": 400, "reason": "schema_violation", "errors": [
            {"pointer": "/metrics/cpu_temp", "rule": "maximum", "expected": "at most 150", "got": "900"}
        ]},
        {"index": 2, "event_id": id(2), "status": 202},
    ]});
    assert_eq!(answer.body, expected);
    let entries = spool.entries();
    assert_eq!(entries.len(), 3);
    let Entry::DeadLetter(letter) = &entries[1] else { panic!("{:?}", entries[1]) };
    assert_eq!(letter.payload, hot);
    assert_eq!(letter.reason, "schema_violation");
    assert_eq!(server.metric("penstock_gateway_events_rejected_total"), 1.0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let mut client = server.client().await;
    let bodies = [array(3), "nonsense".to_owned(), event(9)];
    let requests: Vec<u8> = bodies.iter().flat_map(|body| request(JSON, body.as_bytes())).collect();
    client.send(requests).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.answer().await.unwrap().status);
    }
    assert_eq!(statuses, [202, 400, 202]);
    assert_eq!(spool.entries().len(), 5);
}

#[tokio::test]
async fn chunked_bodies_and_bodies_in_pieces() {
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let mut client = server.client().await;
    let body = array(100);
    client
        .send(format!(
            "POST /v1/events HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n"
        ))
        .await;
    for chunk in body.as_bytes().chunks(777) {
        client.send(format!("{:x}\r\n", chunk.len())).await;
        client.send(chunk).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 202);

    client.send(head(JSON, body.len())).await;
    for piece in body.as_bytes().chunks(1_001) {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await.unwrap().status, 202);

    let expect = format!("{JSON}Expect: 100-continue\r\n");
    client.send(head(&expect, body.len())).await;
    assert_eq!(client.answer().await.unwrap().status, 100);
    client.send(&body).await;
    assert_eq!(client.answer().await.unwrap().status, 202);
    let expected: Vec<_> = (0..100).map(event).collect();
    assert_eq!(payloads(&spool.entries()), [&expected[..], &expected, &expected].concat());
}

#[tokio::test]
async fn compressed_bodies() {
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let mut client = server.client().await;
    let body = array(50);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    let zstd = zstd::stream::encode_all(body.as_bytes(), 1).unwrap();
    for (coding, bytes) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd)] {
        let answer = client.post(&format!("{JSON}Content-Encoding: {coding}\r\n"), bytes).await;
        assert_eq!((answer.status, &answer.body), (202, &json!({"accepted": 50})));
        assert_eq!(payloads(&spool.entries()), (0..50).map(event).collect::<Vec<_>>());
    }
}
