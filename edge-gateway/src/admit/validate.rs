//! One event: its fields, its schema, its errors.
//!
//! The common case runs the compiled schema once and reads four fields; only a rejected event is
//! looked at again for its errors.

use std::borrow::Cow;

use bytes::Bytes;
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use penstock_common::event::{Flags, UnixMicros};
use penstock_common::schema::tape::{
    DEPTH_MAX, Parsed, Problem, ProblemKind, TapeNode, escape_pointer,
};
use penstock_common::schema::{Choice, Schema, SchemaSet};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Admission, Admitter, ERRORS_MAX, EVENT_BYTES_MAX, FieldError, Outcome, Reason, Rejection,
    Request, Subject, Verdict,
};
use crate::spool::entry::{Entry, EventEntry};

/// A received time before this means that the gateway's own clock was never set (it counts from
/// 1970, or from its build): 2025-01-01T00:00:00Z.
const CLOCK_SET_AFTER: UnixMicros = UnixMicros(1_735_689_600_000_000);

/// 9999-12-31T23:59:59.999999Z.
const TIMESTAMP_MAX: UnixMicros = UnixMicros(253_402_300_799_999_999);

/// Longest event id repeated in an answer, in bytes.
const EVENT_ID_SHOWN_MAX: usize = 64;

const TIMESTAMP_EXPECTED: &str =
    "RFC 3339 from 1970 on, with an offset, e.g. 2026-01-31T12:00:00.250Z";

/// Validates the events of one body; remembers the last firmware's schema.
pub(super) struct Validation<'a> {
    schemas: &'a SchemaSet,
    last: Option<(String, &'a Schema)>,
}

/// The fields that admission reads itself.
#[derive(Clone, Copy, Default)]
struct Fields<'t> {
    event_id: Option<TapeNode<'t>>,
    device_id: Option<TapeNode<'t>>,
    firmware: Option<TapeNode<'t>>,
    timestamp: Option<TapeNode<'t>>,
}

impl<'a> Validation<'a> {
    pub(super) const fn new(schemas: &'a SchemaSet) -> Self {
        Self { schemas, last: None }
    }

    /// Adds the event's outcome and its entry to the admission.
    pub(super) fn event(
        &mut self,
        admitter: &Admitter,
        admission: &mut Admission,
        request: &Request<'_>,
        parsed: &Parsed<'_>,
        payload: Bytes,
    ) {
        let index = admission.outcomes.len();
        let root = parsed.root();
        let fields = Fields::read(root);
        let schema = match self.choose(fields.firmware) {
            Choice::Schema(schema) => Some(schema),
            Choice::UnknownFirmware | Choice::NotAVersion => None,
        };
        if let Some(schema) = schema
            && parsed.problems.is_empty()
            && let Some((event_id, timestamp)) = fields.typed()
            && let Some(device_id) = fields.device_id.and_then(|node| node.as_text())
            && schema.validator().is_valid(root)
        {
            let flags = flags(timestamp, request.received_at, schema.knows_all(root));
            admission.entries.push(Entry::Event(EventEntry {
                device_id: device_id.into_owned(),
                schema_version: schema.version(),
                fleet: admitter.fleet.clone(),
                received_at: request.received_at,
                flags,
                traceparent: request.traceparent.clone(),
                payload,
            }));
            admission.outcomes.push(Outcome { index, verdict: Verdict::Accepted { event_id } });
            return;
        }
        let (reason, errors) = self.errors(parsed, &fields, schema);
        let event_id =
            text(fields.event_id).filter(|id| id.len() <= EVENT_ID_SHOWN_MAX).map(Into::into);
        let device_id = text(fields.device_id).filter(|id| is_key(id)).map(Into::into);
        let schema_version = schema.map(Schema::version);
        let subject = Subject { index, device_id, schema_version, payload };
        admitter.reject(admission, request, subject, Rejection { event_id, reason, errors });
    }

    fn choose(&mut self, firmware: Option<TapeNode<'_>>) -> Choice<'a> {
        let Some(firmware) = firmware.and_then(|node| node.as_text()) else {
            return Choice::NotAVersion;
        };
        if let Some((last, schema)) = &self.last
            && *last == firmware
        {
            return Choice::Schema(schema);
        }
        let choice = self.schemas.choose(&firmware);
        if let Choice::Schema(schema) = choice {
            self.last = Some((firmware.into_owned(), schema));
        }
        choice
    }

    /// What is wrong, at least one error: the checks in the order of [`Reason`].
    #[cold]
    fn errors(
        &mut self,
        parsed: &Parsed<'_>,
        fields: &Fields<'_>,
        schema: Option<&Schema>,
    ) -> (Reason, Vec<FieldError>) {
        let root = parsed.root();
        // A problem leaves a tape that may end early: nothing more is asked of it.
        let main = parsed.problems.iter().find(|problem| problem.kind == ProblemKind::TooLarge);
        if let Some(problem) = main.or_else(|| parsed.problems.first()) {
            let errors = parsed.problems.iter().map(|problem| problem_error(parsed, problem));
            return (problem_reason(problem.kind), errors.collect());
        }
        if !root.is_object() {
            let error = FieldError::new("", "type", "an object", type_name(root));
            return (Reason::NotAnObject, vec![error]);
        }
        let mut errors = Vec::new();
        let mut reason = Reason::SchemaViolation;
        if let Some(firmware) = fields.firmware.and_then(|node| node.as_text()) {
            let pointer = "/device_firmware_version";
            let got = format!("{firmware:?}");
            match self.schemas.choose(&firmware) {
                Choice::Schema(_) => {}
                Choice::UnknownFirmware => {
                    reason = Reason::UnknownFirmware;
                    let expected = format!("firmware in {}", self.schemas.rules().expected());
                    errors.push(FieldError::new(pointer, "firmware", expected, got));
                }
                Choice::NotAVersion => {
                    let expected = "a semantic version, e.g. 1.4.2";
                    errors.push(FieldError::new(pointer, "format", expected, got));
                }
            }
        }
        fields.format_errors(&mut errors);
        // Without a schema of its own, only the fields that all versions share are looked at.
        let held_against = schema.unwrap_or_else(|| self.schemas.newest());
        let violations = held_against.validator().iter_errors(root).map(|e| schema_error(&e));
        errors.extend(
            violations
                .filter(|error| schema.is_some() || !error.pointer.starts_with("/metrics/"))
                .take(ERRORS_MAX),
        );
        errors.truncate(ERRORS_MAX);
        debug_assert!(!errors.is_empty(), "rejected without an error");
        (reason, errors)
    }
}

impl<'t> Fields<'t> {
    fn read(root: TapeNode<'t>) -> Self {
        let mut fields = Self::default();
        for (name, value) in root.members() {
            let Some(name) = name.as_text() else { continue };
            match name.as_ref() {
                "event_id" => fields.event_id = Some(value),
                "device_id" => fields.device_id = Some(value),
                "device_firmware_version" => fields.firmware = Some(value),
                "timestamp" => fields.timestamp = Some(value),
                _ => {}
            }
        }
        fields
    }

    fn typed(&self) -> Option<(Uuid, UnixMicros)> {
        let event_id = event_id(&self.event_id?.as_text()?)?;
        Some((event_id, timestamp(&self.timestamp?.as_text()?)?))
    }

    /// The formats that the schema only notes.
    fn format_errors(&self, errors: &mut Vec<FieldError>) {
        if let Some(text) = self.event_id.and_then(|node| node.as_text())
            && event_id(&text).is_none()
        {
            let expected = "a hyphenated UUID that is not nil";
            errors.push(FieldError::new("/event_id", "format", expected, format!("{text:?}")));
        }
        if let Some(text) = self.timestamp.and_then(|node| node.as_text())
            && timestamp(&text).is_none()
        {
            let got = format!("{text:?}");
            errors.push(FieldError::new("/timestamp", "format", TIMESTAMP_EXPECTED, got));
        }
    }
}

fn event_id(text: &str) -> Option<Uuid> {
    // The other forms that the crate reads have other lengths.
    if text.len() != 36 {
        return None;
    }
    Uuid::try_parse(text).ok().filter(|id| !id.is_nil())
}

/// RFC 3339 and no more: jiff alone would also take a space, basic formats and time zone names.
fn timestamp(text: &str) -> Option<UnixMicros> {
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00:00";
    let fits = |(byte, &shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        mark => *byte == mark,
    };
    let rest = bytes.get(shape.len()..)?;
    if !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let offset = match rest.split_first() {
        Some((b'.', fraction)) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            &fraction[digits..]
        }
        _ => rest,
    };
    let offset_fits = match offset {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    let in_range = |time: &UnixMicros| (0..=TIMESTAMP_MAX.0).contains(&time.0);
    offset_fits.then(|| UnixMicros::parse_rfc3339(text).ok()).flatten().filter(in_range)
}

const fn flags(timestamp: UnixMicros, received_at: UnixMicros, knows_all: bool) -> Flags {
    let time = if received_at.0 < CLOCK_SET_AFTER.0 {
        // Compared with a clock that is wrong, every timestamp would seem to be ahead.
        Flags::CLOCK_UNSET
    } else {
        Flags::of_times(timestamp, received_at)
    };
    if knows_all { time } else { time.with(Flags::UNKNOWN_FIELDS) }
}

fn text(node: Option<TapeNode<'_>>) -> Option<Cow<'_, str>> {
    node.and_then(|node| node.as_text())
}

/// Whether a device id can be the key of a dead letter.
fn is_key(device_id: &str) -> bool {
    !device_id.is_empty()
        && device_id.len() <= 128
        && device_id.bytes().all(|b| b.is_ascii_graphic())
}

const fn problem_reason(kind: ProblemKind) -> Reason {
    match kind {
        ProblemKind::DuplicateKey => Reason::DuplicateKey,
        ProblemKind::TooDeep => Reason::TooDeep,
        ProblemKind::NumberOutOfRange => Reason::NumberOutOfRange,
        ProblemKind::LoneSurrogate => Reason::LoneSurrogate,
        ProblemKind::TooLarge => Reason::TooLarge,
    }
}

fn problem_error(parsed: &Parsed<'_>, problem: &Problem) -> FieldError {
    let got = || parsed.text_of(problem).to_owned();
    let (rule, expected, got) = match problem.kind {
        ProblemKind::DuplicateKey => ("unique", "each name once".to_owned(), got()),
        ProblemKind::TooDeep => {
            ("depth", format!("at most {DEPTH_MAX} levels of nesting"), "a deeper level".to_owned())
        }
        ProblemKind::NumberOutOfRange => ("finite", "a number below 1.8e308".to_owned(), got()),
        ProblemKind::LoneSurrogate => ("unicode", "surrogate escapes in pairs".to_owned(), got()),
        ProblemKind::TooLarge => (
            "size",
            format!("at most {EVENT_BYTES_MAX} bytes an event"),
            format!("{} bytes", problem.end - problem.start),
        ),
    };
    FieldError::new(problem.pointer.clone(), rule, expected, got)
}

fn schema_error(error: &ValidationError<'_>) -> FieldError {
    let pointer = error.instance_path().to_string();
    let instance = error.instance();
    let rule = error.kind().keyword();
    let child = |name: &str| format!("{pointer}/{}", escape_pointer(name));
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let pointer = child(property.as_str().unwrap_or_default());
            FieldError::new(pointer, rule, "a value", "nothing")
        }
        ValidationErrorKind::PropertyNames { error } => {
            let inner = schema_error(error);
            let name = error.instance().as_str().unwrap_or_default().to_owned();
            FieldError::new(child(&name), rule, inner.expected, inner.got)
        }
        kind => {
            let expected = expected(kind).unwrap_or_else(|| error.to_string());
            FieldError::new(pointer, rule, expected, got(instance))
        }
    }
}

/// What a schema keyword asks for, in words; `None` for those that our schemas don't use.
fn expected(kind: &ValidationErrorKind) -> Option<String> {
    Some(match kind {
        ValidationErrorKind::Minimum { limit } => format!("at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("less than {limit}"),
        ValidationErrorKind::MaxLength { limit } => format!("at most {limit} characters"),
        ValidationErrorKind::MinLength { limit } => format!("at least {limit} characters"),
        ValidationErrorKind::MaxProperties { limit } => format!("at most {limit} names"),
        ValidationErrorKind::Pattern { pattern } => format!("text that matches {pattern}"),
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => format!("type {kind}"),
        _ => return None,
    })
}

/// The offending value; a container only by its type.
fn got(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(object) => format!("an object with {} names", object.len()),
        scalar => scalar.to_string(),
    }
}

fn type_name(node: TapeNode<'_>) -> String {
    let raw = node.raw();
    if raw.starts_with('[') { "an array".to_owned() } else { raw.to_owned() }
}
