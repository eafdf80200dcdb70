//! Whether a dead letter may go through admission again, and what becomes of it. Pure.

use penstock_common::admit::{self, FieldError, Reason};
use penstock_common::codec::{self, Headers, encode_event};
use penstock_common::event::{EventMeta, UnixMicros, effective_time};
use penstock_common::schema::SchemaSet;
use penstock_common::schema::tape::Tape;
use serde::Serialize;

use super::letter::{ID_CONFLICT, Letter, UNREADABLE_HEADERS};
use crate::raw::batch::is_too_late;

/// A refusal kept in the index is at most about this long.
const REFUSAL_BYTES_MAX: usize = 4_096;

/// The rules of today.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The schemas.
    pub schemas: &'a SchemaSet,
    /// Older events are not taken by the raw store, in days.
    pub late_days_max: u32,
    /// Now.
    pub now: UnixMicros,
}

/// An event that goes to `replay-events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayable {
    /// The message key: its device.
    pub key: String,
    /// The message headers.
    pub headers: Headers,
    /// The schema that admits it today.
    pub schema_version: u32,
}

/// Why a letter is not replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// A stable code: one of admission's, or `unreadable_headers`, `not_an_event`, `id_conflict`,
    /// `too_late`.
    pub reason: &'static str,
    /// In words.
    pub detail: String,
    /// What exactly is wrong with the event, where it is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Refusal {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), errors: Vec::new() }
    }

    /// As JSON for the index, with as many errors as there is room for.
    pub fn to_json(&self) -> String {
        let mut refusal = self.clone();
        loop {
            let json = serde_json::to_string(&refusal).unwrap_or_default();
            if json.len() <= REFUSAL_BYTES_MAX || refusal.errors.pop().is_none() {
                // PostgreSQL takes no NUL, which JSON writes as this.
                return json.replace("\\u0000", "\\ufffd");
            }
        }
    }
}

/// Holds a letter against the rules of today.
///
/// # Errors
/// When it must not, or can't, be replayed.
pub fn decide(rules: &Rules<'_>, letter: &Letter, tape: &mut Tape) -> Result<Replayable, Refusal> {
    let Letter { meta, payload, .. } = letter;
    // Epoch 0 is no gateway's: it stands for one that can't be read.
    if meta.reason == UNREADABLE_HEADERS || meta.provenance.epoch.0 == 0 {
        let detail = "its headers can't be read: whose event it is and where it was spooled is not \
                      known, so that it could not be told apart from others";
        return Err(Refusal::new(UNREADABLE_HEADERS, detail));
    }
    if meta.reason == ID_CONFLICT {
        let detail = "an event with this identity and other bytes is stored; which one counts is \
                      decided by when they were received, and a replay does not change that";
        return Err(Refusal::new(ID_CONFLICT, detail));
    }
    if meta.reason == Reason::UndecodableBody.as_str() {
        return Err(not_an_event(Vec::new()));
    }
    let admitted = admit::admit(rules.schemas, tape, payload, meta.first_seen)
        .map_err(|rejected| refused(rejected.rejection.reason, rejected.rejection.errors))?;
    let effective = effective_time(admitted.timestamp, meta.first_seen, admitted.flags);
    if is_too_late(effective, rules.now, rules.late_days_max) {
        let days = rules.late_days_max;
        let detail = format!("the event is more than {days} days old: raw would not keep it");
        return Err(Refusal::new("too_late", detail));
    }
    let mut headers = encode_event(&EventMeta {
        schema_version: admitted.schema_version,
        fleet: meta.fleet.clone(),
        provenance: meta.provenance.clone(),
        received_at: meta.first_seen,
        flags: admitted.flags,
        traceparent: meta.traceparent.clone(),
    });
    headers.push((codec::ORIGIN_HEADER, codec::ORIGIN_DEAD_LETTER.to_owned()));
    let (key, schema_version) = (admitted.device_id.into_owned(), admitted.schema_version);
    Ok(Replayable { key, headers, schema_version })
}

fn refused(reason: Reason, errors: Vec<FieldError>) -> Refusal {
    match reason {
        Reason::MalformedJson | Reason::NotAnObject => not_an_event(errors),
        reason => {
            let detail = "today's schemas don't admit it either".to_owned();
            Refusal { reason: reason.as_str(), detail, errors }
        }
    }
}

fn not_an_event(errors: Vec<FieldError>) -> Refusal {
    let detail = "the bytes are not one event but a whole body, or a line, that could not be taken \
                  apart: there is nothing to replay; the device was told and still had its events";
    Refusal { errors, ..Refusal::new("not_an_event", detail) }
}

#[cfg(test)]
mod tests;
