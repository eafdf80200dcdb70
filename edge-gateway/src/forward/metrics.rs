//! What the forwarder counts.

use prometheus::{IntCounter, IntGauge, Registry};

/// The forwarder's metrics.
#[derive(Clone)]
pub struct ForwardMetrics {
    /// Records that the bus acknowledged; one sent again after a failure counts again.
    pub acknowledged: IntCounter,
    /// How often forwarding began again from the first unacknowledged entry.
    pub rewinds: IntCounter,
    /// Statuses that the bus acknowledged.
    pub statuses: IntCounter,
    /// Statuses that it refused.
    pub statuses_refused: IntCounter,
    /// Records between the spool and the bus's acknowledgement.
    pub in_flight_records: IntGauge,
}

impl ForwardMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            acknowledged: IntCounter::new(
                "penstock_forward_acknowledged_records_total",
                "Records that the bus acknowledged",
            )?,
            rewinds: IntCounter::new(
                "penstock_forward_rewinds_total",
                "Times that forwarding began again from the first unacknowledged entry",
            )?,
            statuses: IntCounter::new(
                "penstock_forward_statuses_total",
                "Statuses for the ledger that the bus acknowledged",
            )?,
            statuses_refused: IntCounter::new(
                "penstock_forward_statuses_refused_total",
                "Statuses for the ledger that the bus refused",
            )?,
            in_flight_records: IntGauge::new(
                "penstock_forward_in_flight_records",
                "Records between the spool and the bus's acknowledgement",
            )?,
        };
        registry.register(Box::new(metrics.acknowledged.clone()))?;
        registry.register(Box::new(metrics.rewinds.clone()))?;
        registry.register(Box::new(metrics.statuses.clone()))?;
        registry.register(Box::new(metrics.statuses_refused.clone()))?;
        registry.register(Box::new(metrics.in_flight_records.clone()))?;
        Ok(metrics)
    }
}
