//! The Kafka headers of events and dead letters.
//!
//! **Frozen.** The message key is `device_id`, the value is the event's bytes as the device sent
//! them; everything else travels in headers, as ASCII text so that any tool shows them:
//!
//! | header | on | value |
//! |---|---|---|
//! | `format` | both | `1`, this table |
//! | `fleet` | both | fleet name |
//! | `gateway` | both | gateway name |
//! | `epoch` | both | 16 hexadecimal digits |
//! | `seq` | both | decimal |
//! | `received_at` | events | microseconds since the Unix epoch, decimal |
//! | `schema` | both | schema version, decimal; absent on a dead letter that none was chosen for |
//! | `flags` | events | names joined by `,`; absent when none is set |
//! | `traceparent` | both | W3C trace context; absent when the request had none |
//! | `stage`, `reason`, `detail` | dead letters | who gave up, a stable code, JSON |
//! | `first_seen` | dead letters | microseconds since the Unix epoch, decimal |
//! | `attempts` | dead letters | decimal |
//! | `origin` | replayed events | `dead-letter` when it was one; absent otherwise |
//! | `source` | dead letters | `topic/partition/offset`; absent when it came from no topic |
//!
//! Unknown headers are passed over, so that a later format can add some.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use crate::event::{DeadLetterMeta, EventMeta, Flags, Provenance, SourceOffset, UnixMicros};

const FORMAT: &str = "1";

/// The headers that a dead letter of this format can have; others were not understood.
pub const DEAD_LETTER_HEADERS: [&str; 13] = [
    "format",
    "fleet",
    "gateway",
    "epoch",
    "seq",
    "traceparent",
    "stage",
    "reason",
    "detail",
    "first_seen",
    "attempts",
    "schema",
    "source",
];

/// Says on `replay-events` where an event comes from.
pub const ORIGIN_HEADER: &str = "origin";
/// The event was a dead letter: the raw store may not have it.
pub const ORIGIN_DEAD_LETTER: &str = "dead-letter";

/// Headers ready for a producer: name and value.
pub type Headers = Vec<(&'static str, String)>;

/// Why headers could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    /// A header that must be there is not.
    #[error("header {0:?} is missing")]
    Missing(&'static str),
    /// A header's value is not what the format says.
    #[error("header {name:?} can't be read: {value:?}")]
    Malformed {
        /// The header.
        name: &'static str,
        /// What it held, lossily as text.
        value: String,
    },
}

/// The headers of an event.
pub fn encode_event(meta: &EventMeta) -> Headers {
    let mut headers = common(&meta.fleet, &meta.provenance, meta.traceparent.as_deref());
    headers.push(("received_at", meta.received_at.0.to_string()));
    headers.push(("schema", meta.schema_version.to_string()));
    if meta.flags != Flags::NONE {
        headers.push(("flags", meta.flags.names().collect::<Vec<_>>().join(",")));
    }
    headers
}

/// The headers of a dead letter.
pub fn encode_dead_letter(meta: &DeadLetterMeta) -> Headers {
    let mut headers = common(&meta.fleet, &meta.provenance, meta.traceparent.as_deref());
    headers.push(("stage", meta.stage.clone()));
    headers.push(("reason", meta.reason.clone()));
    headers.push(("detail", meta.detail.clone()));
    headers.push(("first_seen", meta.first_seen.0.to_string()));
    headers.push(("attempts", meta.attempts.to_string()));
    if let Some(version) = meta.schema_version {
        headers.push(("schema", version.to_string()));
    }
    if let Some(source) = &meta.source {
        let text = format!("{}/{}/{}", source.topic, source.partition, source.offset);
        headers.push(("source", text));
    }
    headers
}

fn common(fleet: &str, provenance: &Provenance, traceparent: Option<&str>) -> Headers {
    let mut headers = Vec::with_capacity(12);
    headers.push(("format", FORMAT.to_owned()));
    headers.push(("fleet", fleet.to_owned()));
    headers.push(("gateway", provenance.gateway.to_string()));
    headers.push(("epoch", provenance.epoch.to_string()));
    headers.push(("seq", provenance.seq.to_string()));
    if let Some(traceparent) = traceparent {
        headers.push(("traceparent", traceparent.to_owned()));
    }
    headers
}

/// Reads an event's headers.
///
/// # Errors
/// With the header that is missing or malformed.
pub fn decode_event<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<EventMeta, HeaderError> {
    let fields = Fields::read(headers)?;
    Ok(EventMeta {
        schema_version: fields.parse("schema")?,
        fleet: fields.text("fleet")?.into(),
        provenance: fields.provenance()?,
        received_at: UnixMicros(fields.parse("received_at")?),
        flags: fields.flags()?,
        traceparent: fields.optional("traceparent").map(str::to_owned),
    })
}

/// Reads a dead letter's headers.
///
/// # Errors
/// With the header that is missing or malformed.
pub fn decode_dead_letter<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<DeadLetterMeta, HeaderError> {
    let fields = Fields::read(headers)?;
    Ok(DeadLetterMeta {
        stage: fields.text("stage")?.to_owned(),
        reason: fields.text("reason")?.to_owned(),
        detail: fields.text("detail")?.to_owned(),
        schema_version: fields.parse_optional("schema")?,
        fleet: fields.text("fleet")?.into(),
        provenance: fields.provenance()?,
        first_seen: UnixMicros(fields.parse("first_seen")?),
        attempts: fields.parse("attempts")?,
        source: fields.source()?,
        traceparent: fields.optional("traceparent").map(str::to_owned),
    })
}

/// The values of the headers that this format knows, by [`slot`]: every record is read several
/// times over, so without a map.
struct Fields<'a>([Option<&'a str>; SLOTS]);

const SLOTS: usize = 15;

/// The place of a known header.
fn slot(name: &str) -> Option<usize> {
    Some(match name {
        "format" => 0,
        "fleet" => 1,
        "gateway" => 2,
        "epoch" => 3,
        "seq" => 4,
        "received_at" => 5,
        "schema" => 6,
        "flags" => 7,
        "traceparent" => 8,
        "stage" => 9,
        "reason" => 10,
        "detail" => 11,
        "first_seen" => 12,
        "attempts" => 13,
        "source" => 14,
        _ => return None,
    })
}

impl<'a> Fields<'a> {
    fn read(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, HeaderError> {
        let mut fields = Self([None; SLOTS]);
        for (name, value) in headers {
            // A value that is no text can only be a header unknown to this format.
            if let (Some(slot), Ok(text)) = (slot(name), std::str::from_utf8(value)) {
                fields.0[slot] = Some(text);
            }
        }
        match fields.text("format")? {
            FORMAT => Ok(fields),
            other => Err(HeaderError::Malformed { name: "format", value: other.to_owned() }),
        }
    }

    fn optional(&self, name: &'static str) -> Option<&'a str> {
        self.0[slot(name)?]
    }

    fn text(&self, name: &'static str) -> Result<&'a str, HeaderError> {
        self.optional(name).ok_or(HeaderError::Missing(name))
    }

    fn parse<T: FromStr>(&self, name: &'static str) -> Result<T, HeaderError> {
        let text = self.text(name)?;
        text.parse().map_err(|_| malformed(name, text))
    }

    fn parse_optional<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, HeaderError> {
        self.optional(name).map(|text| text.parse().map_err(|_| malformed(name, text))).transpose()
    }

    fn provenance(&self) -> Result<Provenance, HeaderError> {
        Ok(Provenance {
            gateway: Arc::from(self.text("gateway")?),
            epoch: self.parse("epoch")?,
            seq: self.parse("seq")?,
        })
    }

    fn flags(&self) -> Result<Flags, HeaderError> {
        let Some(text) = self.optional("flags") else { return Ok(Flags::NONE) };
        text.split(',').try_fold(Flags::NONE, |flags, name| {
            Flags::from_name(name).map(|flag| flags.with(flag)).ok_or(malformed("flags", text))
        })
    }

    fn source(&self) -> Result<Option<SourceOffset>, HeaderError> {
        let Some(text) = self.optional("source") else { return Ok(None) };
        let mut parts = text.rsplitn(3, '/');
        let (offset, partition, topic) = (parts.next(), parts.next(), parts.next());
        match (topic, partition.map(str::parse), offset.map(str::parse)) {
            (Some(topic), Some(Ok(partition)), Some(Ok(offset))) => {
                Ok(Some(SourceOffset { topic: topic.to_owned(), partition, offset }))
            }
            _ => Err(malformed("source", text)),
        }
    }
}

fn malformed(name: &'static str, value: impl Display) -> HeaderError {
    HeaderError::Malformed { name, value: value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Epoch;

    fn bytes(headers: &Headers) -> Vec<(&str, &[u8])> {
        headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    fn event() -> EventMeta {
        EventMeta {
            schema_version: 3,
            fleet: "press-line".into(),
            provenance: Provenance { gateway: "plant-7".into(), epoch: Epoch(255), seq: 42 },
            received_at: UnixMicros(1_700_000_000_000_001),
            flags: Flags::LATE.with(Flags::UNKNOWN_FIELDS),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        }
    }

    fn dead_letter() -> DeadLetterMeta {
        DeadLetterMeta {
            stage: "gateway.admit".into(),
            reason: "schema_violation".into(),
            detail: r#"{"errors":[]}"#.into(),
            schema_version: None,
            fleet: "press-line".into(),
            provenance: event().provenance,
            first_seen: UnixMicros(7),
            attempts: 1,
            source: Some(SourceOffset { topic: "a/b".into(), partition: 3, offset: 9 }),
            traceparent: None,
        }
    }

    /// The frozen bytes: if this test has to change, the format's version must too.
    #[test]
    fn the_event_headers_are_exactly_these() {
        let text: Vec<String> =
            encode_event(&event()).iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text,
            [
                "format=1",
                "fleet=press-line",
                "gateway=plant-7",
                "epoch=00000000000000ff",
                "seq=42",
                "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "received_at=1700000000000001",
                "schema=3",
                "flags=late,unknown_fields",
            ]
        );
    }

    #[test]
    fn both_kinds_round_trip() {
        assert_eq!(decode_event(bytes(&encode_event(&event()))), Ok(event()));
        let headers = encode_dead_letter(&dead_letter());
        assert_eq!(decode_dead_letter(bytes(&headers)), Ok(dead_letter()));
    }

    #[test]
    fn the_list_of_a_dead_letters_headers_is_whole() {
        let meta = DeadLetterMeta {
            schema_version: Some(1),
            traceparent: event().traceparent,
            ..dead_letter()
        };
        let names: Vec<_> = encode_dead_letter(&meta).into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| DEAD_LETTER_HEADERS.contains(name)), "{names:?}");
        assert_eq!(names.len(), DEAD_LETTER_HEADERS.len());
    }

    #[test]
    fn a_missing_or_unreadable_header_is_named() {
        for (name, _) in encode_event(&event()) {
            let mut headers = encode_event(&event());
            headers.retain(|(other, _)| *other != name);
            let decoded = decode_event(bytes(&headers));
            if matches!(name, "flags" | "traceparent") {
                assert!(decoded.is_ok(), "{name} is optional");
            } else {
                assert_eq!(decoded, Err(HeaderError::Missing(name)));
            }
        }
        let mut headers = encode_event(&event());
        headers[4].1 = "x".into();
        let error = decode_event(bytes(&headers)).unwrap_err();
        assert_eq!(error, HeaderError::Malformed { name: "seq", value: "x".into() });
    }

    #[test]
    fn unknown_headers_are_passed_over() {
        let headers = encode_event(&event());
        let mut bytes = bytes(&headers);
        bytes.push(("later", &[0xff]));
        assert_eq!(decode_event(bytes), Ok(event()));
    }
}
