//! The spool's numbers as metrics, read from the spool at each scrape.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge, Registry};

use crate::spool::{SpoolHandle, SpoolStat};

/// Registers the spool's metrics.
///
/// # Errors
/// When they are registered already.
pub fn register(registry: &Registry, spool: SpoolHandle) -> prometheus::Result<()> {
    let found_entries = spool.stat().pending_entries;
    registry.register(Box::new(SpoolCollector { spool, found_entries, described: collect(None)? }))
}

struct SpoolCollector {
    spool: SpoolHandle,
    /// Entries that waited when it was opened.
    found_entries: u64,
    described: Vec<Box<dyn Collector>>,
}

impl Collector for SpoolCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().flat_map(|metric| metric.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Some((&self.spool.stat(), self.found_entries));
        let metrics = collect(now).unwrap_or_default();
        metrics.iter().flat_map(|metric| metric.collect()).collect()
    }
}

type Read = fn(&SpoolStat) -> u64;

const GAUGES: [(&str, &str, Read); 16] = [
    ("penstock_spool_disk_bytes", "Bytes of all segments on disk", |stat| stat.disk_bytes),
    ("penstock_spool_max_bytes", "The configured limit of those", |stat| stat.bytes_max),
    ("penstock_spool_soft_bytes", "Above this the gateway asks for less", |stat| {
        stat.usage.soft_bytes
    }),
    ("penstock_spool_hard_bytes", "Above this the oldest events give way", |stat| {
        stat.usage.hard_bytes
    }),
    ("penstock_spool_dead_bytes", "Bytes of the dead lane on disk", |stat| stat.usage.dead_bytes),
    ("penstock_spool_dead_pending_entries", "Entries in the dead lane", |stat| {
        stat.dead_pending_entries
    }),
    (
        "penstock_spool_dead_full",
        "1 while the oldest can't give way: the dead lane is full",
        |stat| u64::from(stat.is_dead_full),
    ),
    ("penstock_spool_locked_segments", "Segments whose key or later program is missing", |stat| {
        stat.locked_segments
    }),
    ("penstock_spool_locked_entries", "Entries in them", |stat| stat.locked_entries),
    ("penstock_spool_segments", "Segment files", |stat| stat.segments as u64),
    ("penstock_spool_queue_bytes", "Bytes that wait in memory for the disk", |stat| {
        stat.queue_bytes
    }),
    ("penstock_spool_pending_entries", "Entries synced and not acknowledged by the bus", |stat| {
        stat.pending_entries
    }),
    ("penstock_spool_next_seq", "The number after the last synced entry of this epoch", |stat| {
        stat.next_seq
    }),
    (
        "penstock_spool_oldest_received_timestamp_seconds",
        "When the oldest entry being forwarded was received, as Unix time; 0: none",
        |stat| stat.oldest_received_at.map_or(0, |time| time.0.unsigned_abs() / 1_000_000),
    ),
    ("penstock_spool_damaged_entries", "Entries known to be lost to damage", |stat| {
        stat.damaged_entries
    }),
    ("penstock_spool_failing", "1 while the disk refuses writes", |stat| {
        u64::from(stat.is_failing)
    }),
];

const COUNTERS: [(&str, &str, Read); 10] = [
    ("penstock_spool_evicted_entries_total", "Entries that gave way to newer ones", |stat| {
        stat.evicted_entries_total
    }),
    ("penstock_spool_evicted_segments_total", "Segments that gave way to newer ones", |stat| {
        stat.evicted_segments_total
    }),
    ("penstock_spool_eviction_errors_total", "Moves to the dead lane that failed", |stat| {
        stat.eviction_errors_total
    }),
    ("penstock_spool_committed_entries_total", "Entries made durable", |stat| {
        stat.committed_entries_total
    }),
    ("penstock_spool_commits_total", "Syncs that made them durable", |stat| {
        stat.committed_groups_total
    }),
    ("penstock_spool_committed_plain_bytes_total", "Bytes before compression", |stat| {
        stat.committed_plain_bytes_total
    }),
    ("penstock_spool_committed_record_bytes_total", "Bytes written to disk", |stat| {
        stat.committed_record_bytes_total
    }),
    (
        "penstock_spool_commit_micros_total",
        "Microseconds spent compressing, writing and syncing",
        |stat| stat.commit_micros_total,
    ),
    ("penstock_spool_disk_errors_total", "Commit groups that the disk refused", |stat| {
        stat.disk_errors_total
    }),
    ("penstock_spool_refused_full_total", "Submissions refused because it was full", |stat| {
        stat.refused_full_total
    }),
];

/// All metrics with the values of `now` (and what was found at the opening), or zero.
fn collect(now: Option<(&SpoolStat, u64)>) -> prometheus::Result<Vec<Box<dyn Collector>>> {
    let (stat, found) = now.unzip();
    let mut metrics: Vec<Box<dyn Collector>> = Vec::with_capacity(GAUGES.len() + COUNTERS.len());
    for (name, help, read) in GAUGES {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(stat.map_or(0, read)).unwrap_or(i64::MAX));
        metrics.push(Box::new(gauge));
    }
    for (name, help, read) in COUNTERS {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(stat.map_or(0, read));
        metrics.push(Box::new(counter));
    }
    let found = found.unwrap_or_default();
    let gauge = IntGauge::new(
        "penstock_spool_found_entries",
        "Entries that waited in the spool when it was opened",
    )?;
    gauge.set(i64::try_from(found).unwrap_or(i64::MAX));
    metrics.push(Box::new(gauge));
    let retired = IntCounter::new(
        "penstock_spool_retired_entries_total",
        "Entries that the bus acknowledged, or that are damaged, since the spool was opened: \
         found + committed - pending",
    )?;
    let came = stat.map_or(0, |stat| found + stat.committed_entries_total);
    retired.inc_by(came.saturating_sub(stat.map_or(0, |stat| stat.pending_entries)));
    metrics.push(Box::new(retired));
    Ok(metrics)
}
