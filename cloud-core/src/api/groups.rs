//! The device groups: read, and imported.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, Method, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parameters::Parameters;
use super::problem::Problem;
use super::{Api, cursor};
use crate::access::Identity;
use crate::groups::parse;
use crate::store::groups::{DeviceName, Groups, Import};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// An import in bytes at most.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;

/// Groups by name.
#[derive(Serialize, ToSchema)]
pub(super) struct GroupList {
    groups: Vec<GroupSize>,
    /// For the next page.
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct GroupSize {
    name: String,
    /// How many.
    devices: i64,
}

/// One group.
#[derive(Serialize, ToSchema)]
pub(super) struct Group {
    name: String,
    devices: Vec<GroupDevice>,
    /// For the next page.
    next_cursor: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupDevice {
    #[schema(min_length = 1, max_length = 128)]
    fleet: String,
    #[schema(min_length = 1, max_length = 128)]
    device: String,
}

/// Groups to be imported.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema of what groups/parse.rs reads")]
pub(super) struct GroupImport {
    groups: Vec<ImportedGroup>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema of what groups/parse.rs reads")]
struct ImportedGroup {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    devices: Vec<GroupDevice>,
}

/// What an import did.
#[derive(Serialize, ToSchema)]
pub(super) struct Imported {
    /// Groups there now.
    groups: i64,
    /// Memberships there now.
    members: i64,
    added: u64,
    removed: u64,
}

/// The groups by name.
#[utoipa::path(get, path = "/v1/groups", tag = "groups", params(
    ("q" = Option<String>, Query, description = "the name contains it, in any case"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 by default"),
    ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = GroupList), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Json<GroupList>, Problem> {
    let mut parameters = Parameters::new(&given, &["q", "limit", "cursor"], &[]);
    let q = parameters.text("q").unwrap_or_default();
    let limit = parameters.limit(LIMIT_DEFAULT, LIMIT_MAX);
    let question = format!("groups {q:?}");
    let after = parameters.cursor(&question).and_then(|keys| keys.into_iter().next());
    parameters.end(())?;
    let after = after.unwrap_or_default();
    let asked = async { Ok::<_, Problem>(api.groups.list(q, &after, limit + 1).await?) };
    let mut found = api.in_time(asked).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor =
        found.last().filter(|_| more).map(|(name, _)| cursor::encode(&[name], &question));
    let groups = found.into_iter().map(|(name, devices)| GroupSize { name, devices }).collect();
    Ok(Json(GroupList { groups, next_cursor }))
}

/// The devices of a group.
#[utoipa::path(get, path = "/v1/groups/{name}", tag = "groups", params(
    ("name" = String, Path),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 by default"),
    ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = Group), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn one(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Json<Group>, Problem> {
    let Path(name) = name?;
    let mut parameters = Parameters::new(&given, &["limit", "cursor"], &[]);
    let limit = parameters.limit(LIMIT_DEFAULT, LIMIT_MAX);
    let question = format!("group {name:?}");
    let after = match parameters.cursor(&question).as_deref() {
        Some([fleet, device]) => DeviceName { fleet: fleet.clone(), device: device.clone() },
        _ => DeviceName { fleet: String::new(), device: String::new() },
    };
    parameters.end(())?;
    let none = || Problem::not_found(format!("there is no group {name:?}"));
    if name.contains('\0') {
        return Err(none());
    }
    let asked = async { Ok::<_, Problem>(api.groups.members(&name, &after, limit + 1).await?) };
    let mut found = api.in_time(asked).await?.ok_or_else(none)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found
        .last()
        .filter(|_| more)
        .map(|last| cursor::encode(&[&last.fleet, &last.device], &question));
    let device = |DeviceName { fleet, device }| GroupDevice { fleet, device };
    let devices = found.into_iter().map(device).collect();
    Ok(Json(Group { name, devices, next_cursor }))
}

/// Replaces all groups.
#[utoipa::path(put, path = "/v1/groups", tag = "groups",
    request_body(content((GroupImport = "application/json"), (String = "text/csv"))),
    responses((status = 200, body = Imported), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn put(
    api: State<Api>,
    who: Extension<Identity>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Imported>, Problem> {
    import(api, who, &headers, &body?, Method::PUT).await
}

/// Changes the groups that are named; one without devices is removed.
#[utoipa::path(patch, path = "/v1/groups", tag = "groups",
    request_body(content((GroupImport = "application/json"), (String = "text/csv"))),
    responses((status = 200, body = Imported), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn patch(
    api: State<Api>,
    who: Extension<Identity>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Imported>, Problem> {
    import(api, who, &headers, &body?, Method::PATCH).await
}

async fn import(
    State(api): State<Api>,
    Extension(who): Extension<Identity>,
    headers: &HeaderMap,
    body: &[u8],
    method: Method,
) -> Result<Json<Imported>, Problem> {
    let groups = read(headers, body)?;
    let how = if method == Method::PUT { Import::Replace } else { Import::Patch };
    let imported = api.groups.import(&groups, how, (&who.name, Some(who.token_id))).await?;
    let crate::store::groups::Imported { groups, members, added, removed } = imported;
    Ok(Json(Imported { groups, members, added, removed }))
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Groups, Problem> {
    let wrong = |problem: String| Problem::bad_request(vec![problem]);
    let text = std::str::from_utf8(body).map_err(|error| wrong(format!("body: {error}")))?;
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match given.to_ascii_lowercase().as_str() {
        "application/json" => parse::json(text).map_err(Problem::bad_request),
        "text/csv" => parse::csv(text).map_err(Problem::bad_request),
        other => {
            let detail = format!("Content-Type {other:?}: want application/json or text/csv");
            Err(Problem::new(415, "Unsupported media type", detail))
        }
    }
}
