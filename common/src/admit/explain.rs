//! What is wrong with an event, in words: from the tape's problems and the schema's errors. Slow,
//! and only for what is rejected.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

use super::{EVENT_BYTES_MAX, FieldError, Reason};
use crate::schema::tape::{
    DEPTH_MAX, Parsed, Problem, ProblemKind, SyntaxError, TapeNode, escape_pointer,
};

pub(super) const fn problem_reason(kind: ProblemKind) -> Reason {
    match kind {
        ProblemKind::DuplicateKey => Reason::DuplicateKey,
        ProblemKind::TooDeep => Reason::TooDeep,
        ProblemKind::NumberOutOfRange => Reason::NumberOutOfRange,
        ProblemKind::LoneSurrogate => Reason::LoneSurrogate,
        ProblemKind::TooLarge => Reason::TooLarge,
    }
}

pub(super) fn problem_error(parsed: &Parsed<'_>, problem: &Problem) -> FieldError {
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

pub(super) fn schema_error(error: &ValidationError<'_>) -> FieldError {
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

pub(super) fn type_name(node: TapeNode<'_>) -> String {
    let raw = node.raw();
    if raw.starts_with('[') { "an array".to_owned() } else { raw.to_owned() }
}

/// Text that is not JSON; `base` is where `bytes` begins in what the offset counts from.
pub fn syntax_error(bytes: &[u8], error: &SyntaxError, base: usize) -> FieldError {
    let got = match bytes.get(error.offset) {
        None => "the end".to_owned(),
        Some(_) => {
            let rest = &bytes[error.offset..bytes.len().min(error.offset + 16)];
            format!("{:?}", String::from_utf8_lossy(rest))
        }
    };
    let expected = format!("{} at byte {}", error.expected, base + error.offset);
    FieldError::new("", "json", expected, got).at(base + error.offset)
}

/// Bytes that are not UTF-8, from this offset on.
pub fn utf8_error(body: &[u8], offset: usize) -> FieldError {
    let got = body.get(offset).map_or_else(String::new, |byte| format!("byte 0x{byte:02x}"));
    FieldError::new("", "utf8", format!("UTF-8 at byte {offset}"), got).at(offset)
}
