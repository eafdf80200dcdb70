//! Sessions of browsers: a token is shown once, and a cookie that scripts can't read stands for
//! it from then on.

use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Bytes};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::guard::{COOKIE, session};
use super::problem::Problem;
use crate::access::Identity;
use crate::access::secret::{Kind, Secret};

/// A token, to begin a session with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    /// As `cloud-core tokens create` printed it.
    token: String,
}

/// Whose session or token this is.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    /// The token's name.
    name: String,
    /// `viewer`, `analyst` or `admin`.
    role: &'static str,
    /// When it ends; RFC 3339.
    expires_at: Option<String>,
}

impl From<&Identity> for Session {
    fn from(who: &Identity) -> Self {
        Self {
            name: who.name.to_string(),
            role: who.role.name(),
            expires_at: who.expires_at.map(|at| UnixMicros(at).to_rfc3339()),
        }
    }
}

/// Begins a session: the answer sets a cookie.
#[utoipa::path(post, path = "/v1/session", tag = "session", security(()), request_body = SignIn,
    responses(
    (status = 200, body = Session), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 413, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn post(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let SignIn { token } = serde_json::from_slice(&body?)
        .map_err(|error| Problem::bad_request(vec![format!("body: {error}")]))?;
    let unknown = || Problem::unauthorized("the token is unknown, expired or revoked");
    let token = Secret::parse(Kind::Token, token.trim()).ok_or_else(unknown)?;
    let identities = &api.guard.identities;
    let mut who = identities.of(&token).await?.ok_or_else(unknown)?;
    let secret = Secret::random(Kind::Session);
    let seconds = api.session_seconds;
    identities.store().begin_session(&secret.hash(), who.token_id, seconds).await?;
    let ends = SystemClock.now().0.saturating_add(seconds.saturating_mul(1_000_000));
    who.expires_at = Some(who.expires_at.map_or(ends, |token| token.min(ends)));
    let cookie = cookie(&headers, secret.reveal(), seconds);
    Ok(([(header::SET_COOKIE, cookie)], Json(Session::from(&who))).into_response())
}

/// Whose session or token this is.
#[utoipa::path(get, path = "/v1/session", tag = "session", responses(
    (status = 200, body = Session), (status = 401, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem)))]
pub(super) async fn get(Extension(who): Extension<Identity>) -> Json<Session> {
    Json(Session::from(&who))
}

/// Ends the session of the cookie.
#[utoipa::path(delete, path = "/v1/session", tag = "session", responses(
    (status = 204), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn delete(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(secret) = session(&headers) {
        api.guard.identities.store().end_session(&secret.hash()).await?;
        api.guard.identities.forget(&secret);
    }
    let cookie = cookie(&headers, "", 0);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

fn cookie(headers: &HeaderMap, value: &str, seconds: i64) -> String {
    // TLS ends before us, and says so.
    let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    let secure = if proto == Some("https") { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_for_this_site_and_no_script() {
        let mut headers = HeaderMap::new();
        let plain = cookie(&headers, "x", 60);
        assert!(
            plain.contains("HttpOnly; SameSite=Strict; Max-Age=60") && !plain.contains("Secure")
        );
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert!(cookie(&headers, "x", 60).ends_with("; Secure"));
    }
}
