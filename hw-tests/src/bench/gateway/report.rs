//! What was measured, beside what is wanted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::load::Load;
use crate::demo::progress::millis;
use crate::fleet::{Latency, Tally};
use crate::stack::process::Usage;

/// One load.
pub(super) struct LoadReport {
    pub(super) load: Load,
    /// From the first intended send to the last answer.
    pub(super) took: Duration,
    /// And to the last acknowledgement of the broker.
    pub(super) drained: Duration,
    pub(super) tally: Arc<Tally>,
    pub(super) bare_sync: Latency,
    pub(super) usage: Usage,
    /// Of the events as they came, headers of the record included.
    pub(super) plain_bytes: f64,
    pub(super) record_bytes: f64,
    pub(super) commits: f64,
    pub(super) memory_bytes_max: u64,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, tally, .. } = self;
        let events = tally.accepted.get().max(1) as f64;
        let ack = tally.latencies();
        let three = |latency: Latency| {
            let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(millis);
            format!("p50 {p50}  p99 {p99}  max {max}")
        };
        writeln!(f, "-- {} at {}/s for {} s", load.name, load.rate, load.seconds)?;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<36}{value}");
        let pace = events / self.took.as_secs_f64();
        let (throttled, failed) = (tally.throttled.get(), tally.server_errors.get());
        row("events/s", format!("{pace:.0}, 429: {throttled}, 5xx: {failed}"))?;
        let cpu = self.usage.cpu.as_secs_f64();
        let requests = tally.requests.get().max(1) as f64;
        row(
            "CPU",
            format!(
                "{:.2} µs an event, {:.1} µs a request",
                cpu / events * 1e6,
                cpu / requests * 1e6
            ),
        )?;
        let drained = events / self.drained.as_secs_f64();
        row(
            "events/s per core",
            format!("{:.0} by CPU time; {drained:.0}/s reached Kafka", events / cpu.max(1e-9)),
        )?;
        // Where requests wait for their turn, the time since that was due says nothing.
        if !load.is_saturating {
            row("acknowledgement", three(ack))?;
            let ratio = ack.p99.as_secs_f64() / self.bare_sync.p99.as_secs_f64().max(1e-9);
            row("ratio of the p99", format!("{ratio:.1}"))?;
        }
        row("bare write + fdatasync, same disk", three(self.bare_sync))?;
        row("events a commit", format!("{:.1}", events / self.commits.max(1.0)))?;
        let written = self.usage.written_bytes as f64;
        row(
            "bytes an event",
            format!(
                "{:.0} plain, {:.0} in records, {:.0} written to the disk",
                self.plain_bytes / events,
                self.record_bytes / events,
                written / events
            ),
        )?;
        row(
            "written per payload byte",
            format!(
                "{:.2} of the plain bytes, {:.2} of the records",
                written / self.plain_bytes.max(1.0),
                written / self.record_bytes.max(1.0)
            ),
        )?;
        row("memory, the most so far", format!("{} MiB", self.memory_bytes_max >> 20))?;
        write!(f, "accepted {events}, all on the topic")
    }
}

/// The backlog.
pub(super) struct BacklogReport {
    pub(super) events: u64,
    pub(super) record_bytes: u64,
    pub(super) filled_in: Duration,
    pub(super) started_in: Duration,
    pub(super) started_cold_in: Duration,
    /// From the broker's first acknowledgement to its last.
    pub(super) drained_in: Duration,
    /// Of the gateway, for the drain.
    pub(super) cpu: Duration,
    /// The most memory of each life, bytes.
    pub(super) memory_filling: u64,
    pub(super) memory_started: u64,
    pub(super) memory_draining: u64,
}

impl fmt::Display for BacklogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.record_bytes as f64 / 1e6;
        let pace = |took: Duration| megabytes / took.as_secs_f64().max(1e-9);
        writeln!(f, "-- a backlog of {megabytes:.0} MB, {} events", self.events)?;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<36}{value}");
        row("filled", format!("{:.0} MB/s", pace(self.filled_in)))?;
        row(
            "start with it",
            format!(
                "{} after a kill, {} with no file in memory",
                millis(self.started_in),
                millis(self.started_cold_in)
            ),
        )?;
        let cores = self.cpu.as_secs_f64() / self.drained_in.as_secs_f64().max(1e-9);
        row("cold drain", format!("{:.0} MB/s, {cores:.1} cores", pace(self.drained_in)))?;
        row(
            "memory, the most",
            format!(
                "filling {} MiB, after the start {} MiB, draining {} MiB",
                self.memory_filling >> 20,
                self.memory_started >> 20,
                self.memory_draining >> 20
            ),
        )?;
        write!(f, "accepted {}, all on the topic", self.events)
    }
}
