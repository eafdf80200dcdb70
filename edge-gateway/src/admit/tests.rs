//! Admission on whole bodies: the sample set, every bad input, and random ones.

mod bodies;
mod entries;
mod random;
mod samples;

use std::sync::OnceLock;

use super::*;

/// Shortly after the samples were "measured": 2026-01-15T08:31:00Z.
const RECEIVED_AT: UnixMicros = UnixMicros(1_768_465_860_000_000);

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn admitter() -> &'static Admitter {
    static ADMITTER: OnceLock<Admitter> = OnceLock::new();
    ADMITTER.get_or_init(|| Admitter::new(SchemaSet::baked().unwrap(), "plant-7".into()))
}

fn request<'a>(content_type: &'a str, body: impl Into<Bytes>) -> Request<'a> {
    Request {
        content_type: Some(content_type),
        content_encoding: None,
        received_at: RECEIVED_AT,
        is_clock_set: true,
        traceparent: None,
        topic: None,
        body: body.into(),
    }
}

fn admit(content_type: &str, body: impl Into<Bytes>) -> Result<Admission, Refusal> {
    let admission = admitter().admit(request(content_type, body))?;
    check(&admission);
    Ok(admission)
}

/// What holds for every admission.
fn check(admission: &Admission) {
    assert_eq!(admission.entries.len(), admission.outcomes.len());
    assert!(!admission.outcomes.is_empty());
    for (position, (entry, outcome)) in
        admission.entries.iter().zip(&admission.outcomes).enumerate()
    {
        assert!(admission.unreadable || outcome.index == position);
        match (entry, &outcome.verdict) {
            (Entry::Event(event), Verdict::Accepted { event_id }) => {
                let value: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
                let id = value["event_id"].as_str().unwrap().to_lowercase();
                assert_eq!(id, event_id.to_string());
                assert_eq!(value["device_id"], event.device_id.as_str());
            }
            (Entry::DeadLetter(letter), Verdict::Rejected(rejection)) => {
                assert_eq!(letter.reason, rejection.reason.as_str());
                assert_eq!(letter.stage, "gateway.admit");
                assert!(!rejection.errors.is_empty() && rejection.errors.len() <= ERRORS_MAX);
                let detail: serde_json::Value = serde_json::from_str(&letter.detail).unwrap();
                assert_eq!(detail["index"], outcome.index);
                let errors = detail["errors"].as_array().unwrap();
                assert_eq!(errors.len(), rejection.errors.len());
            }
            (entry, verdict) => panic!("{verdict:?} became {entry:?}"),
        }
    }
}

/// The only rejection of a body with one event.
fn rejection(body: impl Into<Bytes>) -> Rejection {
    let admission = admit(JSON, body).unwrap();
    assert_eq!(admission.outcomes.len(), 1);
    admission.outcomes[0].rejection().expect("accepted").clone()
}

/// A valid event with this last part of its event id.
fn event(number: usize) -> String {
    format!(
        r#"{{"event_id":"018f3c2a-7b1e-7c3d-9a4f-{number:012x}","device_id":"press-{number}","device_firmware_version":"1.4.2","timestamp":"2026-01-15T08:30:00Z","metrics":{{"cpu_temp":61.5,"vibration_rms":2.31,"supply_voltage":23.9}}}}"#
    )
}

fn events(count: usize) -> Vec<String> {
    (0..count).map(event).collect()
}

/// The reasons of all outcomes, `None` for accepted ones.
fn reasons(admission: &Admission) -> Vec<Option<Reason>> {
    admission.outcomes.iter().map(|o| o.rejection().map(|rejection| rejection.reason)).collect()
}

/// Replaces text that must be there.
fn with(from: &str, to: &str) -> String {
    let event = event(1);
    assert!(event.contains(from), "{from}");
    event.replacen(from, to, 1)
}
