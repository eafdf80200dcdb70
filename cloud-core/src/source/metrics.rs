//! What every consumer counts, by role and topic.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The consumers' metrics, `penstock_source_…`.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    lag: IntGaugeVec,
    lost: IntCounterVec,
    ahead: IntCounterVec,
    revocations: IntCounterVec,
    panics: IntCounterVec,
}

/// Those of one role on one topic.
#[derive(Clone, Debug)]
pub struct SourceCounters {
    role: String,
    topic: String,
    lag: IntGaugeVec,
    /// Records that the bus deleted before they were read.
    pub lost: IntCounter,
    /// Times that a stored position was found after the end of the log.
    pub ahead: IntCounter,
    /// Rebalances that took partitions away.
    pub revocations: IntCounter,
    /// Times that a record made the stage panic.
    pub panics: IntCounter,
}

impl SourceMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("penstock_source_{name}"), help);
        let counter = |name, help| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(opts(name, help), &["role", "topic"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let lag = IntGaugeVec::new(
            opts("lag_records", "Records between the stored position and the end of the log"),
            &["role", "topic", "partition"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self {
            lag,
            lost: counter("lost_records_total", "Records deleted by the bus before being read")?,
            ahead: counter("position_ahead_total", "Stored positions after the end of the log")?,
            revocations: counter("revocations_total", "Rebalances that took partitions away")?,
            panics: counter("panics_total", "Records that made a stage panic")?,
        })
    }

    /// Those of one role on one topic.
    pub fn of(&self, role: &str, topic: &str) -> SourceCounters {
        let of = |counter: &IntCounterVec| counter.with_label_values(&[role, topic]);
        SourceCounters {
            role: role.to_owned(),
            topic: topic.to_owned(),
            lag: self.lag.clone(),
            lost: of(&self.lost),
            ahead: of(&self.ahead),
            revocations: of(&self.revocations),
            panics: of(&self.panics),
        }
    }
}

impl SourceCounters {
    /// Says how far a partition is behind.
    pub fn lag(&self, partition: i32, records: i64) {
        let labels = [&self.role, &self.topic, &partition.to_string()];
        self.lag.with_label_values(&labels.map(String::as_str)).set(records);
    }

    /// Somebody else measures it now.
    pub fn forget_lag(&self, partition: i32) {
        let labels = [&self.role, &self.topic, &partition.to_string()];
        // It may never have been measured.
        let _ = self.lag.remove_label_values(&labels.map(String::as_str));
    }
}
