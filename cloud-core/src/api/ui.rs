//! The page, as it was built into the binary.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

use super::problem::Problem;

mod built {
    include!(concat!(env!("OUT_DIR"), "/ui.rs"));
}

const FOREVER: &str = "public, max-age=31536000, immutable";

/// The dashboard. Its views are in the address's fragment.
pub(super) async fn page() -> Html<&'static str> {
    Html(built::PAGE)
}

/// The API's description, to be read and tried.
pub(super) async fn docs() -> Html<&'static str> {
    Html(built::DOCS)
}

/// A file of the page; its name changes with its content.
pub(super) async fn asset(path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let Path(path) = path?;
    let found = built::ASSETS.iter().find(|(name, _)| *name == path);
    let (name, bytes) = found.ok_or_else(|| Problem::not_found("there is no such file"))?;
    let content_type = match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, FOREVER)];
    Ok((headers, *bytes).into_response())
}
