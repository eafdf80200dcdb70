//! What the forwarder counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::Class;

/// The forwarder's metrics.
#[derive(Clone)]
pub struct ForwardMetrics {
    /// Records that the bus acknowledged; one sent again after a failure counts again.
    pub acknowledged: IntCounter,
    /// Producers given up; what was in flight was sent again.
    pub rewinds: IntCounter,
    /// Refusals by what they spoke of.
    pub refusals: IntCounterVec,
    /// Records that became dead letters, or smaller ones, because the bus refused them.
    pub redirected: IntCounter,
    /// Statuses that the bus acknowledged.
    pub statuses: IntCounter,
    /// Statuses that it refused.
    pub statuses_refused: IntCounter,
    /// Records between the spool and the bus's acknowledgement.
    pub in_flight_records: IntGauge,
    /// Their payload bytes.
    pub in_flight_bytes: IntGauge,
    /// Entries that were passed over and wait in the spool.
    pub parked_entries: IntGauge,
    /// Partitions that don't answer.
    pub stalled_partitions: IntGauge,
    /// Topics that can't be written to.
    pub blocked_topics: IntGauge,
}

impl Class {
    const ALL: [Self; 5] = [Self::TooLarge, Self::Unfit, Self::Topic, Self::GivenUp, Self::Unclear];

    const fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Unfit => "unfit",
            Self::Topic => "topic",
            Self::GivenUp => "given_up",
            Self::Unclear => "unclear",
        }
    }
}

impl ForwardMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(format!("penstock_forward_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(format!("penstock_forward_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let refusals = IntCounterVec::new(
            Opts::new(
                "penstock_forward_refusals_total",
                "Refusals of the bus, by what they spoke of",
            ),
            &["class"],
        )?;
        for class in Class::ALL {
            refusals.with_label_values(&[class.label()]);
        }
        registry.register(Box::new(refusals.clone()))?;
        Ok(Self {
            acknowledged: counter(
                "acknowledged_records_total",
                "Records that the bus acknowledged",
            )?,
            rewinds: counter(
                "rewinds_total",
                "Producers given up; what they had in flight was sent again",
            )?,
            refusals,
            redirected: counter(
                "redirected_records_total",
                "Records that became dead letters, or smaller ones, because the bus refused them",
            )?,
            statuses: counter(
                "statuses_total",
                "Statuses for the ledger that the bus acknowledged",
            )?,
            statuses_refused: counter(
                "statuses_refused_total",
                "Statuses for the ledger that the bus refused",
            )?,
            in_flight_records: gauge(
                "in_flight_records",
                "Records between the spool and the bus's acknowledgement",
            )?,
            in_flight_bytes: gauge("in_flight_bytes", "Their payload bytes")?,
            parked_entries: gauge(
                "parked_entries",
                "Entries of partitions that are passed over; they wait in the spool",
            )?,
            stalled_partitions: gauge(
                "stalled_partitions",
                "Partitions with records in flight that don't answer",
            )?,
            blocked_topics: gauge("blocked_topics", "Topics that can't be written to")?,
        })
    }

    pub(super) fn refused(&self, class: Class) {
        self.refusals.with_label_values(&[class.label()]).inc();
    }
}
