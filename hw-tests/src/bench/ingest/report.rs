//! What was measured, as a table.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::demo::progress::millis;
use crate::fleet::{Latency, Tally};
use crate::oracle::verdict::Verdict;
use crate::stack::process::Usage;

pub(super) struct Report {
    pub(super) rate_wanted: f64,
    pub(super) batch: usize,
    /// From the first intended send to the last answer.
    pub(super) took: Duration,
    pub(super) tally: Arc<Tally>,
    pub(super) bare_sync: Latency,
    pub(super) load_generator: Usage,
    pub(super) gateway: Usage,
    pub(super) core: Usage,
    pub(super) spool_bytes: u64,
    /// None where the broker is not the private one.
    pub(super) kafka_bytes: Option<u64>,
    pub(super) parquet_bytes: u64,
    pub(super) rows: u64,
    pub(super) files: u64,
    pub(super) verdict: Verdict,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.verdict.accepted.max(1) as f64;
        let ack = self.tally.latencies();
        let achieved = self.verdict.accepted as f64 / self.took.as_secs_f64();
        let three = |latency: Latency| {
            let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(millis);
            format!("p50 {p50}  p99 {p99}  max {max}")
        };
        let mut row = |name: &str, value: String| writeln!(f, "{name:<36}{value}");
        row("rate", format!("{achieved:.0} events/s ({:.0} wanted)", self.rate_wanted))?;
        row("requests", format!("{} of {} events", self.tally.requests.get(), self.batch))?;
        row("answered 429 / 5xx / broken", {
            let tally = &self.tally;
            let broken = tally.broken.get() + tally.timed_out.get();
            format!("{} / {} / {broken}", tally.throttled.get(), tally.server_errors.get())
        })?;
        row("acknowledgement", three(ack))?;
        row("bare write + fdatasync, same disk", three(self.bare_sync))?;
        row(
            "ratio of the p99",
            format!("{:.1}", ack.p99.as_secs_f64() / self.bare_sync.p99.as_secs_f64().max(1e-9)),
        )?;
        let cpu =
            |usage: Usage| format!("{:.2} µs an event", usage.cpu.as_secs_f64() * 1e6 / events);
        row("CPU of the gateway", cpu(self.gateway))?;
        row("CPU of the core", cpu(self.core))?;
        row("CPU of the load generator", cpu(self.load_generator))?;
        let bytes = |bytes: u64| format!("{:.0} B an event", bytes as f64 / events);
        row("spool, its records", bytes(self.spool_bytes))?;
        row("spool, all that reached the disk", bytes(self.gateway.written_bytes))?;
        let kafka = self.kafka_bytes.map_or("unknown: not the private broker".into(), bytes);
        row("Kafka, raw-events", kafka)?;
        let parquet = self.parquet_bytes as f64 / self.rows.max(1) as f64;
        row(
            "Parquet",
            format!("{parquet:.0} B a row, {} rows in {} files", self.rows, self.files),
        )?;
        write!(f, "{}", self.verdict)
    }
}
