//! Problem details (RFC 9457), and the one table from errors to them.

use axum::extract::rejection::{BytesRejection, PathRejection, StringRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::query::QueryError;
use crate::store::postgres::StoreError;

/// A problem, as `application/problem+json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the title says it.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// What to do, a line a mistake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
    #[serde(skip)]
    asks_for_token: bool,
}

impl Problem {
    /// A problem with that status.
    pub fn new(status: u16, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let (hints, retry_after_seconds) = (Vec::new(), None);
        let asks_for_token = false;
        Self {
            r#type: "about:blank",
            title,
            status,
            detail,
            hints,
            retry_after_seconds,
            asks_for_token,
        }
    }

    /// A request that can't be understood, with all that is wrong with it.
    pub fn bad_request(hints: Vec<String>) -> Self {
        let detail = "the request has mistakes, see hints";
        Self { hints, ..Self::new(400, "Bad request", detail) }
    }

    /// Nobody knows who asks.
    pub fn unauthorized(detail: &'static str) -> Self {
        Self { asks_for_token: true, ..Self::new(401, "Unauthorized", detail) }
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "Not found", detail)
    }

    /// Too often.
    pub fn too_many(retry_after_seconds: u32) -> Self {
        let detail = "this token asks too often; wait as long as Retry-After says";
        let retry_after_seconds = Some(retry_after_seconds.max(1));
        Self { retry_after_seconds, ..Self::new(429, "Too many requests", detail) }
    }

    /// Too much at once.
    pub fn busy() -> Self {
        let problem = Self::new(429, "Too many requests", "all query slots are taken; try again");
        Self { retry_after_seconds: Some(1), ..problem }
    }

    /// Something that we need is away.
    pub fn unavailable(detail: &'static str) -> Self {
        let problem = Self::new(503, "Service unavailable", detail);
        Self { retry_after_seconds: Some(5), ..problem }
    }

    /// A body that could not be read.
    fn of_body(status: StatusCode, why: &str) -> Self {
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            Self::new(413, "Content too large", "the request is too large; send less at once")
        } else {
            Self::bad_request(vec![format!("body: {why}")])
        }
    }

    /// A query that took too long.
    pub fn timeout() -> Self {
        Self::new(504, "Query timeout", "the query took too long; ask for less at once")
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::ForeignCursor => {
                Self::bad_request(vec!["cursor: of another catalog; begin without it".into()])
            }
            QueryError::Store(error) => error.into(),
            QueryError::File { .. } => {
                tracing::error!(%error, "a query failed");
                Self::unavailable("a stored file can't be read at the moment")
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a query failed");
        Self::unavailable("the database can't be reached at the moment")
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        Self::of_body(rejection.status(), &rejection.body_text())
    }
}

impl From<StringRejection> for Problem {
    fn from(rejection: StringRejection) -> Self {
        Self::of_body(rejection.status(), &rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(vec![format!("path: {}", rejection.body_text())])
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, content_type, body).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.asks_for_token {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
