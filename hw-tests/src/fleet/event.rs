//! Renders one event as the bytes that a device sends.

use std::io::Write;

use penstock_common::event::UnixMicros;

use super::fault::Fault;
use super::metric::Reading;

/// What one event says.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) event_id: uuid::Uuid,
    pub(super) device_id: &'a str,
    pub(super) firmware: &'a str,
    pub(super) timestamp: UnixMicros,
    pub(super) metrics: &'a [Reading],
    pub(super) extras: Extras,
    pub(super) fault: Option<Fault>,
}

/// Optional parts of an event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    /// Free-form diagnostics: uptime in seconds.
    pub(super) diagnostics_uptime_s: Option<u32>,
    /// A top-level field and a metric that no schema knows, and unusual white space.
    pub(super) unknown_fields: bool,
}

/// Appends the event's bytes to `out`.
pub(super) fn render(draft: &Draft<'_>, out: &mut Vec<u8>) {
    let is = |fault| draft.fault == Some(fault);
    out.push(b'{');
    if is(Fault::BadEventId) {
        put(out, format_args!(r#""event_id":"event-{}""#, draft.event_id.simple()));
    } else {
        put(out, format_args!(r#""event_id":"{}""#, draft.event_id));
    }
    if !is(Fault::MissingDeviceId) {
        put(out, format_args!(r#","device_id":"{}""#, draft.device_id));
    }
    let firmware = if is(Fault::UnknownFirmware) { "9.9.9" } else { draft.firmware };
    put(out, format_args!(r#","device_firmware_version":"{firmware}""#));
    if is(Fault::BadTimestamp) {
        out.extend_from_slice(br#","timestamp":"yesterday at noon""#);
    } else if !is(Fault::MissingTimestamp) {
        put(out, format_args!(r#","timestamp":"{}""#, draft.timestamp.to_rfc3339()));
    }
    if draft.extras.unknown_fields {
        // White space and an escape that a parser that re-serializes would not keep.
        out.extend_from_slice(br#", "site" : "hall \u00e9 2""#);
    }
    metrics(draft, out);
    if let Some(uptime_s) = draft.extras.diagnostics_uptime_s {
        put(out, format_args!(r#","diagnostics":{{"uptime_s":{uptime_s},"link":"ok"}}"#));
    }
    // A line that ends too early: only a line-delimited body can hold one and stay readable.
    if !is(Fault::BrokenLine) {
        out.push(b'}');
    }
}

fn metrics(draft: &Draft<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","metrics":{"#);
    for (position, reading) in draft.metrics.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        let name = reading.name;
        if position == 0 && draft.fault == Some(Fault::WrongType) {
            put(out, format_args!(r#""{name}":"warm""#));
        } else if position == 0 && draft.fault == Some(Fault::OutOfRange) {
            put(out, format_args!(r#""{name}":90000"#));
        } else {
            // Fixed point: f64 formatting would cost more than everything else here.
            let (whole, cents) = (reading.hundredths / 100, reading.hundredths % 100);
            put(out, format_args!(r#""{name}":{whole}.{cents:02}"#));
        }
    }
    if draft.extras.unknown_fields {
        out.extend_from_slice(br#","oil_level":0.50e0"#);
    }
    out.push(b'}');
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A Vec takes every write.
    let _ = out.write_fmt(text);
}
