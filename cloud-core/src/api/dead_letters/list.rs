//! `GET /v1/dead-letters?reason=&stage=&gateway=&fleet=&device=&state=&from=&to=&limit=&cursor=`:
//! newest first by the time the bus got them, `from` ≤ append time < `to`. All pages of a cursor
//! chain show the letters that were there at the first, each in its state of now.

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::cursor::LetterCursor;
use super::{FILTERS, Summary, check, identify, set, summary};
use crate::api::Api;
use crate::api::described::DeadLetterState;
use crate::api::problem::Problem;
use crate::query::QueryError;
use crate::store::dead_letters::find::{Filter, Find, Order};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// The parameters, read.
#[derive(Debug)]
struct Page {
    filter: Filter,
    limit: usize,
    cursor: Option<LetterCursor>,
}

/// Dead letters, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterList)]
pub(in crate::api) struct Answer<'a> {
    dead_letters: Vec<Listed<'a>>,
    next_cursor: Option<String>,
    as_of: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterListed)]
struct Listed<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    /// The beginning of the detail: JSON, but perhaps cut.
    detail_preview: &'a str,
}

/// The dead letters, newest first.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "dead letters", params(
    ("reason" = Option<String>, Query), ("stage" = Option<String>, Query),
    ("gateway" = Option<String>, Query), ("fleet" = Option<String>, Query),
    ("device" = Option<String>, Query),
    ("state" = inline(Option<DeadLetterState>), Query),
    ("from" = Option<String>, Query, format = DateTime, description = "RFC 3339, included"),
    ("to" = Option<String>, Query, format = DateTime, description = "RFC 3339, not included"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 by default"),
    ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = Answer), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(in crate::api) async fn get(
    State(api): State<Api>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let page = parse(&parameters).map_err(Problem::bad_request)?;
    let _slot = api.slots.take().await?;
    let answered = tokio::time::timeout(api.timeout, answer(&api, &page));
    answered.await.map_err(|_| Problem::timeout())?
}

async fn answer(api: &Api, page: &Page) -> Result<Response, Problem> {
    let head = api.catalog.head().await?;
    let as_of = page.cursor.map_or(head, |cursor| cursor.as_of);
    if as_of > head {
        return Err(QueryError::ForeignCursor.into());
    }
    let find = Find {
        filter: page.filter.clone(),
        order: Order::NewestFirst,
        after: page.cursor.map(|cursor| cursor.after),
        as_of,
        limit: page.limit + 1,
    };
    let mut letters = api.catalog.find_dead_letters(&find).await?;
    let more = letters.len() > page.limit;
    letters.truncate(page.limit);
    let next = letters.last().filter(|_| more).map(|last| {
        LetterCursor { after: last.key(), as_of }.encode(&identify(&page.filter, "newest"))
    });
    let listed =
        |letter| Listed { summary: summary(letter), detail_preview: &letter.entry.detail_preview };
    let dead_letters = letters.iter().map(listed).collect();
    Ok(Json(Answer { dead_letters, next_cursor: next, as_of }).into_response())
}

/// Reads the parameters, and collects everything that is wrong with them.
fn parse(parameters: &[(String, String)]) -> Result<Page, Vec<String>> {
    let mut problems = Vec::new();
    let mut filter = Filter::default();
    let (mut limit, mut cursor) = (LIMIT_DEFAULT, None);
    for (number, (name, value)) in parameters.iter().enumerate() {
        if parameters[..number].iter().any(|(other, _)| other == name) {
            problems.push(format!("{name}: given more than once"));
        } else if value.is_empty() {
            // As if it were not there, but for its name.
            if !FILTERS.contains(&name.as_str()) && !["limit", "cursor"].contains(&name.as_str()) {
                problems.push(unknown(name));
            }
        } else {
            match name.as_str() {
                "cursor" => cursor = Some(value),
                "limit" => match value.parse() {
                    Ok(number) if (1..=LIMIT_MAX).contains(&number) => limit = number,
                    _ => problems.push(format!("limit: want a number from 1 to {LIMIT_MAX}")),
                },
                known if FILTERS.contains(&known) => {
                    problems.extend(set(&mut filter, known, value).err());
                }
                other => problems.push(unknown(other)),
            }
        }
    }
    problems.extend(check(&filter).err());
    let cursor = cursor.and_then(|text| {
        LetterCursor::decode(text, &identify(&filter, "newest"))
            .map_err(|error| problems.push(format!("cursor: {error}; pass next_cursor unchanged")))
            .ok()
    });
    if problems.is_empty() { Ok(Page { filter, limit, cursor }) } else { Err(problems) }
}

fn unknown(name: &str) -> String {
    format!("{name}: unknown; known are {}, limit, cursor", FILTERS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(text: &[(&str, &str)]) -> Vec<(String, String)> {
        text.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn every_parameter_is_read_and_none_is_needed() {
        let page = parse(&[]).unwrap();
        assert_eq!((page.filter, page.limit, page.cursor), (Filter::default(), 100, None));
        let all = [
            ("reason", "unknown_firmware"),
            ("stage", "gateway.admit"),
            ("gateway", "plant-7"),
            ("fleet", "press-line"),
            ("device", "press-1"),
            ("state", "open"),
            ("from", "2026-01-01T00:00:00Z"),
            ("to", "2026-01-02T00:00:00Z"),
            ("limit", "7"),
        ];
        let page = parse(&parameters(&all)).unwrap();
        let Filter { reason, stage, gateway, fleet, device, state, from, to } = &page.filter;
        assert!([reason, stage, gateway, fleet, device].iter().all(|text| text.is_some()));
        assert!(state.is_some() && to.unwrap() - from.unwrap() == 86_400_000_000);
        let cursor = LetterCursor { after: (1, 2), as_of: 3 };
        let text = cursor.encode(&identify(&page.filter, "newest"));
        let mut next = parameters(&all);
        next.push(("cursor".into(), text.clone()));
        assert_eq!(parse(&next).unwrap().cursor, Some(cursor));
        next[0].1 = "other".into();
        assert!(parse(&next).unwrap_err()[0].starts_with("cursor:"));
    }

    #[test]
    fn all_mistakes_are_named_together() {
        let problems = parse(&parameters(&[
            ("state", "closed"),
            ("from", "yesterday"),
            ("limit", "0"),
            ("limit", "5"),
            ("colour", "red"),
            ("colours", ""),
            ("device", "a\0"),
            ("cursor", "x"),
        ]))
        .unwrap_err();
        let names: Vec<_> =
            problems.iter().map(|problem| problem.split(':').next().unwrap()).collect();
        let expected = ["state", "from", "limit", "limit", "colour", "colours", "device", "cursor"];
        assert_eq!(names, expected);
        let empty = [("from", "2026-01-01T00:00:00Z"), ("to", "2026-01-01T00:00:00Z")];
        assert!(parse(&parameters(&empty)).unwrap_err()[0].starts_with("from:"));
    }
}
