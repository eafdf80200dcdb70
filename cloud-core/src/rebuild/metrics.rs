//! What the rebuild counts.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// Clones share the numbers.
#[derive(Clone)]
pub struct RebuildMetrics {
    /// Hours of devices to be rebuilt.
    pub marks: IntGauge,
    /// Those that were, and are to be confirmed when their devices are closed.
    pub parked: IntGauge,
    /// The age of the oldest that waits.
    pub oldest_age: Gauge,
    /// Hours of devices rebuilt.
    pub rebuilt: IntCounter,
    /// Rows written.
    pub rows_changed: IntCounter,
    /// Rows deleted.
    pub rows_deleted: IntCounter,
    /// Hours of devices left as they are, because raw is no longer kept whole.
    pub refused: IntCounter,
    /// Copies of events read.
    pub copies: IntCounter,
    /// Rebuilds to be tried again.
    pub failures: IntCounter,
    /// Time of one rebuild of an hour's devices.
    pub seconds: Histogram,
}

impl RebuildMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(format!("penstock_rebuild_{name}_total"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(format!("penstock_rebuild_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let oldest = "Age of the oldest hour that waits to be rebuilt";
        let oldest_age = Gauge::new("penstock_rebuild_oldest_age_seconds", oldest)?;
        registry.register(Box::new(oldest_age.clone()))?;
        let seconds = "Time of one rebuild of an hour's devices";
        let seconds = Histogram::with_opts(
            HistogramOpts::new("penstock_rebuild_seconds", seconds)
                .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            marks: gauge("marks", "Hours of devices that wait to be rebuilt")?,
            parked: gauge("parked_marks", "Rebuilt, to be confirmed when the device is closed")?,
            oldest_age,
            rebuilt: counter("device_hours", "Hours of devices rebuilt")?,
            rows_changed: counter("rows_changed", "Minute rows written")?,
            rows_deleted: counter("rows_deleted", "Minute rows deleted")?,
            refused: counter("refused", "Hours left as they are: raw is no longer kept whole")?,
            copies: counter("events_read", "Copies of events read")?,
            failures: counter("failures", "Rebuilds to be tried again")?,
            seconds,
        })
    }
}
