//! Queries over the API, on what the raw writer stored.

use serde_json::Value;

use crate::support::api::TestApi;
use crate::support::events::{Event, SECOND, T0, fleet};
use crate::support::{Rig, Running, Store, http};

/// The API of a rig.
struct Client(TestApi);

impl Client {
    async fn start(rig: &Rig) -> Self {
        Self(TestApi::start(rig, None).await)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.0.get(path).await
    }

    /// All pages of a query, each with at most `limit` events.
    async fn pages(&self, query: &str, limit: usize) -> Vec<Vec<Value>> {
        let mut pages = Vec::new();
        let mut cursor = String::new();
        loop {
            let (status, page) = self.get(&format!("/v1/raw?{query}&limit={limit}{cursor}")).await;
            assert_eq!(status, 200, "{page}");
            pages.push(page["events"].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return pages,
            }
        }
    }

    async fn ids(&self, query: &str, limit: usize) -> Vec<String> {
        let events = self.pages(query, limit).await.into_iter().flatten();
        events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    }
}

fn window(device: &str, from: i64, to: i64) -> String {
    let time = |second: i64| penstock_common::event::UnixMicros(T0 + second * SECOND).to_rfc3339();
    format!("device={device}&from={}&to={}", time(from), time(to))
}

/// Stores each of the lists in files of its own.
async fn store(rig: &Rig, running: &Running, lists: &[Vec<Event>]) {
    for events in lists {
        let sent = rig.send(events).await;
        rig.drained(&sent).await;
    }
    assert!(!running.task.is_finished());
}

async fn pages_and_fields(kind: Store) {
    let rig = Rig::new(kind).await;
    let running = rig.start();
    let mut events = fleet(6, 100);
    events[6].extra_metric = Some("bearing_temp");
    let lists: Vec<Vec<Event>> = events.chunks(120).map(<[Event]>::to_vec).collect();
    store(&rig, &running, &lists).await;
    let client = Client::start(&rig).await;

    let mine: Vec<&Event> = events.iter().filter(|event| event.device == "dev-0").collect();
    let expected: Vec<String> = mine.iter().map(|event| event.id.to_string()).collect();
    for limit in [1, 7, 50, 99, 100, 101, 10_000] {
        let pages = client.pages(&window("dev-0", 0, 1_000), limit).await;
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit), "limit {limit}");
        let ids: Vec<&str> =
            pages.iter().flatten().map(|event| event["event_id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "limit {limit}");
    }
    // The window's begin is included, its end is not.
    assert_eq!(client.ids(&window("dev-0", 10, 30), 10).await, expected[1..3]);
    assert_eq!(client.ids(&window("nobody", 0, 1_000), 10).await, [""; 0]);
    let fleet = format!("{}&fleet=other", window("dev-0", 0, 1_000));
    assert_eq!(client.ids(&fleet, 10).await, [""; 0]);
    let metric = format!("{}&metric=bearing_temp", window("dev-0", 0, 1_000));
    assert_eq!(client.ids(&metric, 10).await, [events[6].id.to_string()]);

    let (_, page) = client.get(&format!("/v1/raw?{}", window("dev-0", 10, 11))).await;
    let event = &page["events"][0];
    assert_eq!(event["timestamp"], "2026-01-01T00:00:10Z");
    assert_eq!(event["effective_time"], "2026-01-01T00:00:10Z");
    assert_eq!(event["received_at"], "2026-01-01T00:00:10.5Z");
    assert!(event["appended_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&event["device_id"], &event["fleet"]), (&"dev-0".into(), &"press-line".into()));
    assert_eq!((&event["firmware"], &event["schema_version"]), (&"1.2.3".into(), &1.into()));
    assert_eq!((&event["epoch"], &event["seq"]), (&"00000000000000ff".into(), &10.into()));
    assert_eq!(event["metrics"], serde_json::json!({"cpu_temp": 40.25, "bearing_temp": 0.001}));
    assert_eq!(event["flags"], serde_json::json!([]));
    // The payload is the event byte for byte.
    let path = format!("/v1/raw?{}", window("dev-0", 10, 11));
    let (_, body) = http::get_as(&client.0.base, &client.0.token, &path).await;
    assert!(body.contains(&format!("\"payload\":{}", events[6].payload())), "{body}");

    let (_, status) = client.get("/v1/status").await;
    assert_eq!(status["rows_published"], 600);
    let next: i64 = status["positions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["next_offset"].as_i64().unwrap())
        .sum();
    assert_eq!(next, 600);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_fields_from_a_directory() {
    pages_and_fields(Store::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_fields_from_s3() {
    pages_and_fields(Store::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_copies_the_canonical_one_is_shown() {
    let rig = Rig::new(Store::Directory).await;
    let running = rig.start();
    let first = Event::new("dev-0", 10);
    // A retry: later, by another gateway. Its number sorts before the first's.
    let mut retry = first.clone();
    (retry.received_at, retry.gateway, retry.seq) = (first.received_at + SECOND, "a".into(), 0);
    // Received at the same time: gateway, epoch and seq decide.
    let twin = Event::new("dev-0", 20);
    let mut earlier_twin = twin.clone();
    (earlier_twin.gateway, earlier_twin.seq) = ("plant-1".into(), twin.seq + 9);
    // The same identity with other bytes.
    let conflict = Event::new("dev-0", 30);
    let mut other_bytes = conflict.clone();
    (other_bytes.cpu_temp, other_bytes.received_at) = (99.5, conflict.received_at + 7);
    // Another fleet's event with the same id is another event.
    let mut foreign = first.clone();
    (foreign.fleet, foreign.cpu_temp) = ("other".into(), 1.5);
    let lists = [
        vec![retry, twin.clone(), other_bytes],
        vec![first.clone(), first.clone(), earlier_twin.clone(), foreign.clone()],
        vec![conflict.clone(), first.clone()],
    ];
    store(&rig, &running, &lists).await;
    let client = Client::start(&rig).await;
    for limit in [1, 2, 10] {
        let query = window("dev-0", 0, 100);
        let events: Vec<Value> = client.pages(&query, limit).await.into_iter().flatten().collect();
        let seen: Vec<(&str, &str, &str, f64)> = events
            .iter()
            .map(|event| {
                (
                    event["event_id"].as_str().unwrap(),
                    event["fleet"].as_str().unwrap(),
                    event["gateway"].as_str().unwrap(),
                    event["metrics"]["cpu_temp"].as_f64().unwrap(),
                )
            })
            .collect();
        let (id, twin, conflict) =
            (first.id.to_string(), twin.id.to_string(), conflict.id.to_string());
        let expected: [(&str, &str, &str, f64); 4] = [
            (&id, "other", "plant-7", 1.5),
            (&id, "press-line", "plant-7", 40.25),
            (&twin, "press-line", "plant-1", 40.25),
            (&conflict, "press-line", "plant-7", 40.25),
        ];
        assert_eq!(seen, expected, "limit {limit}");
    }
    running.stop().await;
}

/// A device whose clock is an hour ahead sends an event; a retry arrives when the clocks agree.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_ahead_copy_counts_wherever_it_is() {
    let rig = Rig::new(Store::Directory).await;
    let running = rig.start();
    let mut ahead = Event::new("dev-0", 3_600);
    ahead.received_at = T0;
    let mut retry = ahead.clone();
    retry.received_at = T0 + 3_601 * SECOND;
    assert_eq!((ahead.effective(), retry.effective()), (T0, T0 + 3_600 * SECOND));
    let honest = Event::new("dev-0", 3_700);
    store(&rig, &running, &[vec![retry], vec![honest.clone()], vec![ahead.clone()]]).await;
    let client = Client::start(&rig).await;
    for limit in [1, 10] {
        let early = client.ids(&window("dev-0", -10, 10), limit).await;
        assert_eq!(early, [ahead.id.to_string()], "the canonical copy is received at T0");
        let late = client.ids(&window("dev-0", 3_000, 4_000), limit).await;
        assert_eq!(late, [honest.id.to_string()], "its later copy is no event of its own");
        let all = client.ids(&window("dev-0", -10, 4_000), limit).await;
        assert_eq!(all, [ahead.id.to_string(), honest.id.to_string()]);
    }
    let (_, page) = client.get(&format!("/v1/raw?{}", window("dev-0", -10, 10))).await;
    assert_eq!(page["events"][0]["flags"], serde_json::json!(["clock_ahead"]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_as_they_were_while_events_arrive() {
    let rig = Rig::new(Store::Directory).await;
    let running = rig.start();
    let events = fleet(1, 20);
    store(&rig, &running, std::slice::from_ref(&events)).await;
    let client = Client::start(&rig).await;
    let query = window("dev-0", 0, 1_000);
    let (_, first) = client.get(&format!("/v1/raw?{query}&limit=5")).await;
    // Events in between, after the first page began.
    let between: Vec<Event> = (0..20).map(|n| Event::new("dev-0", n * 10 + 3)).collect();
    store(&rig, &running, &[between]).await;
    let mut seen = first["events"].as_array().unwrap().clone();
    let mut cursor = first["next_cursor"].as_str().map(str::to_owned);
    while let Some(next) = cursor {
        let (_, page) = client.get(&format!("/v1/raw?{query}&limit=6&cursor={next}")).await;
        assert_eq!(page["as_of"], first["as_of"]);
        seen.extend(page["events"].as_array().unwrap().clone());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
    }
    let ids: Vec<&str> = seen.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
    let expected: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(ids, expected);
    assert_eq!(client.ids(&query, 100).await.len(), 40);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_with_problem_details() {
    let rig = Rig::new(Store::Directory).await;
    let client = Client::start(&rig).await;
    let (status, problem) = client.get("/v1/raw?from=now&limit=0").await;
    assert_eq!((status, &problem["status"]), (400, &400.into()));
    let hints: Vec<&str> =
        problem["hints"].as_array().unwrap().iter().map(|hint| hint.as_str().unwrap()).collect();
    for name in ["device:", "from:", "to:", "limit:"] {
        assert!(hints.iter().any(|hint| hint.starts_with(name)), "{name} in {hints:?}");
    }
    // A cursor of another query, one of another catalog, and one that was altered.
    let running = rig.start();
    store(&rig, &running, &[fleet(1, 5)]).await;
    running.stop().await;
    let query = window("dev-0", 0, 100);
    let (_, page) = client.get(&format!("/v1/raw?{query}&limit=2")).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let other = window("dev-0", 0, 99);
    let altered = format!("{}AA", &cursor[..cursor.len() - 2]);
    for bad in [format!("{other}&cursor={cursor}"), format!("{query}&cursor={altered}")] {
        assert_eq!(client.get(&format!("/v1/raw?{bad}")).await.0, 400, "{bad}");
    }
    let foreign = Client::start(&Rig::new(Store::Directory).await).await;
    let (status, problem) = foreign.get(&format!("/v1/raw?{query}&cursor={cursor}")).await;
    assert_eq!(status, 400, "{problem}");
    assert_eq!(client.get("/v2/raw").await.0, 404);
}
