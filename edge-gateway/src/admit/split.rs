//! One pass over the text: finds each event's exact bytes and hands it to validation.

use std::cell::Cell;

use bytes::Bytes;
use penstock_common::admit::{Admitted, Rejected, Validation, syntax_error, utf8_error};
use penstock_common::event::Flags;
use penstock_common::schema::tape::{SyntaxError, Tape, skip_whitespace};

use super::decode::Layout;
use super::{
    Admission, Admitter, EVENT_BYTES_MAX, EVENTS_MAX, FieldError, Outcome, Reason, Refusal,
    Rejection, Request, Subject, Verdict,
};
use crate::spool::entry::{Entry, EventEntry};

thread_local! {
    // One tape a thread; it gives back what a large event made it take.
    static TAPE: Cell<Tape> = Cell::default();
}

/// Admits the events of a decompressed body.
pub(super) fn admit(
    admitter: &Admitter,
    request: &Request<'_>,
    body: &Bytes,
    layout: Layout,
) -> Result<Admission, Refusal> {
    let mut tape = TAPE.take();
    let mut pass = Pass {
        admitter,
        request,
        body,
        tape: &mut tape,
        validation: Validation::new(&admitter.schemas).with_clock_set(request.is_clock_set),
        admission: Admission::default(),
    };
    let done = match layout {
        Layout::Json => pass.json(),
        Layout::Lines => pass.lines(),
    };
    let admission = pass.admission;
    TAPE.set(tape);
    match done {
        Ok(()) if admission.outcomes.is_empty() => Err(Refusal::Empty),
        Ok(()) => Ok(admission),
        Err(Stop::Refused(refusal)) => Err(refusal),
        Err(Stop::Broken(error)) => {
            let index = admission.outcomes.len();
            let whole = (body.clone(), Reason::MalformedJson, index, error);
            Ok(admitter.unreadable(request, whole))
        }
    }
}

/// Why a pass ended early.
enum Stop {
    Refused(Refusal),
    /// Not JSON; after this place events can't be told apart.
    Broken(FieldError),
}

struct Pass<'a> {
    admitter: &'a Admitter,
    request: &'a Request<'a>,
    body: &'a Bytes,
    tape: &'a mut Tape,
    validation: Validation<'a>,
    admission: Admission,
}

impl Pass<'_> {
    /// One JSON text.
    fn json(&mut self) -> Result<(), Stop> {
        let (text, invalid_at) = match std::str::from_utf8(self.body) {
            Ok(text) => (text, None),
            Err(error) => {
                let valid = &self.body[..error.valid_up_to()];
                (std::str::from_utf8(valid).unwrap_or_default(), Some(error.valid_up_to()))
            }
        };
        let read = self.values(text);
        match (read, invalid_at) {
            (Err(Stop::Refused(refusal)), _) => Err(Stop::Refused(refusal)),
            // Whatever else: the text before only serves to count the events.
            (_, Some(offset)) => Err(Stop::Broken(utf8_error(self.body, offset))),
            (read, None) => read,
        }
    }

    fn values(&mut self, text: &str) -> Result<(), Stop> {
        let bytes = text.as_bytes();
        let broken = |error: SyntaxError| Stop::Broken(syntax_error(bytes, &error, 0));
        let mut at = skip_whitespace(bytes, 0);
        if at == bytes.len() {
            return Ok(());
        }
        if bytes[at] == b'[' {
            at = skip_whitespace(bytes, at + 1);
            if bytes.get(at) == Some(&b']') {
                at += 1;
            } else {
                loop {
                    at = self.event(text, at, 0).map_err(broken)?;
                    self.refuse_too_many()?;
                    at = skip_whitespace(bytes, at);
                    match bytes.get(at) {
                        Some(b',') => at = skip_whitespace(bytes, at + 1),
                        Some(b']') => {
                            at += 1;
                            break;
                        }
                        _ => {
                            let expected = "',' or ']' after an event of the array";
                            return Err(broken(SyntaxError { offset: at, expected }));
                        }
                    }
                }
            }
        } else {
            at = self.event(text, at, 0).map_err(broken)?;
        }
        at = skip_whitespace(bytes, at);
        if at < bytes.len() {
            let expected = "the end of the body (several events go into an array)";
            return Err(broken(SyntaxError { offset: at, expected }));
        }
        Ok(())
    }

    /// One JSON text a line; blank lines are passed over.
    fn lines(&mut self) -> Result<(), Stop> {
        let body = self.body;
        let mut start = 0;
        for line in body.split(|&byte| byte == b'\n') {
            let (line_start, line_end) = (start, start + line.len());
            start = line_end + 1;
            let first = line_start + skip_whitespace(line, 0);
            let last = line.iter().rposition(|byte| !b" \t\r".contains(byte));
            let Some(end) = last.map(|last| line_start + last + 1) else { continue };
            let line = &body[first..end];
            let broken = match std::str::from_utf8(line) {
                Ok(text) => match self.event(text, 0, first) {
                    Ok(used) if used == text.len() => None,
                    Ok(used) => {
                        // More than a value on the line: the line is one event, and malformed.
                        self.admission.outcomes.pop();
                        self.admission.entries.pop();
                        let offset = skip_whitespace(line, used);
                        let expected = "the end of the line";
                        Some(syntax_error(line, &SyntaxError { offset, expected }, first))
                    }
                    Err(error) => Some(syntax_error(line, &error, first)),
                },
                Err(error) => Some(utf8_error(body, first + error.valid_up_to())),
            };
            if let Some(error) = broken {
                let index = self.admission.outcomes.len();
                let payload = body.slice(first..end);
                let subject = Subject { index, payload, ..Subject::default() };
                let reason = Reason::MalformedJson;
                let rejection = Rejection { event_id: None, reason, errors: vec![error] };
                self.admitter.reject(&mut self.admission, self.request, subject, rejection);
            }
            self.refuse_too_many()?;
        }
        Ok(())
    }

    /// Reads and validates the event at `at` of `text`, which begins at `base` of the body;
    /// returns where it ends in `text`.
    fn event(&mut self, text: &str, at: usize, base: usize) -> Result<usize, SyntaxError> {
        let parsed = self.tape.parse(text, at, EVENT_BYTES_MAX)?;
        let payload = self.body.slice(base + at..base + parsed.end);
        let checked = self.validation.event(&parsed, self.request.received_at);
        match checked.and_then(|admitted| in_place(self.request, admitted)) {
            Ok(admitted) => {
                accept(self.admitter, &mut self.admission, self.request, admitted, payload);
            }
            Err(Rejected { device_id, schema_version, rejection }) => {
                let index = self.admission.outcomes.len();
                let subject = Subject { index, device_id, schema_version, payload };
                self.admitter.reject(&mut self.admission, self.request, subject, rejection);
            }
        }
        Ok(parsed.end)
    }

    const fn refuse_too_many(&self) -> Result<(), Stop> {
        if self.admission.outcomes.len() > EVENTS_MAX {
            return Err(Stop::Refused(Refusal::TooManyEvents));
        }
        Ok(())
    }
}

/// An event by MQTT must be of the device that its topic names.
fn in_place<'t>(request: &Request<'_>, admitted: Admitted<'t>) -> Result<Admitted<'t>, Rejected> {
    let Some(topic) = request.topic else { return Ok(admitted) };
    match topic.device {
        Some(device) if device != admitted.device_id => {
            let expected = format!("{device:?}, as the topic says");
            let got = format!("{:?}", admitted.device_id);
            let error = FieldError::new("/device_id", "topic", expected, got);
            Err(Rejected {
                device_id: Some(admitted.device_id.into_owned()),
                schema_version: Some(admitted.schema_version),
                rejection: Rejection {
                    event_id: Some(admitted.event_id.to_string()),
                    reason: Reason::WrongTopic,
                    errors: vec![error],
                },
            })
        }
        _ => Ok(Admitted { flags: admitted.flags.with(Flags::MQTT), ..admitted }),
    }
}

/// Adds an accepted event and its entry.
fn accept(
    admitter: &Admitter,
    admission: &mut Admission,
    request: &Request<'_>,
    admitted: Admitted<'_>,
    payload: Bytes,
) {
    admission.entries.push(Entry::Event(EventEntry {
        device_id: admitted.device_id.into_owned(),
        schema_version: admitted.schema_version,
        fleet: admitter.fleet.clone(),
        received_at: request.received_at,
        flags: admitted.flags,
        traceparent: request.traceparent.clone(),
        payload,
    }));
    let index = admission.outcomes.len();
    let verdict = Verdict::Accepted { event_id: admitted.event_id };
    admission.outcomes.push(Outcome { index, verdict });
}
