//! Devices against a server that misbehaves at random: no real gateway can be made to refuse,
//! hang up and throttle on demand.

use std::collections::HashMap;
use std::sync::Mutex;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::oracle::record::State;

/// What the server remembers of one device.
#[derive(Default)]
struct Seen {
    /// The body that has been sent and not been answered for good.
    open: Option<Bytes>,
    serving: bool,
    retries: u32,
}

struct Server {
    rng: Mutex<ChaCha8Rng>,
    devices: Mutex<HashMap<String, Seen>>,
    /// What was said about each event, by its id.
    said: Mutex<HashMap<String, bool>>,
}

enum Mood {
    Answer,
    /// Not understood to be answered: status and Retry-After.
    Later(u16, Option<&'static str>),
    HangUp,
}

impl Server {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| server.answer(request));
                let http = hyper::server::conn::http1::Builder::new();
                // An error is how this server hangs up.
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let events: Vec<Value> = serde_json::from_slice(&body).unwrap();
        let device = events[0]["device_id"].as_str().unwrap().to_owned();
        {
            let mut devices = self.devices.lock().unwrap();
            let seen = devices.entry(device.clone()).or_default();
            assert!(!seen.serving, "{device} sends two batches at once");
            seen.serving = true;
            match &seen.open {
                Some(open) => {
                    assert_eq!(*open, body, "{device} retries with other bytes");
                    seen.retries += 1;
                }
                None => seen.open = Some(body.clone()),
            }
        }
        tokio::task::yield_now().await;
        let mood = self.mood();
        let mut devices = self.devices.lock().unwrap();
        let seen = devices.get_mut(&device).unwrap();
        seen.serving = false;
        match mood {
            Mood::HangUp => Err(std::io::Error::other("hanging up")),
            Mood::Later(status, after) => {
                let response = Response::builder().status(status);
                let response = match after {
                    Some(after) => response.header("Retry-After", after),
                    None => response,
                };
                Ok(response.body(Full::default()).unwrap())
            }
            Mood::Answer => {
                seen.open = None;
                Ok(self.judge(&events))
            }
        }
    }

    fn mood(&self) -> Mood {
        match self.rng.lock().unwrap().random_range(0..10) {
            0 => Mood::HangUp,
            1 => Mood::Later(429, Some("0")),
            2 => Mood::Later(503, None),
            _ => Mood::Answer,
        }
    }

    /// Accepts every event but, sometimes, the first.
    fn judge(&self, events: &[Value]) -> Response<Full<Bytes>> {
        let mut said = self.said.lock().unwrap();
        let mut statuses = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let id = event["event_id"].as_str().unwrap().to_owned();
            let refuse = index == 0 && self.rng.lock().unwrap().random_bool(0.2);
            let accepted = *said.entry(id).or_insert(!refuse);
            statuses.push(if accepted {
                json!({"index": index, "status": 202})
            } else {
                json!({"index": index, "status": 400, "errors": [{"pointer": "/x", "rule": "y"}]})
            });
        }
        let accepted = statuses.iter().filter(|status| status["status"] == 202).count();
        let rejected = statuses.len() - accepted;
        let status = if rejected == 0 {
            202
        } else if accepted == 0 {
            400
        } else {
            207
        };
        let body = json!({"accepted": accepted, "rejected": rejected, "events": statuses});
        Response::builder().status(status).body(Full::new(body.to_string().into())).unwrap()
    }
}

#[tokio::test]
async fn devices_keep_their_order_and_remember_what_they_were_told() {
    let seed = crate::terms::seed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Server {
        rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
        devices: Mutex::default(),
        said: Mutex::default(),
    });
    tokio::spawn(Arc::clone(&server).serve(listener));
    let config = FleetConfig {
        batch_min: 1,
        batch_max: 5,
        duplicate_share: 0.2,
        bare_object_share: 0.0,
        connections_max: 4,
        ..FleetConfig::plain(seed, 8, 2_000.0, 1)
    };
    let (tally, stop) = (Arc::new(Tally::default()), CancellationToken::new());
    let fleet =
        tokio::spawn(run(Arc::new(config), address.into(), Arc::clone(&tally), stop.clone()));
    let begun = Instant::now();
    while tally.accepted.get() < 500 {
        // A failed assertion of the server ends a connection, not the test.
        assert!(begun.elapsed() < Duration::from_secs(30), "the server failed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    let told = fleet.await.unwrap();
    tally.check().unwrap();
    assert_eq!(told.devices.len(), 8);

    let said = server.said.lock().unwrap();
    let mut states = HashMap::new();
    for record in told.devices.iter().flat_map(|device| &device.records) {
        let id = uuid::Uuid::from_bytes(record.event_id).to_string();
        states.insert(id, record.state);
    }
    assert!(told.devices.iter().all(|device| device.contradictions == 0));
    assert_eq!(states.len(), said.len());
    for (id, accepted) in said.iter() {
        let expected = if *accepted { State::Accepted } else { State::Rejected };
        assert_eq!(states[id], expected, "{id}");
    }
    assert!(said.values().any(|accepted| !accepted), "nothing was rejected");
    assert!(tally.throttled.get() > 0 && tally.broken.get() > 0 && tally.re_sent.get() > 0);
    assert!(server.devices.lock().unwrap().values().any(|seen| seen.retries > 0));
}

#[tokio::test]
async fn a_batch_that_is_never_answered_has_an_unknown_outcome() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = FleetConfig {
        request_timeout: Duration::from_millis(20),
        resolve_within: Duration::from_millis(50),
        ..FleetConfig::plain(1, 2, 1_000.0, 3)
    };
    let (tally, stop) = (Arc::new(Tally::default()), CancellationToken::new());
    let fleet =
        tokio::spawn(run(Arc::new(config), address.into(), Arc::clone(&tally), stop.clone()));
    // The kernel accepts the connections; nobody reads from them.
    while tally.timed_out.get() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    let told = fleet.await.unwrap();
    drop(listener);
    let records: Vec<_> = told.devices.iter().flat_map(|device| &device.records).collect();
    assert_eq!(records.len(), 6);
    assert!(records.iter().all(|record| record.state == State::Unknown && record.acks == 0));
}
