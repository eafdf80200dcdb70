//! `GET /v1/audit`: what was changed, by whom. Nothing changes it.

use axum::Json;
use axum::extract::{Query, State};
use penstock_common::event::UnixMicros;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::parameters::Parameters;
use super::problem::Problem;
use super::{Api, cursor};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
const QUESTION: &str = "audit";

/// Changes, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Audit {
    entries: Vec<AuditEntry>,
    /// For the next page.
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct AuditEntry {
    at: String,
    /// The token's name, or the command line.
    who: String,
    /// A stable code, e.g. `groups.replace`.
    action: String,
    /// What it was about.
    #[schema(value_type = Object)]
    detail: Value,
}

/// What was changed through the API or the command line, newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "access", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 by default"),
    ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = Audit), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn get(
    State(api): State<Api>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Json<Audit>, Problem> {
    let mut parameters = Parameters::new(&given, &["limit", "cursor"], &[]);
    let limit = parameters.limit(LIMIT_DEFAULT, LIMIT_MAX);
    let before = parameters.cursor(QUESTION).and_then(|keys| keys.first()?.parse().ok());
    parameters.end(())?;
    let store = api.guard.identities.store();
    let asked = async { Ok::<_, Problem>(store.audit(before, limit + 1).await?) };
    let mut found = api.in_time(asked).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found
        .last()
        .filter(|_| more)
        .map(|last| cursor::encode(&[&last.audit_id.to_string()], QUESTION));
    let entries = found
        .into_iter()
        .map(|entry| AuditEntry {
            at: UnixMicros(entry.at).to_rfc3339(),
            who: entry.who,
            action: entry.action,
            detail: serde_json::from_str(&entry.detail).unwrap_or(Value::String(entry.detail)),
        })
        .collect();
    Ok(Json(Audit { entries, next_cursor }))
}
