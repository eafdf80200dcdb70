//! W3C trace context: the `traceparent` of a request or an event
//! (<https://www.w3.org/TR/trace-context/>).

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The bytes of a context of version 00.
const LEN: usize = 55;

/// The bit of the flags that says that the caller records this trace.
const SAMPLED: u8 = 1;

/// A trace context that can be passed on; an invalid one is ignored, as the standard asks.
///
/// Version 00, and what later versions must begin with: 2, 32, 16 and 2 lower-case hexadecimal
/// digits joined by `-`; version ff and ids of zeros are invalid.
pub fn traceparent(value: &str) -> Option<String> {
    let mut parts = value.split('-');
    let mut part = |digits: usize| {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == digits && part.bytes().all(hex))
    };
    let (version, trace_id, parent_id, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    let valid = version != "ff" && !zero(trace_id) && !zero(parent_id);
    let complete = version != "00" || parts.next().is_none();
    (valid && complete).then(|| value[..LEN].to_owned())
}

/// Whether the trace of a valid context is recorded.
pub(super) fn is_sampled(traceparent: &str) -> bool {
    let flags = traceparent.get(LEN - 2..LEN).and_then(|flags| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & SAMPLED != 0)
}

/// The same trace, for those who come after somebody who does not record it: with the id of a span
/// that nobody has, because who changes the flags must change that, too.
pub(super) fn not_recorded(traceparent: &str) -> String {
    let parent: u64 = rand::random_range(1..=u64::MAX);
    format!("00-{}-{parent:016x}-00", &traceparent[3..35])
}

/// A valid context as the parent of a span.
pub(super) fn parent(traceparent: &str) -> Option<SpanContext> {
    let trace_id = TraceId::from_hex(traceparent.get(3..35)?).ok()?;
    let span_id = SpanId::from_hex(traceparent.get(36..52)?).ok()?;
    Some(SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, TraceState::NONE))
}

/// What those who come after a recorded span are told.
pub(super) fn of_span(context: &SpanContext) -> String {
    format!("00-{}-{}-{SAMPLED:02x}", context.trace_id(), context.span_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn trace_contexts_are_kept_or_ignored_as_the_standard_says() {
        assert_eq!(traceparent(VALID).as_deref(), Some(VALID));
        let later = VALID.replacen("00", "cc", 1);
        assert_eq!(traceparent(&format!("{later}-what-comes")).as_deref(), Some(later.as_str()));
        for invalid in [
            "",
            "00",
            &format!("{VALID}-more"),
            &VALID.replacen("00", "ff", 1),
            &VALID.to_uppercase(),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            &VALID.replace("-01", ""),
            &VALID.replace("-01", "-0"),
        ] {
            assert_eq!(traceparent(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_context_goes_on_recorded_or_not() {
        assert!(is_sampled(VALID));
        let parent = parent(VALID).expect("a parent");
        assert_eq!(of_span(&parent), VALID);
        let dark = not_recorded(VALID);
        assert!(!is_sampled(&dark));
        assert_eq!(traceparent(&dark).as_deref(), Some(dark.as_str()));
        assert_eq!((&dark[3..35], dark[36..52] == VALID[36..52]), (&VALID[3..35], false));
    }
}
