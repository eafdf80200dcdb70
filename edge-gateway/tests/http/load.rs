//! Under pressure and on the way out: 429, 503, bounds, the drain.

use edge_gateway::listen::ListenConfig;
use edge_gateway::spool::SpoolError;

use crate::client::{JSON, request};
use crate::server::{Gate, RealSpool, Server};
use crate::{array, event};

#[tokio::test]
async fn nobody_is_answered_before_the_spool_has_it() {
    let gate = Gate::shut();
    let server = Server::start(ListenConfig::default(), gate.clone()).await;
    // Neither for an accepted event, nor for a rejected one.
    for (body, status) in [(event(1), 202), ("{}".to_owned(), 400)] {
        let mut client = server.client().await;
        client.send(request(JSON, body.as_bytes())).await;
        gate.has_arrived(1).await;
        assert!(client.has_nothing());
        gate.permits.add_permits(1);
        assert_eq!(client.answer().await.unwrap().status, status);
    }
}

#[tokio::test]
async fn a_spool_that_cannot_take_it_is_429_and_a_closed_one_503() {
    let full = SpoolError::Full { bytes_used: 9, bytes_max: 9 };
    let disk = SpoolError::Disk("/secret/path: EIO".into());
    for (error, status, problem) in [
        (full, 429, "spool-full"),
        (disk, 429, "spool-failing"),
        (SpoolError::Closed, 503, "stopping"),
    ] {
        let config = ListenConfig { retry_after_s: 17, ..ListenConfig::default() };
        let server = Server::start(config, Gate::failing(error)).await;
        for body in [event(1), "broken".to_owned()] {
            let mut client = server.client().await;
            let answer = client.post_json(body).await;
            assert_eq!((answer.status, answer.problem()), (status, problem));
            assert_eq!(answer.header("retry-after"), Some("17"));
            assert!(!answer.body.to_string().contains("secret"));
            assert_eq!(answer.header("connection"), (status == 503).then_some("close"));
        }
        assert_eq!(server.metric("penstock_gateway_events_accepted_total"), 0.0);
        assert_eq!(server.metric("penstock_gateway_events_rejected_total"), 0.0);
    }
}

#[tokio::test]
async fn a_full_spool_holds_exactly_what_was_accepted() {
    let mut spool = RealSpool::with_bytes_max(512 << 10);
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let mut client = server.client().await;
    let mut accepted = 0;
    let refused = loop {
        let answer = client.post_json(array(100)).await;
        if answer.status != 202 {
            break answer;
        }
        accepted += 100;
    };
    assert_eq!((refused.status, refused.problem()), (429, "spool-full"));
    assert!(refused.header("retry-after").is_some());
    assert!(accepted > 0);
    assert_eq!(spool.entries().len(), accepted);
}

#[tokio::test]
async fn bodies_beyond_the_memory_for_them_are_429() {
    let gate = Gate::shut();
    let config = ListenConfig { bodies_bytes_max: 40_000, ..ListenConfig::default() };
    let server = Server::start(config, gate.clone()).await;
    let body = array(100);
    assert!((20_000..40_000).contains(&body.len()));
    let mut first = server.client().await;
    first.send(request(JSON, body.as_bytes())).await;
    gate.has_arrived(1).await;
    let mut second = server.client().await;
    let answer = second.post_json(&body).await;
    assert_eq!((answer.status, answer.problem()), (429, "overloaded"));
    gate.permits.add_permits(2);
    assert_eq!(first.answer().await.unwrap().status, 202);
    // Its share is free again, and the refused connection is still good.
    assert_eq!(second.post_json(&body).await.status, 202);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let gate = Gate::shut();
    gate.permits.add_permits(10);
    let config = ListenConfig { connections_max: 1, ..ListenConfig::default() };
    let server = Server::start(config, gate.clone()).await;
    let mut first = server.client().await;
    assert_eq!(first.post_json(event(1)).await.status, 202);
    gate.has_arrived(1).await;
    let mut second = server.client().await;
    second.send(request(JSON, event(2).as_bytes())).await;
    // The first goes on while the second waits.
    assert_eq!(first.post_json(event(3)).await.status, 202);
    gate.has_arrived(1).await;
    assert_eq!(gate.arrived.available_permits(), 0);
    assert!(second.has_nothing());
    drop(first);
    assert_eq!(second.answer().await.unwrap().status, 202);
}

#[tokio::test]
async fn the_drain_answers_what_is_open_and_closes_what_is_idle() {
    let gate = Gate::shut();
    let server = Server::start(ListenConfig::default(), gate.clone()).await;
    let address = server.address;
    let mut busy = server.client().await;
    busy.send(request(JSON, event(1).as_bytes())).await;
    gate.has_arrived(1).await;
    gate.permits.add_permits(1);
    assert_eq!(busy.answer().await.unwrap().status, 202);
    let mut idle = server.client().await;
    gate.permits.add_permits(1);
    assert_eq!(idle.post_json(event(2)).await.status, 202);
    gate.has_arrived(1).await;

    busy.send(request(JSON, event(3).as_bytes())).await;
    gate.has_arrived(1).await;
    server.stop.cancel();
    assert!(idle.is_closed().await);
    assert!(!server.serving.is_finished());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    gate.permits.add_permits(1);
    assert_eq!(busy.answer().await.unwrap().status, 202);
    assert!(busy.is_closed().await);
    server.stop().await;
    assert_eq!(gate.entries.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn the_drain_has_a_limit() {
    let gate = Gate::shut();
    let config = ListenConfig { drain_timeout_ms: 100, ..ListenConfig::default() };
    let server = Server::start(config, gate.clone()).await;
    let mut client = server.client().await;
    client.send(request(JSON, event(1).as_bytes())).await;
    gate.has_arrived(1).await;
    server.stop().await;
    assert!(client.answer().await.is_none());
}
