//! Problem details (RFC 9457), and the one table from errors to them.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::query::QueryError;
use crate::store::postgres::StoreError;

/// A problem, as `application/problem+json`.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// What to do, a line a mistake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
}

impl Problem {
    /// A problem with that status.
    pub fn new(status: u16, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let (hints, retry_after_seconds) = (Vec::new(), None);
        Self { r#type: "about:blank", title, status, detail, hints, retry_after_seconds }
    }

    /// A request that can't be understood, with all that is wrong with it.
    pub fn bad_request(hints: Vec<String>) -> Self {
        let detail = "the request has mistakes, see hints";
        Self { hints, ..Self::new(400, "Bad request", detail) }
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
        Self::unavailable("the catalog can't be reached at the moment")
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
        response
    }
}
