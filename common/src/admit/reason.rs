//! Why an event was not admitted: the stable codes and the specific errors (spec I3).

use serde::Serialize;

/// The stable code of a rejection. It stands in answers, in dead letters (`reason`) and in
/// metrics; codes are added, never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The content encoding (gzip, zstd) could not be undone.
    UndecodableBody,
    /// A message with a content type or encoding that is not taken. (Over HTTP such a request is
    /// refused, and the device keeps it; a broker's publisher has forgotten it.)
    UnsupportedType,
    /// A message with more events than are taken at once.
    TooManyEvents,
    /// A message on a topic that is not this event's: of another device, or of no fleet.
    WrongTopic,
    /// Not JSON (RFC 8259) in UTF-8: a whole body, or one line of NDJSON.
    MalformedJson,
    /// JSON, but not an object.
    NotAnObject,
    /// One event longer than [`EVENT_BYTES_MAX`](super::EVENT_BYTES_MAX), or a message longer than
    /// a body may be.
    TooLarge,
    /// Containers nested deeper than the limit of 64.
    TooDeep,
    /// A name twice in the event or in its metrics.
    DuplicateKey,
    /// A number that is not finite as a 64-bit float.
    NumberOutOfRange,
    /// An escaped surrogate without its other half.
    LoneSurrogate,
    /// A firmware version that no rule covers (spec E2).
    UnknownFirmware,
    /// Against the schema of its firmware, or a field that is not what its format says.
    SchemaViolation,
}

impl Reason {
    /// All reasons, in the order of the checks.
    pub const ALL: [Self; 13] = [
        Self::UnsupportedType,
        Self::UndecodableBody,
        Self::TooManyEvents,
        Self::WrongTopic,
        Self::MalformedJson,
        Self::NotAnObject,
        Self::TooLarge,
        Self::TooDeep,
        Self::DuplicateKey,
        Self::NumberOutOfRange,
        Self::LoneSurrogate,
        Self::UnknownFirmware,
        Self::SchemaViolation,
    ];

    /// The code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedType => "unsupported_type",
            Self::UndecodableBody => "undecodable_body",
            Self::TooManyEvents => "too_many_events",
            Self::WrongTopic => "wrong_topic",
            Self::MalformedJson => "malformed_json",
            Self::NotAnObject => "not_an_object",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::DuplicateKey => "duplicate_key",
            Self::NumberOutOfRange => "number_out_of_range",
            Self::LoneSurrogate => "lone_surrogate",
            Self::UnknownFirmware => "unknown_firmware",
            Self::SchemaViolation => "schema_violation",
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing that is wrong with an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the event; empty for the event itself.
    pub pointer: String,
    /// The rule broken: a JSON Schema keyword, or `json`, `utf8`, `encoding`, `type`, `count`,
    /// `topic`, `size`, `depth`, `unique`, `finite`, `unicode`, `firmware`.
    pub rule: String,
    /// What would have been right, in words.
    pub expected: String,
    /// What was found, cut to a readable length.
    pub got: String,
    /// Byte offset in the (decompressed) body, where the place can't be named by a pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}

/// Longest `pointer` and `expected`, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Longest `got`, in bytes.
const GOT_BYTES_MAX: usize = 64;

impl FieldError {
    /// An error at a pointer; long texts are cut.
    pub fn new(
        pointer: impl Into<String>,
        rule: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self {
            pointer: cut(pointer.into(), TEXT_BYTES_MAX),
            rule: rule.into(),
            expected: cut(expected.into(), TEXT_BYTES_MAX),
            got: cut(got.into(), GOT_BYTES_MAX),
            offset: None,
        }
    }

    /// The same with a byte offset.
    #[must_use]
    pub fn at(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self
    }
}

/// At most `bytes_max` bytes of the text, and an ellipsis if there was more.
pub fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let boundary = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(boundary.unwrap_or(0));
        text.push('…');
    }
    text
}
