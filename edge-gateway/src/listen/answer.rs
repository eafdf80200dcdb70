//! The answer to a request whose entries are durable (spec I2, I3).

use std::borrow::Cow;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::problem::{Kind, Problem};
use crate::admit::{Admission, FieldError, Outcome, Reason, Verdict};

/// One event's line in `events`.
#[derive(Serialize)]
struct EventStatus<'a> {
    index: usize,
    event_id: Option<Cow<'a, str>>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

impl<'a> From<&'a Outcome> for EventStatus<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        let index = outcome.index;
        match &outcome.verdict {
            Verdict::Accepted { event_id } => Self {
                index,
                event_id: Some(event_id.to_string().into()),
                status: StatusCode::ACCEPTED.as_u16(),
                reason: None,
                errors: &[],
            },
            Verdict::Rejected(rejection) => Self {
                index,
                event_id: rejection.event_id.as_deref().map(Cow::Borrowed),
                status: match rejection.reason {
                    Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
                    _ => StatusCode::BAD_REQUEST.as_u16(),
                },
                reason: Some(rejection.reason),
                errors: &rejection.errors,
            },
        }
    }
}

/// 202, 207, or the problem of a request of which nothing was accepted.
pub(super) fn answer(admission: &Admission) -> Result<Response<Full<Bytes>>, Problem> {
    let (status, body) = summary(admission)?;
    Ok(json_response(status, &body))
}

/// The same without HTTP: the status and the body.
pub(super) fn summary(admission: &Admission) -> Result<(StatusCode, Value), Problem> {
    let total = admission.outcomes.len();
    let accepted = admission.accepted();
    if accepted == total {
        return Ok((StatusCode::ACCEPTED, json!({ "accepted": accepted })));
    }
    let statuses: Vec<_> = admission.outcomes.iter().map(EventStatus::from).collect();
    let events = json!(statuses);
    if accepted > 0 {
        let rejected = total - accepted;
        let body = json!({ "accepted": accepted, "rejected": rejected, "events": events });
        return Ok((StatusCode::MULTI_STATUS, body));
    }
    let large = StatusCode::PAYLOAD_TOO_LARGE.as_u16();
    let problem = if admission.unreadable {
        Problem::new(Kind::UnreadableBody, unreadable_detail(&admission.outcomes[0]))
    } else if statuses.iter().all(|event| event.status == large) {
        Problem::new(Kind::EventTooLarge, "each event is listed with its size and the limit")
    } else {
        let detail = format!("none of {total} was accepted; each is listed with its errors");
        Problem::new(Kind::EventsRejected, detail)
    };
    Err(problem.with_events(events))
}

fn unreadable_detail(outcome: &Outcome) -> String {
    let error = outcome.rejection().and_then(|rejection| rejection.errors.first());
    let expected = error.map_or("", |error| error.expected.as_str());
    format!("at event {}: expected {expected}; the whole body is rejected", outcome.index)
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
