//! Clients that hold on to what they were given: slow ones, silent ones, floods of them. Those
//! that behave are served all the while.

use std::time::Duration;

use edge_gateway::listen::ListenConfig;
use tokio::net::TcpStream;

use crate::client::{Client, JSON, head, request};
use crate::keys::SnapshotFile;
use crate::server::{Gate, RealSpool, Server};
use crate::{array, event};

const KEY: &str = "pfk_a-key";

fn bearer() -> String {
    format!("{JSON}Authorization: Bearer {KEY}\r\n")
}

/// Slowloris: heads that grow a little now and then, and connections that say nothing at all. Who
/// has shown no key loses the place in time, and the time does not begin anew with each byte.
#[tokio::test]
async fn who_brings_no_request_does_not_keep_a_place() {
    let (snapshot, spool) = (SnapshotFile::of(&[("plant-7", &[KEY])]), RealSpool::open());
    let config = ListenConfig {
        connections_max: 8,
        first_request_timeout_ms: 500,
        head_timeout_ms: 60_000,
        ..ListenConfig::default()
    };
    let server = Server::with(config, snapshot.config(), spool.handle.clone()).await;
    let mut device = server.client().await;
    assert_eq!(device.post(&bearer(), event(1)).await.status, 202);
    // All the places that are left, and some more that wait in the backlog.
    let address = server.address;
    let rude = (0..14).map(|number| {
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let refused = head(JSON, 0);
            let text = match number % 3 {
                0 => "",
                1 => "POST /v1/events HTTP/1.1\r\nHost: x\r\nX-Slow: ",
                // Answered, and stays all the same.
                _ => refused.as_str(),
            };
            let _ = client.try_send(text).await;
            while client.try_send(if number % 3 == 1 { "z" } else { "" }).await.is_ok() {
                let answered = tokio::time::timeout(Duration::from_millis(20), client.answer());
                if let Ok(None) = answered.await {
                    return;
                }
            }
        })
    });
    let rude: Vec<_> = rude.collect();
    // It is served while they are there, and so is one that comes after them.
    assert_eq!(device.post(&bearer(), event(2)).await.status, 202);
    let mut late = server.client().await;
    assert_eq!(late.post(&bearer(), event(3)).await.status, 202);
    for client in rude {
        client.await.unwrap();
    }
    assert_eq!(server.metric("penstock_gateway_closed_connections_total"), 14.0);
    // Who was let in once may be silent for longer.
    assert_eq!(device.post(&bearer(), event(4)).await.status, 202);
}

#[tokio::test]
async fn one_source_can_not_take_all_places() {
    let gate = Gate::shut();
    gate.permits.add_permits(100);
    let config = ListenConfig { connections_per_source_max: 3, ..ListenConfig::default() };
    let server = Server::start(config, gate.clone()).await;
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = server.client().await;
        assert_eq!(client.post_json(event(number)).await.status, 202);
        clients.push(client);
    }
    let mut refused = server.client().await;
    let _ = refused.try_send(request(JSON, event(9).as_bytes())).await;
    assert!(refused.answer().await.is_none(), "the fourth of one source is closed");
    // Another source (the whole of 127/8 is this machine) is not concerned.
    let mut other = from([127, 0, 0, 2], &server).await;
    assert_eq!(other.post_json(event(10)).await.status, 202);
    // Nor are those that are there.
    for client in &mut clients {
        assert_eq!(client.post_json(event(11)).await.status, 202);
    }
    assert_eq!(server.metric("penstock_gateway_closed_connections_total"), 1.0);
    assert_eq!(server.metric("penstock_gateway_connections"), 4.0);
}

#[tokio::test]
async fn a_flood_of_new_connections_is_turned_away_and_others_are_served() {
    let gate = Gate::shut();
    gate.permits.add_permits(1_000);
    let config = ListenConfig {
        connections_per_source_max: 5,
        connections_per_source_per_second: 1,
        ..ListenConfig::default()
    };
    let server = Server::start(config, gate.clone()).await;
    let mut device = server.client().await;
    let (mut taken, mut turned_away) = (0, 0);
    for number in 0..200 {
        let mut one = from([127, 0, 0, 3], &server).await;
        let _ = one.try_send(request(JSON, event(number).as_bytes())).await;
        match one.answer().await {
            Some(answer) => {
                assert_eq!(answer.status, 202);
                taken += 1;
            }
            None => turned_away += 1,
        }
        assert_eq!(device.post_json(event(number)).await.status, 202);
    }
    // Five at once, and one for each second that this took.
    assert!((5..100).contains(&taken), "{taken}");
    assert_eq!(server.metric("penstock_gateway_closed_connections_total"), f64::from(turned_away));
    assert_eq!(gate.entries.lock().unwrap().len(), 200 + taken);
}

/// A peer that is gone without a word, or that sends and never reads: its answers find no room,
/// and the connection ends.
#[tokio::test]
async fn who_does_not_read_the_answers_is_closed() {
    let spool = RealSpool::open();
    let config = ListenConfig { write_timeout_ms: 300, ..ListenConfig::default() };
    let server = Server::start(config, spool.handle.clone()).await;
    let mut client = server.client().await;
    let refused = array(100).replace("61.5", "900");
    let request = request(JSON, refused.as_bytes());
    // Until the buffers of both sides are full of answers and of requests.
    let flood = async { while client.try_send(&request).await.is_ok() {} };
    let closed = tokio::time::timeout(Duration::from_secs(60), flood).await;
    assert!(closed.is_ok(), "still open");
    assert_eq!(server.client().await.post_json(event(1)).await.status, 202);
    server.stop().await;
}

async fn from(source: [u8; 4], server: &Server) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::from(source), 0).into()).unwrap();
    let stream: TcpStream = socket.connect(server.address).await.unwrap();
    Client::on(stream)
}
