//! Random events in random files, read in pages of random size, against a plain model.
//!
//! The files are real Parquet in a directory. PENSTOCK_TEST_SEED repeats a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloud_core::bus::Record;
use cloud_core::query::cursor::Cursor;
use cloud_core::query::{RawQuery, page};
use cloud_core::raw::batch::Batch;
use cloud_core::raw::encode::encode;
use cloud_core::store::catalog::FileEntry;
use cloud_core::store::object::{Objects, StoreConfig};
use penstock_common::event::{Flags, UnixMicros};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::support::events::{Event, SECOND, T0};

const CASES: u64 = 150;

fn seed() -> u64 {
    let given = std::env::var("PENSTOCK_TEST_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| text.parse().unwrap());
    println!("PENSTOCK_TEST_SEED={seed}");
    seed
}

/// Few devices, ids, fleets and times, so that copies and ties are common. Most events of one
/// identity have one timestamp, as honest retries do; some are received long before it, and some
/// are conflicts with another timestamp.
fn events(rng: &mut StdRng) -> Vec<Event> {
    let ids: Vec<(Uuid, i64)> = (0..rng.random_range(1..30))
        .map(|_| (Uuid::from_u128(rng.random()), rng.random_range(0..200)))
        .collect();
    let event = |number| {
        let (id, second) = ids[rng.random_range(0..ids.len())];
        let second = if rng.random_bool(0.1) { rng.random_range(0..200) } else { second };
        let mut event = Event::new(["dev-a", "dev-b"][rng.random_range(0..2)], second);
        event.id = id;
        event.fleet = ["x", "y"][usize::from(rng.random_bool(0.1))].into();
        let delay =
            if rng.random_bool(0.2) { -rng.random_range(30..400) } else { rng.random_range(0..3) };
        event.received_at = event.time + delay * SECOND;
        event.gateway = ["g1", "g2"][rng.random_range(0..2)].into();
        // In any order, but no number is ever given to two records.
        event.seq = rng.random_range(0..1_000) * 1_000 + number;
        event.extra_metric = (id.as_u128() % 3 == 0).then_some("humidity");
        event
    };
    let count = ids.len() as u64 * 3;
    (0..count).map(event).collect()
}

async fn write(objects: &Objects, number: usize, events: &[Event]) -> Option<FileEntry> {
    let mut batch = Batch::default();
    for (offset, event) in (0..).zip(events) {
        let headers = event.headers();
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let payload = event.payload();
        let record = Record::new((0, offset), UnixMicros(T0), None, payload.as_bytes(), headers);
        batch.push(&record, 88).unwrap();
    }
    let encoded = encode(&batch).unwrap().pop()?;
    let path = format!("{number}.parquet");
    objects.put(&path, encoded.bytes.clone()).await.unwrap();
    Some(FileEntry {
        file_id: Uuid::from_u128(number as u128),
        path,
        bytes: i64::try_from(encoded.bytes.len()).unwrap(),
        min_effective: encoded.min_effective,
        max_effective: encoded.max_effective,
        clock_ahead_count: i64::try_from(encoded.clock_ahead_count).unwrap(),
    })
}

/// What the catalog would name.
fn relevant(files: &[FileEntry], from: i64, to: i64) -> Vec<FileEntry> {
    let mut relevant: Vec<FileEntry> = files
        .iter()
        .filter(|file| {
            let overlaps = file.min_effective < to && file.max_effective >= from;
            overlaps || (file.clock_ahead_count > 0 && file.min_effective < to)
        })
        .cloned()
        .collect();
    relevant.sort_by_key(|file| (file.min_effective, file.file_id));
    relevant
}

/// The rule itself: of the copies in the window, and the clock-ahead ones before its end, the
/// canonical one of each identity, if it is in the window.
fn model(events: &[Event], query: &RawQuery) -> Vec<(i64, u128, String)> {
    let mut canonical: BTreeMap<(u128, &str), &Event> = BTreeMap::new();
    let precedence = |e: &Event| (e.received_at, e.gateway.clone(), e.epoch, e.seq);
    let counts = |event: &&Event| {
        let is_ahead = event.flags().contains(Flags::CLOCK_AHEAD);
        let time = event.effective();
        event.device == query.device && time < query.to && (time >= query.from || is_ahead)
    };
    for event in events.iter().filter(counts) {
        let best = canonical.entry((event.id.as_u128(), &event.fleet)).or_insert(event);
        if precedence(event) < precedence(best) {
            *best = event;
        }
    }
    let wanted = |event: &&Event| {
        (query.from..query.to).contains(&event.effective())
            && query.fleet.as_ref().is_none_or(|fleet| *fleet == event.fleet)
            && query.metric.as_ref().is_none_or(|m| event.extra_metric == Some(m.as_str()))
    };
    let shown = canonical.into_values().filter(wanted);
    let mut keys: Vec<_> =
        shown.map(|e| (e.effective(), e.id.as_u128(), e.fleet.clone())).collect();
    keys.sort();
    keys
}

async fn read_all(
    objects: &Objects,
    files: &[FileEntry],
    mut query: RawQuery,
) -> Vec<(i64, u128, String)> {
    let mut keys = Vec::new();
    loop {
        let (events, more) = page::read(objects, files, &query).await.unwrap();
        assert!(events.len() <= query.limit);
        assert!(!more || !events.is_empty(), "a page without events that promises more");
        let key = |e: &cloud_core::query::row::StoredEvent| e.key();
        keys.extend(
            events.iter().map(key).map(|k| (k.effective_time, k.event_id, k.fleet.to_string())),
        );
        match events.last() {
            Some(last) if more => query.cursor = Some(Cursor { after: last.key(), as_of: 0 }),
            _ => return keys,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_what_the_model_shows() {
    let seed = seed();
    for case in 0..CASES {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(case));
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let objects = Objects::open(&StoreConfig { url, ..StoreConfig::default() }).unwrap();
        let events = Arc::new(events(&mut rng));
        let mut parts = vec![Vec::new(); rng.random_range(1..6)];
        for event in events.iter() {
            let part = rng.random_range(0..parts.len());
            parts[part].push(event.clone());
        }
        let mut files = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            files.extend(write(&objects, number, part).await);
        }
        for _ in 0..4 {
            let from = T0 + rng.random_range(-300..200) * SECOND;
            let query = RawQuery {
                device: "dev-a".into(),
                fleet: rng.random_bool(0.3).then(|| "x".into()),
                metric: rng.random_bool(0.3).then(|| "humidity".into()),
                from,
                to: from + rng.random_range(1..400) * SECOND,
                limit: rng.random_range(1..20),
                cursor: None,
            };
            let files = relevant(&files, query.from, query.to);
            let shown = read_all(&objects, &files, query.clone()).await;
            assert_eq!(shown, model(&events, &query), "seed {seed}, case {case}, {query:?}");
        }
    }
}
