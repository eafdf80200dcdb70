//! The gate before every route: whose request is it, may they, and not too often.
//!
//! A route can only be added with what it needs ([`Routes::on`]), so that none is without a rule;
//! the table of all of them is what the authorization test goes through.

use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use super::limits::{Allowance, Limits};
use super::problem::Problem;
use crate::access::identify::Identities;
use crate::access::secret::{Kind, Secret};
use crate::access::{Identity, Role};

/// The cookie of a browser's session.
pub(super) const COOKIE: &str = "penstock_session";
/// A request by cookie that changes something must carry it: no foreign page can send it.
const REQUEST_HEADER: &str = "x-penstock-request";

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: anybody may.
    Nothing,
    /// At least this role.
    Role(Role),
}

/// A route and what it needs.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with parameters in braces.
    pub path: &'static str,
    /// What it needs.
    pub needs: Needs,
}

/// Knows who may.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) identities: Identities,
    pub(super) limits: Limits,
}

#[derive(Clone)]
struct Gate {
    guard: Guard,
    role: Role,
}

/// Routes under construction.
pub(super) struct Routes<S> {
    guard: Guard,
    router: Router<S>,
    table: Vec<Route>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn new(guard: Guard) -> Self {
        Self { guard, router: Router::new(), table: Vec::new() }
    }

    /// Adds one.
    pub(super) fn on(
        mut self,
        method: Method,
        path: &'static str,
        needs: Needs,
        handler: MethodRouter<S>,
    ) -> Self {
        let handler = match needs {
            Needs::Nothing => handler,
            Needs::Role(role) => {
                let gate = Gate { guard: self.guard.clone(), role };
                handler.layer(from_fn_with_state(gate, check))
            }
        };
        self.router = self.router.route(path, handler);
        self.table.push(Route { method, path, needs });
        self
    }

    pub(super) fn build(self) -> (Router<S>, Vec<Route>) {
        (self.router, self.table)
    }
}

async fn check(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    // The body can't be shared between threads, so that no reference to it may wait.
    let (headers, is_safe) = (request.headers().clone(), request.method().is_safe());
    let who = match identify(&gate.guard.identities, &headers, is_safe).await {
        Ok(who) => who,
        Err(problem) => return problem.into_response(),
    };
    if who.role < gate.role {
        let (needed, name, role) = (gate.role, &who.name, who.role);
        let detail = format!("this needs the role {needed}; the token {name:?} is {role}");
        return Problem::new(403, "Forbidden", detail).into_response();
    }
    let allowance = gate.guard.limits.ask(who.token_id, Instant::now());
    let mut response = if allowance.passes {
        request.extensions_mut().insert(who);
        next.run(request).await
    } else {
        Problem::too_many(allowance.reset_s).into_response()
    };
    tell(&allowance, response.headers_mut());
    response
}

/// Says what the token has left, as most limiters on the net do
/// (draft-ietf-httpapi-ratelimit-headers, its widely used third version).
fn tell(allowance: &Allowance, headers: &mut HeaderMap) {
    for (name, value) in [
        ("ratelimit-limit", allowance.limit),
        ("ratelimit-remaining", allowance.remaining),
        ("ratelimit-reset", allowance.reset_s),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}

async fn identify(
    identities: &Identities,
    headers: &HeaderMap,
    is_safe: bool,
) -> Result<Identity, Problem> {
    let (secret, by_cookie) = match (bearer(headers)?, session(headers)) {
        (Some(token), _) => (Some(token), false),
        (None, session) => (session, true),
    };
    let Some(secret) = secret else {
        return Err(Problem::unauthorized(
            "no token: send Authorization: Bearer <token>; `cloud-core tokens create` makes one",
        ));
    };
    if by_cookie && !is_safe && !headers.contains_key(REQUEST_HEADER) {
        let detail = "a change by the session's cookie needs the header X-Penstock-Request: 1";
        return Err(Problem::new(403, "Forbidden", detail));
    }
    match identities.of(&secret).await {
        Ok(Some(who)) => Ok(who),
        Ok(None) if by_cookie => Err(Problem::unauthorized("the session is over; sign in again")),
        Ok(None) => Err(Problem::unauthorized("the token is unknown, expired or revoked")),
        Err(error) => Err(error.into()),
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let secret = token.and_then(|(_, token)| Secret::parse(Kind::Token, token.trim()));
    match secret {
        Some(secret) => Ok(Some(secret)),
        None => Err(Problem::unauthorized(
            "Authorization can't be read: want Bearer and a token that begins with pst_",
        )),
    }
}

/// The session's secret, from the cookie.
pub(super) fn session(headers: &HeaderMap) -> Option<Secret> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then(|| Secret::parse(Kind::Session, value)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_where_they_belong() {
        let (token, cookie) = (Secret::random(Kind::Token), Secret::random(Kind::Session));
        let mut headers = HeaderMap::new();
        assert!(matches!(bearer(&headers), Ok(None)));
        for (scheme, is_good) in [("Bearer", true), ("bearer", true), ("Basic", false)] {
            let value = format!("{scheme} {}", token.reveal());
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers).is_ok_and(|found| found.is_some()), is_good, "{scheme}");
        }
        let value = format!("a=b; {COOKIE}={}; c=d", cookie.reveal());
        headers.insert(header::COOKIE, value.parse().unwrap());
        assert_eq!(session(&headers), Some(cookie));
        // A token is no session.
        let value = format!("{COOKIE}={}", token.reveal());
        headers.insert(header::COOKIE, value.parse().unwrap());
        assert_eq!(session(&headers), None);
    }
}
