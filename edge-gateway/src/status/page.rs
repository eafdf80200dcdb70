//! The status page: one file, nothing fetched but `status.json`, and a policy that holds it to
//! that.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page.html");

/// The page runs its own script and style, known by their hashes, and no other.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (script, style) = (hash("script"), hash("style"));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

fn hash(tag: &str) -> String {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let after = PAGE.split_once(&open).map_or("", |(_, after)| after);
    let text = after.split_once(&close).map_or("", |(text, _)| text);
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}

/// The page.
pub(super) fn page() -> Response<Full<Bytes>> {
    answer(
        "text/html; charset=utf-8",
        Bytes::from_static(PAGE.as_bytes()),
        &[
            (CONTENT_SECURITY_POLICY, POLICY.clone()),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ],
    )
}

/// The numbers.
pub(super) fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    answer("application/json", Bytes::from(value.to_string()), &[])
}

fn answer(
    content_type: &'static str,
    body: Bytes,
    more: &[(HeaderName, HeaderValue)],
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in more {
        headers.insert(name, value.clone());
    }
    response
}
