//! Who may send, and how much (spec I2, I4).

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge_gateway::listen::ListenConfig;
use edge_gateway::snapshot::SnapshotConfig;
use edge_gateway::spool::entry::Entry;
use penstock_common::event::UnixMicros;
use penstock_common::snapshot::{Limits, Rate};

use crate::client::{Answer, Client, JSON, PATIENCE, head, request};
use crate::keys::{SnapshotFile, key};
use crate::server::{NOW, RealSpool, Server};
use crate::{array, event};

const KEY: &str = "pfk_a-key-of-plant-7";
const OTHER: &str = "pfk_a-key-of-plant-8";
const ELSEWHERE: &str = "pfk_a-key-of-another-plant";

fn fleets() -> SnapshotFile {
    SnapshotFile::of(&[("plant-7", &[KEY]), ("plant-8", &[OTHER]), ("plant-9", &[ELSEWHERE])])
}

fn bearer(key: &str) -> String {
    format!("{JSON}Authorization: Bearer {key}\r\n")
}

async fn start(snapshot: &SnapshotFile, spool: &RealSpool) -> Server {
    Server::with(ListenConfig::default(), snapshot.config(), spool.handle.clone()).await
}

fn fleet_of(entry: &Entry) -> &str {
    match entry {
        Entry::Event(event) => &event.fleet,
        Entry::DeadLetter(letter) => &letter.fleet,
    }
}

#[tokio::test]
async fn the_events_fleet_is_the_keys() {
    let (snapshot, mut spool) = (fleets(), RealSpool::open());
    let server = start(&snapshot, &spool).await;
    let mut client = server.client().await;
    // One connection may carry several fleets' requests, as that of a proxy does.
    for (headers, body, status, fleet) in [
        (bearer(KEY), event(1), 202, "plant-7"),
        (bearer(OTHER), event(1), 202, "plant-8"),
        (format!("{JSON}X-API-Key: {OTHER}\r\n"), event(2), 202, "plant-8"),
        (format!("{JSON}authorization: bearer {KEY}\r\n"), "{}".into(), 400, "plant-7"),
        (bearer(KEY), "broken".into(), 400, "plant-7"),
    ] {
        assert_eq!(client.post(&headers, body).await.status, status);
        let entries = spool.entries();
        assert_eq!(entries.iter().map(fleet_of).collect::<Vec<_>>(), [fleet]);
    }
}

#[tokio::test]
async fn who_may_not_send_is_told_why_and_nothing_is_kept() {
    let (mut snapshot, mut spool) = (fleets(), RealSpool::open());
    snapshot.fleets[0].keys.push(key("pfk_old", Some("2026-01-15T08:30:59Z")));
    snapshot.write();
    let server = start(&snapshot, &spool).await;
    let long = "x".repeat(5_000);
    let mut client = server.client().await;
    for (headers, status, problem) in [
        (JSON.to_owned(), 401, "key-missing"),
        (format!("{JSON}Authorization: Basic {KEY}\r\n"), 401, "key-missing"),
        (bearer("pfk_nonsense"), 401, "key-unknown"),
        (bearer(&KEY.to_uppercase()), 401, "key-unknown"),
        (bearer(&long), 401, "key-unknown"),
        (bearer("pfk_old"), 401, "key-expired"),
        (bearer(ELSEWHERE), 403, "key-other-fleet"),
    ] {
        let answer = client.post(&headers, array(3)).await;
        assert_eq!((answer.status, answer.problem()), (status, problem), "{answer:?}");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, (status == 401).then_some("Bearer"));
        assert!(!answer.body.to_string().contains("pfk_"), "{answer:?}");
    }
    assert!(spool.entries().is_empty());
    assert_eq!(server.metric("penstock_gateway_refused_requests_total"), 7.0);
    // The same connection goes on with a key that is good.
    assert_eq!(client.post(&bearer(KEY), event(1)).await.status, 202);
}

/// I2: cheap. Nothing of the body is asked for, waited for, or counted against its memory.
#[tokio::test]
async fn a_refusal_does_not_wait_for_the_body() {
    let (snapshot, mut spool) = (fleets(), RealSpool::open());
    let config = ListenConfig { bodies_bytes_max: 2 << 20, ..ListenConfig::default() };
    let server = Server::with(config, snapshot.config(), spool.handle.clone()).await;
    let mut client = server.client().await;
    client.send(head(&format!("{JSON}Expect: 100-continue\r\n"), 1_000_000)).await;
    assert_eq!(client.answer().await.unwrap().status, 401);
    assert!(client.is_closed().await);
    // Bodies that are announced and do not come.
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut client = server.client().await;
        client.send(head(JSON, 1_000_000)).await;
        client.send(vec![b' '; 100_000]).await;
        silent.push(client);
    }
    let mut client = server.client().await;
    assert_eq!(client.post(&bearer(KEY), array(100)).await.status, 202, "the memory is free");
    for mut client in silent {
        assert_eq!(client.answer().await.unwrap().status, 401);
    }
    assert_eq!(spool.entries().len(), 100);
}

/// I4: a second key is added, the devices go over to it one by one, the first is revoked; nobody
/// is refused meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_downtime() {
    const DEVICES: usize = 8;
    let (mut snapshot, mut spool) = (fleets(), RealSpool::open());
    let server = start(&snapshot, &spool).await;
    let new = "pfk_a-newer-key-of-plant-7";
    let keys: Vec<_> = (0..DEVICES).map(|_| Arc::new(Mutex::new(KEY.to_owned()))).collect();
    let sent = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut devices = Vec::new();
    for key in keys.clone() {
        let (sent, stop, address) = (sent.clone(), stop.clone(), server.address);
        devices.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            while !stop.load(Ordering::SeqCst) {
                let headers = bearer(&key.lock().unwrap().clone());
                let number = sent.fetch_add(1, Ordering::SeqCst);
                let answer = client.post(&headers, event(number)).await;
                assert_eq!(answer.status, 202, "{answer:?}");
            }
        }));
    }
    let some_more = async || {
        let until = sent.load(Ordering::SeqCst) + 50;
        eventually("more is sent", || sent.load(Ordering::SeqCst) >= until).await;
    };
    some_more().await;
    snapshot.fleets[0].keys.push(key(new, None));
    snapshot.write();
    let knows = |secret: &str| {
        let keys = server.snapshots.current();
        keys.keys.fleet_of(secret.as_bytes(), NOW).is_ok()
    };
    eventually("the new key is known", || knows(new)).await;
    for key in &keys {
        *key.lock().unwrap() = new.to_owned();
        some_more().await;
    }
    snapshot.fleets[0].keys.remove(0);
    snapshot.write();
    eventually("the old key is gone", || !knows(KEY)).await;
    some_more().await;
    stop.store(true, Ordering::SeqCst);
    for device in devices {
        device.await.unwrap();
    }
    let refused = server.client().await.post(&bearer(KEY), event(0)).await;
    assert_eq!((refused.status, refused.problem()), (401, "key-unknown"));
    assert_eq!(spool.entries().len(), sent.load(Ordering::SeqCst));
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_key_ends_when_its_time_comes() {
    let (mut snapshot, spool) = (fleets(), RealSpool::open());
    snapshot.fleets[0].keys = vec![key(KEY, Some("2026-01-15T08:32:00Z"))];
    snapshot.write();
    let server = start(&snapshot, &spool).await;
    let mut client = server.client().await;
    assert_eq!(client.post(&bearer(KEY), event(1)).await.status, 202);
    server.clock.set(UnixMicros(NOW.0 + 60_000_000));
    let answer = client.post(&bearer(KEY), event(2)).await;
    assert_eq!((answer.status, answer.problem()), (401, "key-expired"));
}

/// Without any snapshot there is no key, and nobody gets in.
#[tokio::test]
async fn the_built_in_snapshot_lets_nobody_in() {
    let spool = RealSpool::open();
    let (config, none) = (ListenConfig::default(), SnapshotConfig::default());
    let server = Server::with(config, none, spool.handle.clone()).await;
    let answer = server.client().await.post(&bearer(KEY), event(1)).await;
    assert_eq!((answer.status, answer.problem()), (401, "key-unknown"));
}

async fn limited(limits: Limits) -> (SnapshotFile, RealSpool, Server) {
    let (mut snapshot, spool) = (fleets(), RealSpool::open());
    snapshot.fleets[0].limits = limits;
    snapshot.write();
    let server = start(&snapshot, &spool).await;
    (snapshot, spool, server)
}

fn standing(answer: &Answer) -> [Option<u32>; 3] {
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"]
        .map(|name| answer.header(name).map(|value| value.parse().unwrap()))
}

#[tokio::test]
async fn a_fleet_that_asks_too_often_waits_and_others_do_not() {
    let requests = Some(Rate { per_second: 0.01, burst: 3 });
    let (_file, mut spool, server) = limited(Limits { requests, events: None }).await;
    let mut client = server.client().await;
    for left in [2, 1, 0] {
        let answer = client.post(&bearer(KEY), event(left as usize)).await;
        assert_eq!(
            (answer.status, standing(&answer)[..2].to_vec()),
            (202, vec![Some(3), Some(left)])
        );
    }
    let answer = client.post(&bearer(KEY), array(100)).await;
    assert_eq!((answer.status, answer.problem()), (429, "fleet-limit"));
    let retry_after: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((90..=200).contains(&retry_after), "{retry_after}");
    assert_eq!(standing(&answer)[1], Some(0));
    let other = client.post(&bearer(OTHER), event(9)).await;
    assert_eq!((other.status, standing(&other)), (202, [None; 3]), "its limit is its own");
    assert_eq!(spool.entries().len(), 4);
    // No key, no limit: it is the fleet's.
    assert_eq!(client.post(JSON, event(1)).await.status, 401);
}

#[tokio::test]
async fn events_are_limited_whatever_the_size_of_batches() {
    let events = Some(Rate { per_second: 0.01, burst: 150 });
    let (_file, mut spool, server) = limited(Limits { requests: None, events }).await;
    let mut client = server.client().await;
    assert_eq!(client.post(&bearer(KEY), array(100)).await.status, 202);
    // The last one may overdraw: a batch is not cut.
    let answer = client.post(&bearer(KEY), array(100)).await;
    assert_eq!((answer.status, standing(&answer)[1]), (202, Some(0)));
    for body in [event(1), "broken".into()] {
        let answer = client.post(&bearer(KEY), body).await;
        assert_eq!((answer.status, answer.problem()), (429, "fleet-limit"));
    }
    assert_eq!(spool.entries().len(), 200);
    assert_eq!(server.metric("penstock_gateway_refused_requests_total"), 2.0);
}

/// Requests that began while something was left do not all overdraw.
#[tokio::test]
async fn requests_at_the_same_time_do_not_get_past_the_limit() {
    let events = Some(Rate { per_second: 0.01, burst: 100 });
    let (_file, mut spool, server) = limited(Limits { requests: None, events }).await;
    let body = array(60);
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = server.client().await;
        client.send(head(&bearer(KEY), body.len())).await;
        clients.push(client);
    }
    let mut statuses = Vec::new();
    for client in &mut clients {
        client.send(&body).await;
        statuses.push(client.answer().await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [[202; 2].as_slice(), &[429; 8]].concat());
    assert_eq!(spool.entries().len(), 120);
}

/// I4: whatever level logs have, and whatever goes wrong, the key is in none of them, nor in an
/// answer, a dead letter or a metric.
#[tokio::test]
async fn a_key_is_nowhere_but_in_the_request() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // Of the whole process: what one thread alone listens to is skipped once another has passed by.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let secrets = [KEY, ELSEWHERE, "pfk_nobodys"];
    let (snapshot, mut spool) = (fleets(), RealSpool::open());
    let server = start(&snapshot, &spool).await;
    for secret in secrets {
        for (headers, body) in [
            (bearer(secret), event(1)),
            (bearer(secret), "{}".to_owned()),
            (format!("{JSON}X-API-Key: {secret}\r\n"), "broken".to_owned()),
            (format!("Authorization: Bearer {secret}\r\n"), event(1)),
        ] {
            let answer = server.client().await.post(&headers, body).await;
            assert!(!format!("{answer:?}").contains(secret));
        }
        // One that is no HTTP, and one that ends too early.
        for text in [format!("{secret} {secret}\r\n\r\n"), head(&bearer(secret), 10)] {
            let mut client = server.client().await;
            client.send(text).await;
            drop(client);
        }
        let mut pipelined = server.client().await;
        pipelined
            .send([request(&bearer(secret), b"{}"), b"nonsense\r\n\r\n".to_vec()].concat())
            .await;
        while pipelined.answer().await.is_some() {}
    }
    let metrics = prometheus::TextEncoder::new().encode_to_string(&server.registry.gather());
    let entries = format!("{:?}", spool.entries());
    let file = std::fs::read_to_string(snapshot.path()).unwrap();
    server.stop().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("snapshot taken") && log.contains("refused"), "{log}");
    for secret in secrets {
        for (what, text) in [
            ("log", &log),
            ("metrics", metrics.as_ref().unwrap()),
            ("spool", &entries),
            ("file", &file),
        ] {
            assert!(!text.contains(secret), "{secret} is in the {what}");
        }
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
