//! The one table from what goes wrong to HTTP: problem details (RFC 9457).
//!
//! `type` is `urn:penstock:problem:<name>`, stable for programs; `title` and `detail` are for
//! people.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::limit::Standing;
use crate::admit::Refusal;
use crate::pressure::gate::Refused;
use crate::pressure::machine::Why;
use crate::spool::SpoolError;

/// The longest that a device is told to wait for its fleet's limit.
const RETRY_AFTER_S_MAX: u64 = 3_600;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    NotFound,
    MethodNotAllowed,
    KeyMissing,
    KeyUnknown,
    KeyExpired,
    KeyOtherFleet,
    FleetLimit,
    MediaType,
    Encoding,
    BodyTooLarge,
    TooManyEvents,
    EventTooLarge,
    EmptyBody,
    UnreadableBody,
    EventsRejected,
    IncompleteBody,
    BodyTimeout,
    Overloaded,
    SpoolFull,
    SpoolFailing,
    Stopping,
}

/// One row of the table.
#[derive(Clone, Copy)]
struct Row {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
}

impl Kind {
    /// All kinds.
    #[cfg(test)]
    pub(super) const ALL: [Self; 21] = [
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::KeyMissing,
        Self::KeyUnknown,
        Self::KeyExpired,
        Self::KeyOtherFleet,
        Self::FleetLimit,
        Self::MediaType,
        Self::Encoding,
        Self::BodyTooLarge,
        Self::TooManyEvents,
        Self::EventTooLarge,
        Self::EmptyBody,
        Self::UnreadableBody,
        Self::EventsRejected,
        Self::IncompleteBody,
        Self::BodyTimeout,
        Self::Overloaded,
        Self::SpoolFull,
        Self::SpoolFailing,
        Self::Stopping,
    ];

    const fn row(self) -> Row {
        use StatusCode as S;
        let (status, name, title) = match self {
            Self::NotFound => (S::NOT_FOUND, "not-found", "There is nothing here"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", "Events are posted")
            }
            Self::KeyMissing => (S::UNAUTHORIZED, "key-missing", "A key is needed"),
            Self::KeyUnknown => (S::UNAUTHORIZED, "key-unknown", "The key is not known"),
            Self::KeyExpired => (S::UNAUTHORIZED, "key-expired", "The key has ended"),
            Self::KeyOtherFleet => {
                (S::FORBIDDEN, "key-other-fleet", "The key is of a fleet of other gateways")
            }
            Self::FleetLimit => {
                (S::TOO_MANY_REQUESTS, "fleet-limit", "The fleet sends more than it may")
            }
            Self::MediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "media-type", "The content type is not taken")
            }
            Self::Encoding => {
                (S::UNSUPPORTED_MEDIA_TYPE, "encoding", "The content encoding is not taken")
            }
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::TooManyEvents => {
                (S::PAYLOAD_TOO_LARGE, "too-many-events", "There are too many events")
            }
            Self::EventTooLarge => {
                (S::PAYLOAD_TOO_LARGE, "event-too-large", "Every event is too large")
            }
            Self::EmptyBody => (S::BAD_REQUEST, "empty-body", "There is no event in the body"),
            Self::UnreadableBody => (S::BAD_REQUEST, "unreadable-body", "The body can't be read"),
            Self::EventsRejected => (S::BAD_REQUEST, "events-rejected", "Every event was rejected"),
            Self::IncompleteBody => (S::BAD_REQUEST, "incomplete-body", "The body ended too early"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body-timeout", "The body took too long"),
            Self::Overloaded => {
                (S::TOO_MANY_REQUESTS, "overloaded", "Too much is being received at once")
            }
            Self::SpoolFull => (S::TOO_MANY_REQUESTS, "spool-full", "The gateway's disk is full"),
            Self::SpoolFailing => {
                (S::TOO_MANY_REQUESTS, "spool-failing", "The gateway's disk is failing")
            }
            Self::Stopping => (S::SERVICE_UNAVAILABLE, "stopping", "The gateway is stopping"),
        };
        Row { status, name, title }
    }

    /// A header that this problem always has.
    const fn header(self) -> Option<(HeaderName, &'static str)> {
        Some(match self {
            Self::MethodNotAllowed => (header::ALLOW, "POST"),
            Self::KeyMissing | Self::KeyUnknown | Self::KeyExpired => {
                (header::WWW_AUTHENTICATE, "Bearer")
            }
            Self::MediaType => (header::ACCEPT, "application/json, application/x-ndjson"),
            Self::Encoding => (header::ACCEPT_ENCODING, "gzip, zstd, identity"),
            _ => return None,
        })
    }

    /// Whether part of the request is still on its way, or the gateway is: the connection ends.
    const fn closes(self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge | Self::IncompleteBody | Self::BodyTimeout | Self::Stopping
        )
    }

    pub(super) const fn status(self) -> StatusCode {
        self.row().status
    }

    /// Whether the same request may succeed later, so that the device is told when to come back.
    const fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::FleetLimit
                | Self::Overloaded
                | Self::SpoolFull
                | Self::SpoolFailing
                | Self::Stopping
        )
    }

    /// Those who may not come, or not now: counted by name.
    pub(super) const REFUSED: [Self; 5] = [
        Self::KeyMissing,
        Self::KeyUnknown,
        Self::KeyExpired,
        Self::KeyOtherFleet,
        Self::FleetLimit,
    ];

    pub(super) const fn name(self) -> &'static str {
        self.row().name
    }
}

/// A problem with what there is to say about it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    detail: String,
    events: Option<Value>,
    standing: Option<Standing>,
    /// When the device should come back, where that was worked out.
    retry_after_s: Option<u64>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), events: None, standing: None, retry_after_s: None }
    }

    /// The fleet's limit is reached.
    pub(super) fn limited(standing: Standing) -> Self {
        let Standing { what, limit, reset_s, .. } = standing;
        let detail = format!("{limit} {what} of its fleet at once are taken; again in {reset_s} s");
        // Many devices share a limit: they must not all come back at once.
        let reset_s = u64::from(reset_s);
        let after_s = rand::random_range(reset_s..=reset_s.saturating_mul(2));
        Self {
            standing: Some(standing),
            retry_after_s: Some(after_s.min(RETRY_AFTER_S_MAX)),
            ..Self::new(Kind::FleetLimit, detail)
        }
    }

    /// With a status for each event.
    pub(super) fn with_events(self, events: Value) -> Self {
        Self { events: Some(events), ..self }
    }

    /// The problem details, without HTTP around them.
    pub(super) fn into_json(self) -> Value {
        let Row { status, name, title } = self.kind.row();
        let mut body = json!({
            "type": format!("urn:penstock:problem:{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
        });
        if let Some(events) = self.events {
            body["events"] = events;
        }
        body
    }

    pub(super) fn response(self, retry_after_s: u64) -> Response<Full<Bytes>> {
        let Self { kind, standing, retry_after_s: worked_out_s, .. } = self;
        let (status, body) = (kind.status(), self.into_json());
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let problem_json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem_json);
        if let Some((name, value)) = kind.header() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if kind.is_temporary() {
            let after_s = worked_out_s.unwrap_or(retry_after_s);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after_s));
        }
        if let Some(standing) = standing {
            standing.show(headers);
        }
        if kind.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::MediaType(_) => Kind::MediaType,
            Refusal::Encoding(_) => Kind::Encoding,
            Refusal::BodyTooLarge => Kind::BodyTooLarge,
            Refusal::TooManyEvents => Kind::TooManyEvents,
            Refusal::Empty => Kind::EmptyBody,
        };
        Self::new(kind, refusal.to_string())
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let kind = match refused.why {
            Why::SpoolFull => Kind::SpoolFull,
            Why::DiskFull | Why::DiskFailing => Kind::SpoolFailing,
        };
        let detail = "nothing of this request was read; send the same again after Retry-After";
        Self { retry_after_s: Some(refused.retry_after_s), ..Self::new(kind, detail) }
    }
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Self {
        let kind = match error {
            SpoolError::Full { .. } => Kind::SpoolFull,
            SpoolError::Disk(_) => Kind::SpoolFailing,
            SpoolError::Closed => Kind::Stopping,
        };
        // What the disk said is for the operator's log, not for a device.
        Self::new(kind, "nothing of this request was kept; send the same again later")
    }
}
