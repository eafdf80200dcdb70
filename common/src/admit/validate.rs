//! One event: its fields, its schema, its errors.
//!
//! The common case runs the compiled schema once and reads four fields; only a rejected event is
//! looked at again for its errors.

use super::explain::{problem_error, problem_reason, schema_error, type_name};
use super::fields::{Fields, is_key, text};
use super::{Admitted, ERRORS_MAX, FieldError, Reason, Rejected, Rejection};
use crate::clock::CLOCK_SET_AFTER;
use crate::event::{Flags, UnixMicros};
use crate::schema::tape::{Parsed, ProblemKind, TapeNode};
use crate::schema::{Choice, Schema, SchemaSet};

/// Longest event id repeated in an answer, in bytes.
const EVENT_ID_SHOWN_MAX: usize = 64;

/// Validates the events of one body; remembers the last firmware's schema.
#[derive(Debug)]
pub struct Validation<'a> {
    schemas: &'a SchemaSet,
    last: Option<(String, &'a Schema)>,
    is_clock_set: bool,
}

impl<'a> Validation<'a> {
    /// Against these schemas.
    pub const fn new(schemas: &'a SchemaSet) -> Self {
        Self { schemas, last: None, is_clock_set: true }
    }

    /// Whether the clock that received times come from can be relied on.
    #[must_use]
    pub fn with_clock_set(self, is_clock_set: bool) -> Self {
        Self { is_clock_set, ..self }
    }

    /// Holds an event against the schema of its firmware.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn event<'t>(
        &mut self,
        parsed: &Parsed<'t>,
        received_at: UnixMicros,
    ) -> Result<Admitted<'t>, Rejected> {
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
            let is_clock_set = self.is_clock_set && received_at >= CLOCK_SET_AFTER;
            let flags = flags(timestamp, received_at, is_clock_set, schema.knows_all(root));
            let schema_version = schema.version();
            return Ok(Admitted { event_id, device_id, timestamp, schema_version, flags });
        }
        let (reason, errors) = self.errors(parsed, &fields, schema);
        let event_id =
            text(fields.event_id).filter(|id| id.len() <= EVENT_ID_SHOWN_MAX).map(Into::into);
        let device_id = text(fields.device_id).filter(|id| is_key(id)).map(Into::into);
        let schema_version = schema.map(Schema::version);
        let rejection = Rejection { event_id, reason, errors };
        Err(Rejected { device_id, schema_version, rejection })
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

const fn flags(
    timestamp: UnixMicros,
    received_at: UnixMicros,
    is_clock_set: bool,
    knows_all: bool,
) -> Flags {
    // Compared with a clock that is wrong, every timestamp would seem to be ahead.
    let time =
        if is_clock_set { Flags::of_times(timestamp, received_at) } else { Flags::CLOCK_UNSET };
    if knows_all { time } else { time.with(Flags::UNKNOWN_FIELDS) }
}
