//! The API's description, made of the code itself.

use axum::Json;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
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
    modifiers(&Access),
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

/// The description.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) async fn get() -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}
