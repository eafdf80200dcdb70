//! `GET /v1/dead-letters/{id}`: all that is known of a letter, and its original bytes.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Summary, summary};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::deadletter::letter::Letter;
use crate::deadletter::replay::read;
use crate::store::dead_letters::Place;

/// All that is known of a dead letter.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(in crate::api) struct Answer<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    /// As JSON where it is JSON, else as text.
    #[schema(value_type = Value)]
    detail: Detail<'a>,
    source: Option<String>,
    traceparent: Option<&'a str>,
    key: Option<Bytes<'a>>,
    /// Headers that were not understood.
    headers: Vec<Header<'a>>,
    payload: Bytes<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

/// Bytes as text where they are UTF-8, else in base64.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeadLetterBytes)]
#[serde(rename_all = "snake_case")]
enum Bytes<'a> {
    Text(&'a str),
    Base64(String),
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterHeader)]
struct Header<'a> {
    name: &'a str,
    value: Bytes<'a>,
}

/// All that is known of a dead letter, and its original bytes.
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "dead letters", params(
    ("id" = String, Path, description = "topic:partition:offset, as in the list")),
    responses((status = 200, body = Answer), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 429, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(in crate::api) async fn get(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let place: Place =
        id.parse().map_err(|wanted| Problem::bad_request(vec![format!("id: {wanted}")]))?;
    let _slot = api.slots.take().await?;
    let answered = tokio::time::timeout(api.timeout, answer(&api, &place));
    answered.await.map_err(|_| Problem::timeout())?
}

async fn answer(api: &Api, place: &Place) -> Result<Response, Problem> {
    let found = api.catalog.dead_letters_at(std::slice::from_ref(place)).await?;
    let Some(indexed) = found.first() else {
        let detail = format!("there is no dead letter {place}; they are kept for 30 days");
        return Err(Problem::new(404, "Not found", detail));
    };
    let letters = read(api.queries.objects(), std::slice::from_ref(indexed)).await;
    let letter = letters.map(|mut letters| letters.pop()).map_err(|error| {
        tracing::error!(%error, "a dead letter can't be read");
        Problem::unavailable("its file can't be read at the moment")
    })?;
    let letter = letter.ok_or_else(|| Problem::unavailable("its file does not have it"))?;
    Ok(Json(whole(&letter, summary(indexed))).into_response())
}

fn whole<'a>(letter: &'a Letter, summary: Summary<'a>) -> Answer<'a> {
    let meta = &letter.meta;
    let source = |source: &penstock_common::event::SourceOffset| {
        format!("{}/{}/{}", source.topic, source.partition, source.offset)
    };
    Answer {
        detail: serde_json::from_str(&meta.detail).map_or(Detail::Text(&meta.detail), Detail::Json),
        source: meta.source.as_ref().map(source),
        traceparent: meta.traceparent.as_deref(),
        key: letter.key.as_deref().map(bytes),
        headers: letter
            .headers
            .iter()
            .map(|(name, value)| Header { name, value: bytes(value) })
            .collect(),
        payload: bytes(&letter.payload),
        summary,
    }
}

fn bytes(bytes: &[u8]) -> Bytes<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Bytes::Text(text),
        Err(_) => Bytes::Base64(STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_or_base64() {
        let json = |of: &[u8]| serde_json::to_string(&bytes(of)).unwrap();
        assert_eq!(json(b"{\"a\":1}"), r#"{"text":"{\"a\":1}"}"#);
        assert_eq!(json(b"\xff\x00"), r#"{"base64":"/wA="}"#);
    }
}
