//! Dead letters over the API: filters and pages, single letters, replays, and what is resolved.

use std::collections::BTreeMap;

use cloud_core::failpoint::{Action, Failpoints};
use penstock_common::event::UnixMicros;
use penstock_common::schema::SchemaSet;
use serde_json::{Value, json};

use crate::support::events::{Event, SECOND, T0};
use crate::support::letters::{Draft, LetterApi, draft, drafts, event, meta};
use crate::support::{Rig, Store, eventually};

/// Stores letters and returns their ids.
async fn stored(rig: &Rig, drafts: &[Draft]) -> Vec<String> {
    let ids = rig.send_letters(drafts).await;
    let running = rig.start_letters(Failpoints::default());
    rig.letters_stored(&ids).await;
    running.stop().await;
    ids
}

async fn api(rig: &Rig) -> LetterApi {
    let replayer = rig.replayer(SchemaSet::baked().unwrap(), Failpoints::default());
    LetterApi::start(rig, replayer).await
}

/// Today's schemas, and firmware 9 under schema 1.
fn richer() -> SchemaSet {
    let dir = tempfile::tempdir().unwrap();
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
    for version in 1..=3 {
        let name = format!("v{version}.json");
        std::fs::copy(format!("{from}/{name}"), dir.path().join(name)).unwrap();
    }
    let rules = std::fs::read_to_string(format!("{from}/firmware-rules.json")).unwrap();
    let mut rules: Value = serde_json::from_str(&rules).unwrap();
    let more = json!({ "firmware": ">=9.0.0, <10.0.0", "schema": 1 });
    rules["rules"].as_array_mut().unwrap().push(more);
    std::fs::write(dir.path().join("firmware-rules.json"), rules.to_string()).unwrap();
    SchemaSet::load(dir.path()).unwrap()
}

async fn ids_of(api: &LetterApi, query: &str, limit: usize) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/dead-letters?{query}&limit={limit}{cursor}");
        let (status, page) = api.get(&path).await;
        assert_eq!(status, 200, "{page}");
        let letters = page["dead_letters"].as_array().unwrap();
        assert!(letters.len() <= limit);
        ids.extend(letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_and_pages_hold_every_letter_once() {
    let rig = Rig::new(Store::Directory).await;
    let mut all = drafts(6, 10);
    let mut other = meta("schema_violation", 5);
    other.stage = "core.raw".into();
    other.fleet = "other-line".into();
    other.provenance.gateway = "plant-8".into();
    let (_, text) = event("dev-x", 5, "1.0.0");
    all.push(draft("dev-x", &other, text));
    let ids = stored(&rig, &all).await;
    let api = api(&rig).await;

    for limit in [1_000, 7, 1] {
        let mut found = ids_of(&api, "", limit).await;
        assert_eq!(found.len(), ids.len());
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), ids.len());
    }
    for query in [
        "reason=schema_violation",
        "stage=core.raw",
        "fleet=other-line",
        "gateway=plant-8",
        "device=dev-x",
        "device=dev-x&state=open&reason=schema_violation",
    ] {
        assert_eq!(ids_of(&api, query, 10).await, [ids[60].clone()], "{query}");
    }
    assert_eq!(ids_of(&api, "device=dev-3", 4).await.len(), 10);
    assert_eq!(ids_of(&api, "state=resolved", 4).await.len(), 0);

    // By append time, which the bus gave them; newest first.
    let (_, page) = api.get("/v1/dead-letters?limit=1000").await;
    let times: Vec<UnixMicros> = page["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| UnixMicros::parse_rfc3339(l["appended_at"].as_str().unwrap()).unwrap())
        .collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
    let (first, last) = (times[60].to_rfc3339(), UnixMicros(times[0].0 + 1).to_rfc3339());
    assert_eq!(ids_of(&api, &format!("from={first}&to={last}"), 50).await.len(), 61);
    assert_eq!(ids_of(&api, &format!("from={last}"), 50).await.len(), 0);

    // Letters that come while somebody turns pages are not on them.
    let (_, page) = api.get("/v1/dead-letters?limit=30").await;
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    stored(&rig, &drafts(2, 3)).await;
    let (_, rest) = api.get(&format!("/v1/dead-letters?limit=1000&cursor={cursor}")).await;
    assert_eq!(rest["dead_letters"].as_array().unwrap().len(), 31);
    assert_eq!(rest["as_of"], page["as_of"]);
    let (status, problem) = api.get("/v1/dead-letters?limit=0&state=x&colour=red").await;
    assert_eq!((status, problem["hints"].as_array().unwrap().len()), (400, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_letter_is_shown_whole() {
    let rig = Rig::new(Store::S3).await;
    let mut one = meta("unknown_firmware", 10);
    one.source = Some(penstock_common::event::SourceOffset {
        topic: "raw-events".into(),
        partition: 3,
        offset: 9,
    });
    let (id, text) = event("dev-1", 10, "9.0.0");
    let mut known = draft("dev-1", &one, text.clone());
    known.headers.push(("later".into(), b"\xff".to_vec()));
    let broken = Draft { key: "k".into(), payload: b"\xff\x00".to_vec(), headers: Vec::new() };
    let ids = stored(&rig, &[known, broken]).await;
    let api = api(&rig).await;

    let letter = api.one(&ids[0]).await;
    assert_eq!((&letter["id"], &letter["state"]), (&json!(ids[0]), &json!("open")));
    assert_eq!(letter["payload"], json!({ "text": text }));
    assert_eq!(letter["detail"], json!({ "index": 0, "errors": [] }));
    assert_eq!(letter["event_id"], id.to_string());
    assert_eq!((&letter["device_id"], &letter["seq"]), (&json!("dev-1"), &json!(10)));
    assert_eq!(
        (&letter["gateway"], &letter["source"]),
        (&json!("plant-7"), &json!("raw-events/3/9"))
    );
    assert_eq!(letter["headers"], json!([{ "name": "later", "value": { "base64": "/w==" } }]));
    let first_seen = UnixMicros(T0 + 10 * SECOND + SECOND / 2).to_rfc3339();
    assert_eq!(letter["first_seen"], first_seen);

    let letter = api.one(&ids[1]).await;
    assert_eq!(letter["payload"], json!({ "base64": "/wA=" }));
    assert_eq!(letter["reason"], "unreadable_headers");
    assert_eq!(letter["device_id"], "k");
    let none = format!("{}:0:999999", rig.dead_letter_topic());
    assert_eq!(api.get(&format!("/v1/dead-letters/{none}")).await.0, 404);
    assert_eq!(api.get("/v1/dead-letters/nonsense").await.0, 400);
}

/// By id.
fn statuses(answer: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let letters = answer["dead_letters"].as_array().unwrap().iter();
    letters.map(|letter| (text(&letter["id"]), text(&letter["status"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_refused_then_replayed_then_resolved() {
    let rig = Rig::new(Store::Directory).await;
    let all = drafts(3, 4);
    let ids = stored(&rig, &all).await;
    // With the schemas that refused it, nothing changes but the note.
    let today = api(&rig).await;
    let (status, answer) = today.replay(&json!({ "ids": [ids[0]] })).await;
    assert_eq!((status, &answer["refused"]), (200, &json!(1)), "{answer}");
    assert_eq!(answer["dead_letters"][0]["refusal"]["reason"], "unknown_firmware");
    let letter = today.one(&ids[0]).await;
    assert_eq!((&letter["state"], &letter["replays"]), (&json!("open"), &json!(0)));
    assert_eq!(letter["refusal"]["errors"][0]["pointer"], "/device_firmware_version");

    // The firmware is known now.
    let later = LetterApi::start(&rig, rig.replayer(richer(), Failpoints::default())).await;
    let (_, dry) = later.replay(&json!({ "filter": {}, "limit": 100, "dry_run": true })).await;
    assert_eq!((&dry["replayed"], &dry["replay_id"]), (&json!(12), &Value::Null), "{dry}");
    assert_eq!(today.one(&ids[0]).await["state"], "open");
    let (mut cursor, mut replayed) = (Value::Null, 0);
    loop {
        let asked =
            json!({ "filter": { "reason": "unknown_firmware" }, "limit": 5, "cursor": cursor });
        let (status, answer) = later.replay(&asked).await;
        assert_eq!(status, 200, "{answer}");
        assert!(statuses(&answer).values().all(|status| status == "replayed"), "{answer}");
        replayed += answer["dead_letters"].as_array().unwrap().len();
        cursor = answer["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(replayed, 12);
    let letter = today.one(&ids[0]).await;
    assert_eq!((&letter["state"], &letter["replays"]), (&json!("replayed"), &json!(1)));
    assert_eq!(letter["refusal"], Value::Null);

    // They are in the raw store once, as the gateway had them.
    let (raw, stop) = rig.start_replays();
    eventually("replays are stored", async || rig.stored().await.len() >= 12).await;
    let events = rig.stored().await;
    let mut payloads: Vec<&[u8]> = events.iter().map(|event| event.payload.as_bytes()).collect();
    let mut wanted: Vec<&[u8]> = all.iter().map(|draft| draft.payload.as_slice()).collect();
    payloads.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(payloads, wanted);
    for event in &events {
        let second = (event.event_time.0 - T0) / SECOND;
        assert_eq!((&*event.gateway, event.epoch.0, event.seq), ("plant-7", 255, second));
        assert_eq!((&*event.fleet, event.schema_version), ("press-line", 1));
        assert_eq!(event.received_at, UnixMicros(event.event_time.0 + SECOND / 2));
    }

    // Stored after all: resolved. Replaying again says so.
    let resolver = rig.resolver();
    eventually("all are resolved", async || {
        resolver.look().await.unwrap();
        ids_of(&today, "state=resolved", 100).await.len() == 12
    })
    .await;
    let (_, again) = later.replay(&json!({ "ids": ids })).await;
    assert!(statuses(&again).values().all(|status| status == "resolved"), "{again}");
    stop.cancel();
    raw.await.unwrap().unwrap();
    assert_eq!(rig.stored().await.len(), 12);

    let audit =
        "SELECT count(*) FROM dead_letter_replay WHERE who = 'test-admin' AND ended_at IS NOT NULL";
    assert_eq!(rig.database.number(audit).await, 5);
    let sum = "SELECT (1000 * sum(refused) + sum(replayed))::int8 FROM dead_letter_replay";
    assert_eq!(rig.database.number(sum).await, 1_012);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_replayed_says_so_letter_by_letter() {
    let rig = Rig::new(Store::Directory).await;
    let (_, good) = event("dev-1", 1, "1.0.0");
    let (_, hot) = event("dev-1", 2, "1.0.0");
    let letters = [
        draft("dev-1", &meta("unknown_firmware", 1), good.clone()),
        draft("dev-1", &meta("schema_violation", 2), hot.replace("61.5", "900.0")),
        draft("dev-1", &meta("malformed_json", 3), "[{\"event_id\":"),
        Draft { key: "dev-1".into(), payload: good.into_bytes(), headers: Vec::new() },
    ];
    let mut ids = stored(&rig, &letters).await;
    ids.push(format!("{}:0:999999", rig.dead_letter_topic()));
    let api = api(&rig).await;
    let (status, answer) = api.replay(&json!({ "ids": ids })).await;
    assert_eq!(status, 200, "{answer}");
    let told = answer["dead_letters"].as_array().unwrap();
    let told: Vec<_> =
        told.iter().map(|l| (&l["id"], &l["status"], &l["refusal"]["reason"])).collect();
    let expected = ["replayed", "refused", "refused", "refused", "not_found"];
    let reasons = [
        Value::Null,
        json!("schema_violation"),
        json!("not_an_event"),
        json!("unreadable_headers"),
        Value::Null,
    ];
    for (at, (id, status, reason)) in told.into_iter().enumerate() {
        assert_eq!((id, status), (&json!(ids[at]), &json!(expected[at])), "{answer}");
        assert_eq!(reason, &reasons[at], "{answer}");
    }
    let (status, problem) = api.replay(&json!({ "ids": ["x"], "limit": 5, "more": 1 })).await;
    assert_eq!((status, problem["hints"].as_array().unwrap().len()), (400, 3), "{problem}");
}

/// A replay that dies between the bus and the index: the letter is open, and sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_replayed_twice_is_one_event() {
    let rig = Rig::new(Store::Directory).await;
    let ids = stored(&rig, &drafts(1, 1)).await;
    let failpoints = Failpoints::default();
    failpoints.arm("replay_sent", Action::Fail(1));
    let api = LetterApi::start(&rig, rig.replayer(richer(), failpoints)).await;
    let (_, answer) = api.replay(&json!({ "ids": ids })).await;
    assert_eq!(answer["dead_letters"][0]["status"], "failed");
    assert_eq!(api.one(&ids[0]).await["state"], "open");
    for _ in 0..2 {
        let (_, answer) = api.replay(&json!({ "ids": ids })).await;
        assert_eq!(answer["dead_letters"][0]["status"], "replayed");
    }
    assert_eq!(api.one(&ids[0]).await["replays"], 2);
    let (raw, stop) = rig.start_replays();
    eventually("all copies are stored", async || rig.stored().await.len() == 3).await;
    stop.cancel();
    raw.await.unwrap().unwrap();
    // Copies of one record: a query shows one event.
    let window = "device=dev-0&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z";
    let (_, page) = api.get(&format!("/v1/raw?{window}")).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 1, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_letters_whose_own_event_is_stored_are_resolved() {
    let rig = Rig::new(Store::Directory).await;
    // Many devices in one hour, so that whole files are read; few in the next.
    let wide = |device: i64| Event::new(&format!("dev-{device}"), device);
    let mut events: Vec<Event> = (0..40).map(wide).collect();
    events.extend((0..3).map(|device| Event::new(&format!("dev-{device}"), 3_600 + device)));
    // This one's clock was ahead: it lies where it was received.
    let mut ahead = Event::new("dev-9", 7_200);
    ahead.received_at = ahead.time - 300 * SECOND;
    events.push(ahead);
    let running = rig.start();
    rig.drained(&rig.send(&events).await).await;
    running.stop().await;

    let letter = |event: &Event, fleet: &str, reason: &str| {
        let mut meta = meta(reason, 1);
        meta.fleet = fleet.into();
        draft(&event.device, &meta, event.payload())
    };
    let mut letters: Vec<Draft> =
        events.iter().map(|event| letter(event, "press-line", "schema_violation")).collect();
    // The same ids of another fleet, of another device, of nobody; and a lost conflict.
    let mut stranger = events[0].clone();
    stranger.device = "dev-99".into();
    let mut nobody = events[1].clone();
    nobody.id = uuid::Uuid::new_v4();
    letters.push(letter(&events[0], "other-line", "schema_violation"));
    letters.push(letter(&stranger, "press-line", "schema_violation"));
    letters.push(letter(&nobody, "press-line", "schema_violation"));
    letters.push(letter(&events[2], "press-line", "id_conflict"));
    let ids = stored(&rig, &letters).await;

    let resolver = rig.resolver();
    let mut looked = 0;
    eventually("every letter was looked for", async || {
        let now = resolver.look().await.unwrap();
        looked += now.resolved;
        rig.database.number("SELECT count(*) FROM dead_letter WHERE looks > 0").await == 3
            && looked == 44
    })
    .await;
    let api = api(&rig).await;
    let mut open = ids_of(&api, "state=open", 100).await;
    open.sort_unstable();
    let mut expected = ids[44..].to_vec();
    expected.sort_unstable();
    assert_eq!(open, expected);
    let unresolved = rig.catalog.unresolved().await.unwrap();
    assert_eq!((unresolved.open, unresolved.replayed), (4, 0));

    // Ever less often.
    let mut resolver = resolver;
    resolver.config.resolve_first_ms = 100_000;
    let client = rig.database.client().await;
    client.execute("UPDATE dead_letter SET looks = 0", &[]).await.unwrap();
    for wait in [100, 200, 400, 800] {
        let due = "UPDATE dead_letter SET look_at = now() WHERE look_at IS NOT NULL";
        client.execute(due, &[]).await.unwrap();
        assert_eq!(resolver.look().await.unwrap().in_vain, 3);
        let sql = format!(
            "SELECT count(*) FROM dead_letter WHERE look_at - now() \
             BETWEEN interval '{} s' AND interval '{wait} s'",
            wait - 50
        );
        assert_eq!(rig.database.number(&sql).await, 3, "{wait}");
        assert_eq!(resolver.look().await.unwrap().in_vain, 0);
    }
}
