//! The raw writer's metrics.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// All of them, `penstock_raw_…`.
#[derive(Clone, Debug)]
pub struct RawMetrics {
    /// Events in published files.
    pub events: IntCounter,
    /// Published files.
    pub files: IntCounter,
    /// Bytes of published files.
    pub file_bytes: IntCounter,
    /// From the decision to flush to the publication, in seconds.
    pub flush_seconds: Histogram,
    /// Records sent to dead letters, by reason.
    pub poison: IntCounterVec,
    /// Failed tries of a step of a flush, by step.
    pub retries: IntCounterVec,
    /// Publications refused because another owner has the partitions.
    pub fenced: IntCounter,
    /// Memory of the batch being filled.
    pub batch_bytes: IntGauge,
    /// Files abandoned by the sweep.
    pub abandoned: IntCounter,
}

impl RawMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("penstock_raw_{name}"), help);
        let counter = |name, help| add(registry, IntCounter::with_opts(opts(name, help))?);
        let by = |name, help, label| add(registry, IntCounterVec::new(opts(name, help), &[label])?);
        let seconds = HistogramOpts::new(
            "penstock_raw_flush_seconds",
            "From the decision to flush to the publication",
        )
        .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]);
        Ok(Self {
            events: counter("events_total", "Events in published files")?,
            files: counter("files_total", "Published files")?,
            file_bytes: counter("file_bytes_total", "Bytes of published files")?,
            flush_seconds: add(registry, Histogram::with_opts(seconds)?)?,
            poison: by("poison_total", "Records sent to dead letters", "reason")?,
            retries: by("retries_total", "Failed tries of a step of a flush", "step")?,
            fenced: counter("fenced_total", "Publications refused: another owner")?,
            batch_bytes: add(
                registry,
                IntGauge::with_opts(opts("batch_bytes", "Memory of the batch being filled"))?,
            )?,
            abandoned: counter("abandoned_files_total", "Unfinished files given up")?,
        })
    }
}

fn add<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
