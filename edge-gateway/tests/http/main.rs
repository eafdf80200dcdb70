//! The listener on real sockets (spec I1–I3, I5): what devices send, right and wrong, and what
//! they are told; what is in the spool afterwards.

mod access;
mod bad;
mod client;
mod contract;
mod good;
mod keys;
mod load;
mod rude;
mod server;
mod tls;

/// A valid event with this last part of its event id.
fn event(number: usize) -> String {
    format!(
        r#"{{"event_id":"018f3c2a-7b1e-7c3d-9a4f-{number:012x}","device_id":"press-{number}","device_firmware_version":"1.4.2","timestamp":"2026-01-15T08:30:00Z","metrics":{{"cpu_temp":61.5,"vibration_rms":2.31,"supply_voltage":23.9}}}}"#
    )
}

fn array(count: usize) -> String {
    format!("[{}]", (0..count).map(event).collect::<Vec<_>>().join(","))
}
