//! The rollups' metrics.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Those of the stream, `penstock_rollup_…`.
#[derive(Clone, Debug)]
pub struct RollupMetrics {
    /// Events, by what became of them.
    pub events: IntCounterVec,
    /// Metrics of events that no schema of their version knows.
    pub unknown_metrics: IntCounter,
    /// Rows written that were new or changed.
    pub rows: IntCounter,
    /// Rows that the store refused because it has fuller ones.
    pub refused: IntCounter,
    /// Hours marked to be rebuilt.
    pub marks: IntCounter,
    /// Failed tries of a step of a flush, by step.
    pub retries: IntCounterVec,
    /// From the decision to flush to its end, in seconds.
    pub flush_seconds: Histogram,
    /// Devices in memory.
    pub devices: IntGauge,
    /// Open minutes in memory.
    pub minutes: IntGauge,
    /// Events remembered.
    pub remembered: IntGauge,
    /// Memory of all that, about.
    pub memory_bytes: IntGauge,
}

impl RollupMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("penstock_rollup_{name}"), help);
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::with_opts(opts(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let by = |name, help, label| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(opts(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::with_opts(opts(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let seconds =
            HistogramOpts::new("penstock_rollup_flush_seconds", "From the decision to its end")
                .buckets(vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]);
        let flush_seconds = Histogram::with_opts(seconds)?;
        registry.register(Box::new(flush_seconds.clone()))?;
        Ok(Self {
            events: by("events_total", "Events, by what became of them", "outcome")?,
            unknown_metrics: counter("unknown_metrics_total", "Metrics that their schema lacks")?,
            rows: counter("rows_total", "Minute rows written that were new or changed")?,
            refused: counter("refused_rows_total", "Rows refused for fuller ones")?,
            marks: counter("marks_total", "Hours of devices marked to be rebuilt")?,
            retries: by("retries_total", "Failed tries of a step of a flush", "step")?,
            flush_seconds,
            devices: gauge("devices", "Devices in memory")?,
            minutes: gauge("open_minutes", "Open minutes in memory")?,
            remembered: gauge("remembered_events", "Events remembered in memory")?,
            memory_bytes: gauge("memory_bytes", "Memory of devices, minutes and events, about")?,
        })
    }
}
