//! The MQTT side (spec I12, I5, I6, N1): before a real mosquitto, and before a broker that does
//! what a test tells it to.

mod check;
mod faults;
mod gateway;
mod mosquitto;
mod publisher;
mod random;
mod real;
mod refusals;
mod scripted;
mod status;
mod tls;

use std::time::Duration;

/// Longer than anything takes here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A valid event of that device with this last part of its event id.
fn event(device: &str, number: usize) -> String {
    format!(
        r#"{{"event_id":"018f3c2a-7b1e-7c3d-9a4f-{number:012x}","device_id":"{device}","device_firmware_version":"1.4.2","timestamp":"2026-01-15T08:30:00Z","metrics":{{"cpu_temp":61.5,"vibration_rms":2.31,"supply_voltage":23.9}}}}"#
    )
}

/// The number in an event's id.
fn number_of(payload: &[u8]) -> usize {
    let event: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let id = event["event_id"].as_str().unwrap();
    usize::from_str_radix(&id[24..], 16).unwrap()
}

/// Waits until `done` says so.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}
