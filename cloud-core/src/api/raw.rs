//! `GET /v1/raw?device=&from=&to=[&metric=][&fleet=][&limit=][&cursor=]`: events as they were
//! sent, `from` ≤ effective time < `to`, by (effective time, event id), one copy an event.

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use penstock_common::event::UnixMicros;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::problem::Problem;
use crate::query::cursor::Cursor;
use crate::query::row::StoredEvent;
use crate::query::{Page, RawQuery};

const LIMIT_DEFAULT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
const KNOWN: [&str; 7] = ["device", "from", "to", "metric", "fleet", "limit", "cursor"];

/// The raw events of a device, as it sent them.
#[utoipa::path(get, path = "/v1/raw", tag = "events", params(
    ("device" = String, Query), ("fleet" = Option<String>, Query),
    ("from" = String, Query, format = DateTime, description = "RFC 3339, included"),
    ("to" = String, Query, format = DateTime, description = "RFC 3339, not included"),
    ("metric" = Option<String>, Query, description = "only events that have it"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 10000, description = "1,000 by default"),
    ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = Answer), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn get(
    State(api): State<Api>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let query = parse(&parameters).map_err(Problem::bad_request)?;
    let _slot = api.slots.take().await?;
    let page = tokio::time::timeout(api.timeout, api.queries.raw(&query))
        .await
        .map_err(|_| Problem::timeout())??;
    Ok(Json(answer(&page, &query)).into_response())
}

/// Reads the parameters, and collects everything that is wrong with them.
fn parse(parameters: &[(String, String)]) -> Result<RawQuery, Vec<String>> {
    let mut problems = Vec::new();
    for (number, (name, _)) in parameters.iter().enumerate() {
        if !KNOWN.contains(&name.as_str()) {
            problems.push(format!("{name}: unknown; known are {}", KNOWN.join(", ")));
        } else if parameters[..number].iter().any(|(other, _)| other == name) {
            problems.push(format!("{name}: given more than once"));
        }
    }
    let get = |wanted: &str| {
        let found = parameters.iter().find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| value.clone())
    };
    let device = get("device").unwrap_or_else(|| {
        problems.push("device: missing, e.g. device=press-17".into());
        String::new()
    });
    let mut time = |name: &str| match get(name).map(|text| UnixMicros::parse_rfc3339(&text)) {
        Some(Ok(time)) => Some(time.0),
        Some(Err(error)) => {
            problems.push(format!(
                "{name}: not an RFC 3339 time ({error}); e.g. {name}=2026-01-31T08:00:00Z, \
                 and a + of an offset is written %2B"
            ));
            None
        }
        None => {
            problems.push(format!("{name}: missing, e.g. {name}=2026-01-31T08:00:00Z"));
            None
        }
    };
    let (from, to) = (time("from"), time("to"));
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        problems.push("from: must be before to, which is not included".into());
    }
    let limit = get("limit").map_or(Some(LIMIT_DEFAULT), |text| text.parse().ok());
    let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit)).unwrap_or_else(|| {
        problems.push(format!("limit: want a number from 1 to {LIMIT_MAX}"));
        LIMIT_DEFAULT
    });
    let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
    let (fleet, metric) = (get("fleet"), get("metric"));
    let mut query = RawQuery { device, fleet, metric, from, to, limit, cursor: None };
    if let Some(text) = get("cursor") {
        match Cursor::decode(&text, &identify(&query)) {
            Ok(cursor) => query.cursor = Some(cursor),
            Err(error) => problems.push(format!("cursor: {error}; pass next_cursor unchanged")),
        }
    }
    if problems.is_empty() { Ok(query) } else { Err(problems) }
}

/// What a cursor belongs to. The limit may change from page to page.
fn identify(query: &RawQuery) -> String {
    let RawQuery { device, fleet, metric, from, to, .. } = query;
    format!("{device:?} {fleet:?} {metric:?} {from} {to}")
}

/// Events, as they were sent.
#[derive(Serialize, ToSchema)]
#[schema(as = RawEvents)]
pub(super) struct Answer<'a> {
    events: Vec<Event<'a>>,
    next_cursor: Option<String>,
    as_of: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RawEvent)]
struct Event<'a> {
    event_id: Uuid,
    device_id: &'a str,
    fleet: &'a str,
    firmware: &'a str,
    schema_version: i32,
    timestamp: String,
    effective_time: String,
    received_at: String,
    appended_at: String,
    #[schema(value_type = Vec<String>)]
    flags: Vec<&'static str>,
    gateway: &'a str,
    epoch: String,
    seq: i64,
    #[schema(value_type = std::collections::HashMap<String, f64>)]
    metrics: Metrics<'a>,
    /// The event's own bytes.
    #[schema(value_type = Option<Object>)]
    payload: Option<&'a RawValue>,
}

struct Metrics<'a>(&'a [(String, f64)]);

impl Serialize for Metrics<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn answer<'a>(page: &'a Page, query: &RawQuery) -> Answer<'a> {
    Answer {
        events: page.events.iter().map(event).collect(),
        next_cursor: page.next.as_ref().map(|cursor| cursor.encode(&identify(query))),
        as_of: page.as_of,
    }
}

fn event(event: &StoredEvent) -> Event<'_> {
    Event {
        event_id: event.event_id,
        device_id: &event.device_id,
        fleet: &event.fleet,
        firmware: &event.firmware,
        schema_version: event.schema_version,
        timestamp: event.event_time.to_rfc3339(),
        effective_time: event.effective_time.to_rfc3339(),
        received_at: event.received_at.to_rfc3339(),
        appended_at: event.append_time.to_rfc3339(),
        flags: event.flags.names().collect(),
        gateway: &event.gateway,
        epoch: event.epoch.to_string(),
        seq: event.seq,
        metrics: Metrics(&event.metrics),
        payload: serde_json::from_str(&event.payload).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(text: &[(&str, &str)]) -> Vec<(String, String)> {
        text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const GOOD: [(&str, &str); 3] =
        [("device", "d"), ("from", "2026-01-01T00:00:00Z"), ("to", "2026-01-01T01:00:00+00:00")];

    #[test]
    fn a_good_query_is_read() {
        let query = parse(&parameters(&GOOD)).unwrap();
        assert_eq!((query.device.as_str(), query.limit), ("d", 1_000));
        assert_eq!(query.to - query.from, 3_600_000_000);
        assert_eq!((query.fleet, query.metric, query.cursor), (None, None, None));
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let bad = [("from", "yesterday"), ("limit", "0"), ("colour", "red"), ("cursor", "x")];
        let problems = parse(&parameters(&bad)).unwrap_err();
        for name in ["device: missing", "from: not", "to: missing", "limit:", "colour:", "cursor:"]
        {
            assert!(problems.iter().any(|p| p.starts_with(name)), "{name} in {problems:?}");
        }
        assert_eq!(problems.len(), 6);
    }

    #[test]
    fn an_empty_window_and_a_doubled_parameter_are_refused() {
        let mut bad = parameters(&GOOD);
        bad[2].1 = bad[1].1.clone();
        assert!(parse(&bad).unwrap_err()[0].starts_with("from:"));
        let mut bad = parameters(&GOOD);
        bad.push(("device".into(), "e".into()));
        assert!(parse(&bad).unwrap_err()[0].contains("more than once"));
    }
}
