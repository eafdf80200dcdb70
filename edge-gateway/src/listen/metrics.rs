//! What the listener counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::admit::{Admission, Reason};

/// Upper bounds of the acknowledgement's latency, in seconds.
pub(super) const ACK_BUCKETS: [f64; 13] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The listener's metrics. Labels are bounded: statuses of the problem table, [`Reason::ALL`].
#[derive(Clone)]
pub struct ListenMetrics {
    /// Answered requests by status.
    pub requests: IntCounterVec,
    /// Events that are durable and were accepted.
    pub accepted: IntCounter,
    /// Events that are durable as dead letters, by reason.
    pub rejected: IntCounterVec,
    /// Bytes of bodies that arrived whole, as sent.
    pub body_bytes: IntCounter,
    /// From the end of the headers to the answer, of requests whose entries are durable.
    pub ack_latency: Histogram,
    /// Open connections.
    pub connections: IntGauge,
}

impl ListenMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let latency = HistogramOpts::new(
            "penstock_gateway_ack_latency_seconds",
            "From the end of a request's headers to its answer, once its events are durable",
        );
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("penstock_gateway_requests_total", "Answered requests"),
                &["status"],
            )?,
            accepted: IntCounter::new(
                "penstock_gateway_events_accepted_total",
                "Events accepted and durable",
            )?,
            rejected: IntCounterVec::new(
                Opts::new(
                    "penstock_gateway_events_rejected_total",
                    "Events (or unreadable bodies) rejected and durable as dead letters",
                ),
                &["reason"],
            )?,
            body_bytes: IntCounter::new(
                "penstock_gateway_body_bytes_total",
                "Bytes of request bodies as sent",
            )?,
            ack_latency: Histogram::with_opts(latency.buckets(ACK_BUCKETS.to_vec()))?,
            connections: IntGauge::new("penstock_gateway_connections", "Open connections")?,
        };
        // From the first scrape on, so that an increase from nothing is seen as one.
        for reason in Reason::ALL {
            metrics.rejected.with_label_values(&[reason.as_str()]);
        }
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.accepted.clone()))?;
        registry.register(Box::new(metrics.rejected.clone()))?;
        registry.register(Box::new(metrics.body_bytes.clone()))?;
        registry.register(Box::new(metrics.ack_latency.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        Ok(metrics)
    }

    /// Counts the events of a durable admission.
    pub(super) fn count(&self, admission: &Admission) {
        self.accepted.inc_by(admission.accepted() as u64);
        for rejection in admission.outcomes.iter().filter_map(|outcome| outcome.rejection()) {
            self.rejected.with_label_values(&[rejection.reason.as_str()]).inc();
        }
    }
}
