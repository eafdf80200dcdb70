//! Admission: from a request's body to what goes into the spool (spec I1–I3, E2–E6).
//!
//! Pure: time is an argument, nothing is written. One pass splits the body, parses each event
//! onto a tape, chooses its schema by firmware and validates it; only what is wrong is looked at
//! twice. The rules for one event are in `common/src/admit`: the core has the same.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | body, also after decompression | [`BODY_BYTES_MAX`] | refused, 413 |
//! | events in a body | [`EVENTS_MAX`] | refused, 413 |
//! | one event | [`EVENT_BYTES_MAX`] | that event is rejected (413 if that is all that is wrong and none was accepted) |
//! | errors reported of one event | [`ERRORS_MAX`] | not reported |
//!
//! - A **refusal** concerns a request whose events are not known: nothing is kept, the device was
//!   told and still has its events.
//! - A **rejection** concerns an event, or a body that arrived whole and can't be read: its bytes
//!   become a dead letter, made durable before the answer; those beyond the [`budget`] are only
//!   answered and counted.
//! - By MQTT there are no refusals: what would be one becomes a dead letter as a whole.
//!
//! In an array, text that is not JSON leaves no way to tell the events apart: the whole body is
//! one rejection that names where it broke. In NDJSON it concerns its line only. An event id
//! twice in one request is accepted twice: copies of an identity are dropped where they are read.

pub mod budget;
mod decode;
mod split;

use std::sync::Arc;

use bytes::Bytes;
pub use penstock_common::admit::{ERRORS_MAX, EVENT_BYTES_MAX, FieldError, Reason, Rejection};
use penstock_common::admit::{cut, is_key};
use penstock_common::event::UnixMicros;
use penstock_common::schema::SchemaSet;
use uuid::Uuid;

use crate::spool::entry::{DeadLetterEntry, Entry};

/// Bytes of a body, as sent and decompressed.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Events of a body.
pub const EVENTS_MAX: usize = 100;

/// Longest topic repeated in a dead letter, in bytes.
const TOPIC_BYTES_SHOWN_MAX: usize = 256;

/// The stage's name in dead letters.
const STAGE: &str = "gateway.admit";

/// Why a request is refused whole, before its events are known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The media type is none that is taken, or missing.
    #[error(
        "content type {0:?}; send application/json (an event or an array of events) or \
         application/x-ndjson (an event a line), in UTF-8"
    )]
    MediaType(String),
    /// The content encoding is none that is taken.
    #[error("content encoding {0:?}; send gzip, zstd or identity")]
    Encoding(String),
    /// The body is too large, or becomes so when decompressed.
    #[error("the body has more than {BODY_BYTES_MAX} bytes, also counted after decompression")]
    BodyTooLarge,
    /// More than [`EVENTS_MAX`] events.
    #[error("the body has more than {EVENTS_MAX} events")]
    TooManyEvents,
    /// There is no event in the body.
    #[error("the body has no event")]
    Empty,
}

/// A request as admission needs it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The `Content-Type` header.
    pub content_type: Option<&'a str>,
    /// The `Content-Encoding` header.
    pub content_encoding: Option<&'a str>,
    /// When the whole request had arrived.
    pub received_at: UnixMicros,
    /// Whether the clock that says so can be relied on.
    pub is_clock_set: bool,
    /// W3C trace context, already validated.
    pub traceparent: Option<String>,
    /// Where it was published, if it came by MQTT.
    pub topic: Option<Topic<'a>>,
    /// The body as sent.
    pub body: Bytes,
}

/// The MQTT topic of a request.
#[derive(Clone, Copy, Debug)]
pub struct Topic<'a> {
    /// The whole of it.
    pub name: &'a str,
    /// The device in it: no other's events may be published there.
    pub device: Option<&'a str>,
}

/// What became of a request's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// For the spool, in the order of the body: one for each outcome that is kept.
    pub entries: Vec<Entry>,
    /// One for each event, in the order of the body; a single one if the body is unreadable.
    pub outcomes: Vec<Outcome>,
    /// Whether the body as a whole could not be read.
    pub unreadable: bool,
    /// Rejections beyond the budget: they have an outcome and no entry.
    pub not_kept: budget::NotKept,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its place in the body, from 0.
    pub index: usize,
    /// Accepted or not.
    pub verdict: Verdict,
}

/// Accepted or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to `raw-events`.
    Accepted {
        /// Its id.
        event_id: Uuid,
    },
    /// It goes to `dead-letter`.
    Rejected(Rejection),
}

impl Admission {
    /// How many events were accepted.
    pub fn accepted(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.rejection().is_none()).count()
    }
}

impl Outcome {
    /// The rejection, if it is one.
    pub const fn rejection(&self) -> Option<&Rejection> {
        match &self.verdict {
            Verdict::Accepted { .. } => None,
            Verdict::Rejected(rejection) => Some(rejection),
        }
    }
}

/// Admits the events of one fleet; cheap to clone.
#[derive(Clone, Debug)]
pub struct Admitter {
    schemas: SchemaSet,
    fleet: Arc<str>,
}

impl Admitter {
    /// Holds events against these schemas, for this fleet.
    pub const fn new(schemas: SchemaSet, fleet: Arc<str>) -> Self {
        Self { schemas, fleet }
    }

    /// Takes a request's body apart.
    ///
    /// # Errors
    /// When the request is refused whole.
    pub fn admit(&self, request: Request<'_>) -> Result<Admission, Refusal> {
        let layout = decode::layout(request.content_type)?;
        let coding = decode::coding(request.content_encoding)?;
        let body = match decode::decompress(coding, request.body.clone()) {
            Ok(body) => body,
            Err(decode::Failure::TooLarge) => return Err(Refusal::BodyTooLarge),
            Err(decode::Failure::Corrupt(error)) => {
                let error = FieldError::new("", "encoding", coding.expected(), error);
                let whole = (request.body.clone(), Reason::UndecodableBody, 0, error);
                return Ok(self.unreadable(&request, whole));
            }
        };
        split::admit(self, &request, &body, layout)
    }

    /// What is kept of a refused request that nobody else has: the whole body as one dead letter.
    /// A publisher has forgotten its message when the broker took it, unlike a device that is
    /// answered by HTTP. A body without any event leaves nothing to keep.
    pub fn keep_refused(&self, request: &Request<'_>, refusal: &Refusal) -> Admission {
        let bytes = || format!("{} bytes", request.body.len());
        let (reason, rule, expected, got) = match refusal {
            Refusal::Empty => return Admission::default(),
            Refusal::MediaType(got) => {
                let expected = "application/json or application/x-ndjson, in UTF-8".to_owned();
                (Reason::UnsupportedType, "type", expected, got.clone())
            }
            Refusal::Encoding(got) => {
                let expected = "gzip, zstd or identity".to_owned();
                (Reason::UnsupportedType, "encoding", expected, got.clone())
            }
            Refusal::BodyTooLarge => {
                let expected = format!("at most {BODY_BYTES_MAX} bytes, also after decompression");
                (Reason::TooLarge, "size", expected, bytes())
            }
            Refusal::TooManyEvents => {
                let expected = format!("at most {EVENTS_MAX} events");
                (Reason::TooManyEvents, "count", expected, "more".to_owned())
            }
        };
        let error = FieldError::new("", rule, expected, got);
        self.unreadable(request, (request.body.clone(), reason, 0, error))
    }

    /// The whole body of a message on a topic that no event can have, as one dead letter.
    pub fn keep_misplaced(&self, request: &Request<'_>, expected: &str) -> Admission {
        let got = request.topic.map_or("", |topic| topic.name);
        let error = FieldError::new("", "topic", expected, got);
        self.unreadable(request, (request.body.clone(), Reason::WrongTopic, 0, error))
    }

    /// The whole body as one dead letter.
    fn unreadable(
        &self,
        request: &Request<'_>,
        (body, reason, index, error): (Bytes, Reason, usize, FieldError),
    ) -> Admission {
        let rejection = Rejection { event_id: None, reason, errors: vec![error] };
        let mut admission = Admission { unreadable: true, ..Admission::default() };
        self.reject(
            &mut admission,
            request,
            Subject { index, payload: body, ..Subject::default() },
            rejection,
        );
        admission
    }

    /// Adds a rejected event and its dead letter.
    fn reject(
        &self,
        admission: &mut Admission,
        request: &Request<'_>,
        subject: Subject,
        rejection: Rejection,
    ) {
        let mut detail = serde_json::json!({ "index": subject.index, "errors": rejection.errors });
        let mut device_id = subject.device_id;
        if let Some(topic) = request.topic {
            detail["topic"] = cut(topic.name.to_owned(), TOPIC_BYTES_SHOWN_MAX).into();
            let device = topic.device.filter(|device| is_key(device));
            device_id = device_id.or_else(|| device.map(str::to_owned));
        }
        admission.entries.push(Entry::DeadLetter(DeadLetterEntry {
            device_id,
            stage: STAGE.to_owned(),
            reason: rejection.reason.as_str().to_owned(),
            detail: detail.to_string(),
            schema_version: subject.schema_version,
            fleet: self.fleet.clone(),
            first_seen: request.received_at,
            traceparent: request.traceparent.clone(),
            payload: subject.payload,
        }));
        let verdict = Verdict::Rejected(rejection);
        admission.outcomes.push(Outcome { index: subject.index, verdict });
    }
}

/// What is known of something that is rejected.
#[derive(Debug, Default)]
struct Subject {
    index: usize,
    device_id: Option<String>,
    schema_version: Option<u32>,
    payload: Bytes,
}

#[cfg(test)]
mod tests;
