//! What the raw writer needs to know of an event: one borrowed pass over its bytes.
//!
//! The gateway has validated it; here only what can't be stored is refused. A metric that is no
//! number stays in the payload and out of the map.

use std::borrow::Cow;
use std::fmt;

use penstock_common::event::UnixMicros;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The stored parts of an event.
#[derive(Debug, PartialEq)]
pub struct Parsed<'a> {
    /// Half of the identity.
    pub event_id: Uuid,
    /// The other half, with the fleet.
    pub device_id: Cow<'a, str>,
    /// The firmware's version.
    pub firmware: Cow<'a, str>,
    /// The event's own time.
    pub event_time: UnixMicros,
    /// The numbers of `metrics`; of a name that comes twice the last one.
    pub metrics: Vec<(Cow<'a, str>, f64)>,
}

/// Why an event can't be stored.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Parquet strings are UTF-8.
    #[error("the event is not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// Not the JSON we need.
    #[error("the event can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is not what it must be.
    #[error("{field} is not {expected}: {got:?}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
}

impl ParseError {
    /// A stable code for dead letters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Utf8(_) => "not_utf8",
            Self::Json(_) => "unreadable_event",
            Self::Field { .. } => "unreadable_field",
        }
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    device_id: Cow<'a, str>,
    #[serde(borrow)]
    device_firmware_version: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    metrics: Numbers<'a>,
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Numbers<'a>(Vec<(Cow<'a, str>, f64)>);

impl<'de: 'a, 'a> Deserialize<'de> for Numbers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Numbers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut numbers: Vec<(Cow<'de, str>, f64)> = Vec::with_capacity(8);
                // Raw: serde_json's own reading of a float can be off by its last bit.
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    let text = value.get();
                    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
                    let Some(number) = is_number.then(|| text.parse().ok()).flatten() else {
                        continue;
                    };
                    if !f64::is_finite(number) {
                        let error = format!("metric {name:?} is not finite: {text}");
                        return Err(serde::de::Error::custom(error));
                    }
                    match numbers.iter_mut().find(|(known, _)| *known == name) {
                        Some(known) => known.1 = number,
                        None => numbers.push((name, number)),
                    }
                }
                Ok(Numbers(numbers))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Reads an event.
///
/// # Errors
/// When it can't be stored; the same bytes fail every time.
pub fn parse(payload: &[u8]) -> Result<Parsed<'_>, ParseError> {
    let wire: Wire<'_> = serde_json::from_str(std::str::from_utf8(payload)?)?;
    let field = |field, expected, got: &str| ParseError::Field {
        field,
        expected,
        got: got.chars().take(100).collect(),
    };
    let event_id =
        Uuid::try_parse(&wire.event_id).map_err(|_| field("event_id", "a UUID", &wire.event_id))?;
    let event_time = UnixMicros::parse_rfc3339(&wire.timestamp)
        .map_err(|_| field("timestamp", "an RFC 3339 time", &wire.timestamp))?;
    Ok(Parsed {
        event_id,
        device_id: wire.device_id,
        firmware: wire.device_firmware_version,
        event_time,
        metrics: wire.metrics.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6ff0c0c9-1d4c-4b1b-8a0c-0c6e8f6f6c11";

    fn event(metrics: &str) -> String {
        format!(
            r#"{{"event_id":"{ID}","x":[1e999],"device_id":"d\u0031","metrics":{metrics},
                "device_firmware_version":"1.0.0","timestamp":"2026-01-01T00:00:00.5Z"}}"#
        )
    }

    #[test]
    fn the_stored_parts_are_read_and_unknown_ones_passed_over() {
        let text = event(r#"{"cpu_temp":0.1,"a":"text","b":-3,"c":1e-2,"cpu_temp":71.2,"d":null}"#);
        let parsed = parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.event_id.to_string(), ID);
        assert_eq!((&*parsed.device_id, &*parsed.firmware), ("d1", "1.0.0"));
        assert_eq!(parsed.event_time.to_rfc3339(), "2026-01-01T00:00:00.5Z");
        let expected = [("cpu_temp", 71.2), ("b", -3.0), ("c", 0.01)];
        assert_eq!(parsed.metrics, expected.map(|(name, value)| (name.into(), value)));
    }

    #[test]
    fn floats_are_read_to_the_last_bit() {
        for value in
            [0.1 + 0.2, 1.0 / 3.0, f64::MIN_POSITIVE, 5e-324, 1.797e308, 9_007_199_254_740_993.0]
        {
            let text = event(&format!("{{\"m\":{value:e}}}"));
            assert_eq!(parse(text.as_bytes()).unwrap().metrics[0].1.to_bits(), value.to_bits());
        }
    }

    #[test]
    fn what_can_not_be_stored_is_refused_with_a_reason() {
        let good = event("{}");
        let cases = [
            (good.replace(ID, "nope").into_bytes(), "unreadable_field"),
            (good.replace("2026-01-01", "2026-13-01").into_bytes(), "unreadable_field"),
            (good.replace("device_id", "divice_id").into_bytes(), "unreadable_event"),
            (event(r#"{"m":1e999}"#).into_bytes(), "unreadable_event"),
            (event("[]").into_bytes(), "unreadable_event"),
            (b"{".to_vec(), "unreadable_event"),
            (b"{\"a\":\"\xff\"}".to_vec(), "not_utf8"),
        ];
        for (bytes, reason) in cases {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(parse(&bytes).unwrap_err().reason(), reason, "{text}");
        }
    }
}
