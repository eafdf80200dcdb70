//! The API's description, made of the code itself.

use axum::Json;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::{
    audit, dead_letters, devices, following, groups, ledger, overview, raw, series, session, status,
};

/// All of it.
#[derive(OpenApi)]
#[openapi(
    info(title = "Penstock", description = "Telemetry of industrial devices: rollups, live values, \
        raw events, and what became of every one of them."),
    paths(
        session::post, session::get, session::delete, devices::get, devices::fleets,
        devices::metrics, groups::list, groups::one, groups::put, groups::patch, series::get,
        following::latest, following::stream, overview::get, status::get, raw::get,
        dead_letters::list::get, dead_letters::one::get, dead_letters::replay::post, ledger::get,
        audit::get
    ),
    components(schemas(following::LivePoints)),
    modifiers(&Access, &Common),
    security(("token" = []), ("session" = []))
)]
struct Description;

struct Access;

impl Modify for Access {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        let cookie = ApiKey::Cookie(ApiKeyValue::new(super::guard::COOKIE));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// What is the same for many routes, which need not say it one by one.
struct Common;

impl Modify for Common {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            for (method, operation) in operations(item) {
                operation.operation_id = Some(operation_id(method, path));
                let answers = &mut operation.responses.responses;
                answers.iter_mut().for_each(|(status, answer)| as_problem(status, answer));
                // A stream has no tag (respond.rs).
                if method == "get" && path != "/v1/live" {
                    let unchanged = "What If-None-Match names is still so";
                    let unchanged = ResponseBuilder::new().description(unchanged).build();
                    answers.insert("304".into(), RefOr::T(unchanged));
                }
            }
        }
    }
}

/// Refusals are `application/problem+json`.
fn as_problem(status: &str, answer: &mut RefOr<Response>) {
    if let RefOr::T(Response { content, .. }) = answer
        && status >= "400"
        && let Some(problem) = content.shift_remove("application/json")
    {
        content.insert("application/problem+json".into(), problem);
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let all = [("get", get), ("put", put), ("post", post), ("delete", delete), ("patch", patch)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Generators of clients name functions after it, so it is unique.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/v1/").split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
    format!("{method}_{words}")
}

/// The description.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) async fn get() -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}
