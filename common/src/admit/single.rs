//! One event's bytes by themselves, as they lie in a dead letter.

use uuid::Uuid;

use super::fields::{Fields, event_id, text, timestamp};
use super::{
    Admitted, EVENT_BYTES_MAX, FieldError, Reason, Rejected, Rejection, Validation, syntax_error,
    utf8_error,
};
use crate::event::UnixMicros;
use crate::schema::SchemaSet;
use crate::schema::tape::{Parsed, SyntaxError, Tape, skip_whitespace};

/// What can be read of an event's identity, whatever else is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The device.
    pub device_id: Option<String>,
    /// The event's id.
    pub event_id: Option<Uuid>,
    /// The event's own time, cut to microseconds.
    pub event_time: Option<UnixMicros>,
}

/// Admits the event that `bytes` are, received at that time.
///
/// # Errors
/// When they are no event, or not a good one.
pub fn admit<'t>(
    schemas: &SchemaSet,
    tape: &'t mut Tape,
    bytes: &'t [u8],
    received_at: UnixMicros,
) -> Result<Admitted<'t>, Rejected> {
    let parsed = parse(tape, bytes).map_err(|error| Rejected {
        device_id: None,
        schema_version: None,
        rejection: Rejection { event_id: None, reason: Reason::MalformedJson, errors: vec![error] },
    })?;
    Validation::new(schemas).event(&parsed, received_at)
}

/// Reads the identity of the event that `bytes` are.
pub fn identity(tape: &mut Tape, bytes: &[u8]) -> Identity {
    let Ok(parsed) = parse(tape, bytes) else { return Identity::default() };
    let fields = Fields::read(parsed.root());
    Identity {
        device_id: text(fields.device_id).map(Into::into),
        event_id: text(fields.event_id).and_then(|id| event_id(&id)),
        event_time: text(fields.timestamp).and_then(|time| timestamp(&time)),
    }
}

/// The one JSON value that `bytes` are, but for whitespace around it.
fn parse<'t>(tape: &'t mut Tape, bytes: &'t [u8]) -> Result<Parsed<'t>, FieldError> {
    let invalid = |error: std::str::Utf8Error| utf8_error(bytes, error.valid_up_to());
    let text = std::str::from_utf8(bytes).map_err(invalid)?;
    let start = skip_whitespace(bytes, 0);
    let broken = |error: SyntaxError| syntax_error(bytes, &error, 0);
    let parsed = tape.parse(text, start, EVENT_BYTES_MAX).map_err(broken)?;
    let end = skip_whitespace(bytes, parsed.end);
    if end < bytes.len() {
        return Err(broken(SyntaxError { offset: end, expected: "the end of the event" }));
    }
    Ok(parsed)
}
