//! What was measured, as a table beside what is wanted.

use std::fmt;
use std::time::Duration;

use anyhow::ensure;

/// Baseline of the whole installation (spec L1), events/s.
const REAL_TIME: f64 = 5_000.0;

/// What is on the topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    pub(super) events: u64,
    pub(super) payload_bytes: u64,
    /// None where the broker is not the private one.
    pub(super) kafka_bytes: Option<u64>,
    pub(super) took: Duration,
}

/// What a part took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
    pub(super) memory_bytes_max: u64,
}

pub(super) struct Raw {
    pub(super) cost: Cost,
    pub(super) files: i64,
    pub(super) rows: i64,
    pub(super) bytes: i64,
}

pub(super) struct Compaction {
    pub(super) cost: Cost,
    pub(super) rows: i64,
    pub(super) bytes: i64,
}

pub(super) struct Rollup {
    pub(super) cost: Cost,
    /// Rows of hours, days and fleets written meanwhile.
    pub(super) merged: i64,
    /// Minute rows written, by the stream's own count.
    pub(super) rows: i64,
    /// Minute rows of devices and fleets in the table, and the bytes of its partitions.
    pub(super) stored: i64,
    pub(super) bytes: i64,
    pub(super) state_bytes: u64,
    pub(super) devices: u64,
}

pub(super) struct Rebuild {
    pub(super) cost: Cost,
}

pub(super) struct Report {
    pub(super) filled: Filled,
    pub(super) raw: Raw,
    pub(super) compaction: Compaction,
    pub(super) rollup: Rollup,
    pub(super) rebuild: Rebuild,
    pub(super) all: Cost,
}

impl Report {
    /// Fails unless every event is stored. That the rollups count each once was waited for.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let events = i64::try_from(self.filled.events)?;
        ensure!(self.raw.rows == events, "{} of {events} events stored", self.raw.rows);
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.filled.events as f64;
        let (raw, rollup, all) = (&self.raw, &self.rollup, &self.all);
        let per_core = |cost: &Cost| events / cost.cpu.as_secs_f64().max(1e-9);
        let per_second = |n: f64, time: Duration| n / time.as_secs_f64().max(1e-9);
        let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
        let each = |bytes: f64, n: f64| format!("{:.0} B", bytes / n.max(1.0));
        let mut row = |name: &str, value: String, wanted: &str| {
            writeln!(f, "{name:<44}{value:>22}  {wanted}").map(drop)
        };
        row("", "measured".into(), "wanted")?;
        row("events on the topic", format!("{events:.0}"), "")?;
        row("written to it", format!("{:.0}/s", per_second(events, self.filled.took)), "")?;
        row("payload of an event", each(self.filled.payload_bytes as f64, events), "")?;
        let kafka = self.filled.kafka_bytes.map_or_else(|| "?".into(), |n| each(n as f64, events));
        row("  in Kafka (lz4)", kafka, "")?;
        row("  in Parquet, staged", each(raw.bytes as f64, raw.rows as f64), "")?;
        let compaction = &self.compaction;
        row("  in Parquet, compacted", each(compaction.bytes as f64, compaction.rows as f64), "")?;
        row("raw writer, one core", format!("{:.0} events/s", per_core(&raw.cost)), "200,000")?;
        row("  wall", format!("{:.0} events/s", per_second(events, raw.cost.wall)), "")?;
        row(
            "  files, memory at most",
            format!("{}, {}", raw.files, mib(raw.cost.memory_bytes_max)),
            "",
        )?;
        let compacted = compaction.rows as f64;
        row(
            "compaction, one core",
            format!("{:.0} rows/s", per_second(compacted, compaction.cost.cpu)),
            "",
        )?;
        row("  memory at most", mib(compaction.cost.memory_bytes_max), "")?;
        row("aggregator, one core", format!("{:.0} events/s", per_core(&rollup.cost)), "300,000")?;
        row("  wall", format!("{:.0} events/s", per_second(events, rollup.cost.wall)), "")?;
        row(
            "  minute rows into PostgreSQL, wall",
            format!("{:.0} rows/s", per_second(rollup.rows as f64, rollup.cost.wall)),
            "",
        )?;
        row("  bytes of a minute row", each(rollup.bytes as f64, rollup.stored as f64), "")?;
        row(
            "  memory at most (process / open state)",
            format!("{} / {}", mib(rollup.cost.memory_bytes_max), mib(rollup.state_bytes)),
            "1024 MiB",
        )?;
        row("  devices", format!("{}", rollup.devices), "")?;
        row("  rows of hours and fleets, in the same time", rollup.merged.to_string(), "")?;
        let rebuild = &self.rebuild.cost;
        row(
            "rebuild of 1 h x 1,000 devices: wall, CPU",
            format!("{:.1} s, {:.1} s", rebuild.wall.as_secs_f64(), rebuild.cpu.as_secs_f64()),
            "30 s",
        )?;
        row("  memory at most", mib(rebuild.memory_bytes_max), "")?;
        let pace = per_second(events, all.wall);
        row("all roles, catching up, wall", format!("{pace:.0} events/s"), "")?;
        row("  as a multiple of 5,000/s", format!("{:.1} x", pace / REAL_TIME), "10 x")?;
        row("  one core", format!("{:.0} events/s", per_core(all)), "")?;
        row("  memory at most", mib(all.memory_bytes_max), "")?;
        write!(f, "stored {} of {:.0}", raw.rows, events)
    }
}
