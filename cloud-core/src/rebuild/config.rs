//! Settings of the rebuild.

use serde::Deserialize;

/// How rollups are recomputed from raw events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RebuildConfig {
    /// Hours worked on at the same time.
    pub parallel: usize,
    /// Devices of an hour worked on at once.
    pub devices_max: usize,
    /// Events held in memory for one hour's devices; with more of them it takes fewer devices.
    pub events_max: usize,
    /// How long a mark waits for more of the same.
    pub delay_ms: u64,
    /// How long a mark waits for its device to be closed, before its minutes are rebuilt anyway
    /// (and again when the device is closed).
    pub settle_ms: u64,
    /// How often marks are looked for when there were none.
    pub poll_ms: u64,
    /// A worker that says nothing for so long has lost its marks to another.
    pub lease_ms: u64,
}

impl Default for RebuildConfig {
    fn default() -> Self {
        Self {
            parallel: 2,
            devices_max: 1_000,
            events_max: 1_000_000,
            delay_ms: 5_000,
            settle_ms: 60_000,
            poll_ms: 1_000,
            lease_ms: 180_000,
        }
    }
}

impl RebuildConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut within = |name: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("rebuild.{name}: {least} to {most}"));
            }
        };
        within("parallel", self.parallel as u64, 1, 64);
        within("devices_max", self.devices_max as u64, 1, 100_000);
        within("events_max", self.events_max as u64, 1_000, 100_000_000);
        within("delay_ms", self.delay_ms, 0, 3_600_000);
        within("settle_ms", self.settle_ms, 0, 86_400_000);
        within("poll_ms", self.poll_ms, 10, 60_000);
        within("lease_ms", self.lease_ms, 10_000, 86_400_000);
    }
}
