//! What is known about the snapshot.

use penstock_common::event::UnixMicros;
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::{Current, Origin};

/// The snapshot's metrics.
#[derive(Clone)]
pub struct SnapshotMetrics {
    /// Files that were taken.
    pub taken: IntCounter,
    /// Files that could not be used.
    pub refused: IntCounter,
    /// 1 while the file can't be used.
    pub faulty: IntGauge,
    made: IntGauge,
    age: IntGauge,
    keys: IntGauge,
    origin: IntGaugeVec,
}

impl SnapshotMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| IntGauge::new(name, help);
        let metrics = Self {
            taken: IntCounter::new("penstock_snapshot_taken_total", "Snapshot files taken")?,
            refused: IntCounter::new(
                "penstock_snapshot_refused_total",
                "Snapshot files that could not be used",
            )?,
            faulty: gauge(
                "penstock_snapshot_faulty",
                "1 while the snapshot file can't be used and an older one holds",
            )?,
            made: gauge(
                "penstock_snapshot_made_timestamp_seconds",
                "When the snapshot in use was made, as Unix time; 0: the built-in one",
            )?,
            age: gauge(
                "penstock_snapshot_age_seconds",
                "How old the snapshot in use is by the gateway's clock; 0: the built-in one",
            )?,
            keys: gauge("penstock_snapshot_keys", "Keys that are good now")?,
            origin: IntGaugeVec::new(
                Opts::new("penstock_snapshot_origin", "1 for where the snapshot in use came from"),
                &["origin"],
            )?,
        };
        registry.register(Box::new(metrics.taken.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.faulty.clone()))?;
        registry.register(Box::new(metrics.made.clone()))?;
        registry.register(Box::new(metrics.age.clone()))?;
        registry.register(Box::new(metrics.keys.clone()))?;
        registry.register(Box::new(metrics.origin.clone()))?;
        Ok(metrics)
    }

    /// Shows the one in use.
    pub(super) fn show(&self, current: &Current, now: UnixMicros) {
        self.made.set(current.made_at.map_or(0, |made_at| made_at.as_second()));
        self.age.set(current.age_s(now).unwrap_or(0));
        self.keys.set(i64::try_from(current.keys.valid(now)).unwrap_or(i64::MAX));
        for origin in Origin::ALL {
            let value = i64::from(origin == current.origin);
            self.origin.with_label_values(&[origin.as_str()]).set(value);
        }
    }
}
