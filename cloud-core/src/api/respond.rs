//! What all answers have: entity tags, and headers that keep browsers safe.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// A larger answer gets no tag: it would have to be held to be hashed.
const TAGGED_BYTES_MAX: u64 = 4 << 20;

/// Everything from here and nothing from elsewhere; styles may be set by scripts.
const CSP: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                   img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; \
                   base-uri 'none'; form-action 'self'";

/// Headers of every answer.
pub(super) async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        let private = HeaderValue::from_static("private, no-cache");
        headers.insert(header::CACHE_CONTROL, private);
    }
    response
}

/// Tags answers to GET, and says 304 to who has them already.
pub(super) async fn etag(request: Request, next: Next) -> Response {
    let is_get = request.method() == Method::GET;
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let response = next.run(request).await;
    let size = response.body().size_hint_exact();
    let is_small = size.is_some_and(|size| size <= TAGGED_BYTES_MAX);
    if !is_get || response.status() != StatusCode::OK || !is_small {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, TAGGED_BYTES_MAX as usize).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let tag = tag(&bytes);
    if matches(known.as_ref(), &tag) {
        let headers: HeaderMap = parts.headers.drain().filter_map(kept).collect();
        let mut response = (StatusCode::NOT_MODIFIED, headers).into_response();
        response.headers_mut().insert(header::ETAG, tag);
        return response;
    }
    parts.headers.insert(header::ETAG, tag);
    Response::from_parts(parts, Body::from(bytes))
}

trait ExactSize {
    fn size_hint_exact(&self) -> Option<u64>;
}

impl ExactSize for Body {
    fn size_hint_exact(&self) -> Option<u64> {
        axum::body::HttpBody::size_hint(self).exact()
    }
}

/// What a 304 repeats.
fn kept(
    (name, value): (Option<header::HeaderName>, HeaderValue),
) -> Option<(header::HeaderName, HeaderValue)> {
    let name = name?;
    let is_kept = name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH;
    is_kept.then_some((name, value))
}

/// Weak: the same content, compressed or not.
fn tag(bytes: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(bytes);
    let hex: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("W/\"{hex}\"")).unwrap_or(HeaderValue::from_static("W/\"\""))
}

fn matches(known: Option<&HeaderValue>, tag: &HeaderValue) -> bool {
    let (Some(Ok(known)), Ok(tag)) = (known.map(HeaderValue::to_str), tag.to_str()) else {
        return false;
    };
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.split(',').any(|one| one.trim() == "*" || strong(one) == strong(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_again() {
        let tag = tag(b"x");
        let known = |text: &str| matches(Some(&text.parse().unwrap()), &tag);
        let text = tag.to_str().unwrap();
        assert!(known(text) && known(&format!("\"a\", {text}")) && known("*"));
        assert!(known(text.trim_start_matches("W/")) && !known("\"a\""));
        assert!(!matches(None, &tag));
    }
}
