//! `POST /v1/dead-letters/replay`: `{"ids": […]}`, or `{"filter": {…}, "limit": n}` and the cursor
//! of the answer before; with `"dry_run": true` nothing is done but deciding. A filter without a
//! state means open letters; they are taken oldest first.

use axum::Json;
use axum::extract::rejection::StringRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::cursor::LetterCursor;
use super::{FILTERS, check, identify, set};
use crate::access::Identity;
use crate::api::Api;
use crate::api::described;
use crate::api::problem::Problem;
use crate::deadletter::decide::Refusal;
use crate::deadletter::replay::{Outcome, ReplayReport, ReplayRequest, Selection};
use crate::query::QueryError;
use crate::store::dead_letters::find::{Filter, Find, Order};
use crate::store::dead_letters::{Place, State as LetterState};

const LIMIT_DEFAULT: usize = 100;
const LETTERS_MAX: usize = 10_000;
const KNOWN: [&str; 5] = ["ids", "filter", "limit", "cursor", "dry_run"];
/// Of a request so much is kept in the audit.
const AUDIT_BYTES_MAX: usize = 8 << 10;

/// A request, read.
#[derive(Debug, PartialEq)]
struct Asked {
    which: Which,
    dry_run: bool,
}

#[derive(Debug, PartialEq)]
enum Which {
    Ids(Vec<Place>),
    Filter { filter: Filter, limit: usize, cursor: Option<LetterCursor> },
}

/// What became of the letters.
#[derive(Serialize, ToSchema)]
#[schema(as = Replayed)]
pub(in crate::api) struct Answer<'a> {
    /// In the audit; none for a dry run.
    replay_id: Option<Uuid>,
    dry_run: bool,
    replayed: usize,
    refused: usize,
    other: usize,
    dead_letters: Vec<Status<'a>>,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReplayedLetter)]
struct Status<'a> {
    id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    schema_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, required = false)]
    refusal: Option<&'a Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'static str>,
}

/// Holds dead letters against admission again, and sends what passes.
#[utoipa::path(post, path = "/v1/dead-letters/replay", tag = "dead letters",
    request_body = described::ReplayRequest, responses((status = 200, body = Answer), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 413, body = Problem),
    (status = 429, body = Problem), (status = 500, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem)))]
pub(in crate::api) async fn post(
    State(api): State<Api>,
    Extension(who): Extension<Identity>,
    headers: HeaderMap,
    body: Result<String, StringRejection>,
) -> Result<Response, Problem> {
    let body = body?;
    let Some(replayer) = api.replayer.clone() else {
        return Err(Problem::unavailable("replays are not set up in this process"));
    };
    let asked = parse(&headers, &body).map_err(Problem::bad_request)?;
    let slot = api.slots.take().await?;
    let (selection, page) = match &asked.which {
        Which::Ids(places) => (Selection::Places(places.clone()), None),
        Which::Filter { filter, limit, cursor } => {
            let head = api.catalog.head().await?;
            let as_of = cursor.map_or(head, |cursor| cursor.as_of);
            if as_of > head {
                return Err(QueryError::ForeignCursor.into());
            }
            let find = Find {
                filter: filter.clone(),
                order: Order::OldestFirst,
                after: cursor.map(|cursor| cursor.after),
                as_of,
                limit: *limit,
            };
            (Selection::Page(find), Some((as_of, identify(filter, "oldest"))))
        }
    };
    let text = penstock_common::admit::cut(body.replace('\0', ""), AUDIT_BYTES_MAX);
    let request =
        ReplayRequest { selection, dry_run: asked.dry_run, who: who.name.to_string(), text };
    // On its own: a client that goes away does not leave a replay half noted.
    let replay = tokio::spawn(async move {
        let _slot = slot;
        replayer.replay(&request).await
    });
    let report = replay.await.map_err(|error| {
        tracing::error!(%error, "a replay panicked");
        Problem::new(500, "Internal error", "the replay failed; asking again does no harm")
    })?;
    let report = report.map_err(|error| Problem::from(error.0))?;
    Ok(Json(answer(&report, asked.dry_run, page)).into_response())
}

fn answer(report: &ReplayReport, dry_run: bool, page: Option<(i64, String)>) -> Answer<'_> {
    let count = |wanted: fn(&Outcome) -> bool| {
        report.outcomes.iter().filter(|(_, outcome)| wanted(outcome)).count()
    };
    let replayed = count(|o| matches!(o, Outcome::Replayed(_) | Outcome::WouldReplay(_)));
    let refused = count(|o| matches!(o, Outcome::Refused(_)));
    let next_cursor = page
        .zip(report.last)
        .map(|((as_of, query), after)| LetterCursor { after, as_of }.encode(&query));
    Answer {
        replay_id: report.replay_id,
        dry_run,
        replayed,
        refused,
        other: report.outcomes.len() - replayed - refused,
        dead_letters: report.outcomes.iter().map(status).collect(),
        next_cursor,
    }
}

fn status((place, outcome): &(Place, Outcome)) -> Status<'_> {
    let (status, schema_version, refusal, detail) = match outcome {
        Outcome::Replayed(version) => ("replayed", Some(*version), None, None),
        Outcome::WouldReplay(version) => ("would_replay", Some(*version), None, None),
        Outcome::Refused(refusal) => ("refused", None, Some(refusal), None),
        Outcome::Resolved => ("resolved", None, None, Some("its event is stored already")),
        Outcome::NotFound => ("not_found", None, None, None),
        Outcome::Failed(why) => ("failed", None, None, Some(*why)),
    };
    Status { id: place.to_string(), status, schema_version, refusal, detail }
}

/// Reads a request, and collects everything that is wrong with it.
fn parse(headers: &HeaderMap, body: &str) -> Result<Asked, Vec<String>> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(vec!["content-type: send application/json".into()]);
    }
    let object = match serde_json::from_str(body) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(vec!["body: want a JSON object".into()]),
        Err(error) => return Err(vec![format!("body: not JSON: {error}")]),
    };
    let mut problems: Vec<String> = object
        .keys()
        .filter(|name| !KNOWN.contains(&name.as_str()))
        .map(|name| format!("{name}: unknown; known are {}", KNOWN.join(", ")))
        .collect();
    let dry_run = match object.get("dry_run") {
        None => false,
        Some(Value::Bool(dry_run)) => *dry_run,
        Some(_) => {
            problems.push("dry_run: want true or false".into());
            false
        }
    };
    let which = match (object.get("ids"), object.get("filter")) {
        (Some(ids), None) => {
            for name in ["limit", "cursor"].iter().filter(|name| object.contains_key(**name)) {
                problems.push(format!("{name}: goes with filter, not with ids"));
            }
            Which::Ids(places(ids, &mut problems))
        }
        (None, Some(Value::Object(filter))) => by_filter(filter, &object, &mut problems),
        (None, Some(_)) => {
            problems.push("filter: want an object, {} for all open letters".into());
            Which::Ids(Vec::new())
        }
        _ => {
            problems.push("ids, filter: want one of them".into());
            Which::Ids(Vec::new())
        }
    };
    if problems.is_empty() { Ok(Asked { which, dry_run }) } else { Err(problems) }
}

fn places(ids: &Value, problems: &mut Vec<String>) -> Vec<Place> {
    let Some(ids) = ids.as_array().filter(|ids| (1..=LETTERS_MAX).contains(&ids.len())) else {
        problems.push(format!("ids: want an array of 1 to {LETTERS_MAX} ids"));
        return Vec::new();
    };
    let mut places: Vec<Place> = Vec::with_capacity(ids.len());
    let mut seen = std::collections::HashSet::new();
    for id in ids {
        match id.as_str().map(str::parse::<Place>) {
            Some(Ok(place)) if seen.insert(place.clone()) => places.push(place),
            // Twice in one request is once.
            Some(Ok(_)) => {}
            _ => problems.push(format!("ids: {id}: want topic:partition:offset, as in the list")),
        }
    }
    problems.truncate(20);
    places
}

fn by_filter(
    names: &Map<String, Value>,
    object: &Map<String, Value>,
    problems: &mut Vec<String>,
) -> Which {
    let mut filter = Filter { state: Some(LetterState::Open), ..Filter::default() };
    for (name, value) in names {
        match value.as_str() {
            Some(text) => problems.extend(set(&mut filter, name, text).err()),
            None if FILTERS.contains(&name.as_str()) => {
                problems.push(format!("filter.{name}: want a text"));
            }
            None => problems.extend(set(&mut filter, name, "").err()),
        }
    }
    problems.extend(check(&filter).err());
    let limit = match object.get("limit") {
        None => LIMIT_DEFAULT,
        Some(limit) => {
            let limit = limit.as_u64().and_then(|limit| usize::try_from(limit).ok());
            limit.filter(|limit| (1..=LETTERS_MAX).contains(limit)).unwrap_or_else(|| {
                problems.push(format!("limit: want a number from 1 to {LETTERS_MAX}"));
                LIMIT_DEFAULT
            })
        }
    };
    let cursor = match object.get("cursor") {
        None | Some(Value::Null) => None,
        Some(text) => {
            let query = identify(&filter, "oldest");
            let cursor = LetterCursor::decode(text.as_str().unwrap_or_default(), &query);
            if let Err(error) = &cursor {
                problems.push(format!("cursor: {error}; pass next_cursor unchanged"));
            }
            cursor.ok()
        }
    };
    Which::Filter { filter, limit, cursor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Asked, Vec<String>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        parse(&headers, body)
    }

    #[test]
    fn both_ways_of_asking_are_read() {
        let asked = read(r#"{"ids":["t:1:2","t:1:3","t:1:2"],"dry_run":true}"#).unwrap();
        let Which::Ids(places) = asked.which else { panic!("{asked:?}") };
        assert_eq!((places.len(), asked.dry_run), (2, true));
        let asked = read(r#"{"filter":{"reason":"unknown_firmware"},"limit":7}"#).unwrap();
        let Which::Filter { filter, limit, cursor } = asked.which else { panic!("{asked:?}") };
        assert_eq!((filter.state, limit, cursor), (Some(LetterState::Open), 7, None));
        let text = LetterCursor { after: (1, 2), as_of: 3 }.encode(&identify(&filter, "oldest"));
        let next = format!(r#"{{"filter":{{"reason":"unknown_firmware"}},"cursor":"{text}"}}"#);
        assert!(read(&next).is_ok());
        assert!(read(&next.replace("unknown_", "")).unwrap_err()[0].starts_with("cursor:"));
        assert!(!read(r#"{"filter":{}}"#).unwrap().dry_run);
    }

    #[test]
    fn all_mistakes_are_named_together() {
        let problems = read(
            r#"{"filter":{"reason":7,"colour":1,"state":"shut","from":"x"},"limit":0,"dry_run":1,
               "cursor":"x","more":1}"#,
        )
        .unwrap_err();
        for name in
            ["more", "dry_run", "filter.reason", "colour", "state", "from", "limit", "cursor"]
        {
            let named = |problem: &&String| problem.starts_with(&format!("{name}:"));
            assert_eq!(problems.iter().filter(named).count(), 1, "{name}: {problems:?}");
        }
        for (body, start) in [
            ("{}", "ids, filter"),
            (r#"{"ids":[],"filter":{}}"#, "ids, filter"),
            (r#"{"ids":[]}"#, "ids:"),
            (r#"{"ids":["x",7]}"#, "ids: \"x\""),
            (r#"{"ids":["t:1:2"],"limit":1}"#, "limit: goes"),
            ("[]", "body:"),
            ("{", "body:"),
            (r#"{"filter":[]}"#, "filter:"),
        ] {
            assert!(read(body).unwrap_err()[0].starts_with(start), "{body}");
        }
        assert!(parse(&HeaderMap::new(), "{}").unwrap_err()[0].starts_with("content-type"));
    }
}
