//! What the listener counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::problem::Kind;
use super::server::NO_REQUEST;
use super::sources::Refused;
use crate::admit::{Admission, Reason};

/// Upper bounds of the acknowledgement's latency, in seconds.
pub(super) const ACK_BUCKETS: [f64; 13] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The listener's metrics. Labels are bounded: statuses and names of the problem table,
/// [`Reason::ALL`].
#[derive(Clone)]
pub struct ListenMetrics {
    /// Answered requests by status.
    pub requests: IntCounterVec,
    /// Events (or unreadable bodies) whose fate was decided; see docs/contracts/admin.md.
    pub received: IntCounter,
    /// Events that are durable and were accepted.
    pub accepted: IntCounter,
    /// Events that are durable as dead letters, by reason.
    pub rejected: IntCounterVec,
    /// Events rejected beyond the budget: answered and counted, by reason.
    pub not_kept: IntCounterVec,
    /// Events that the spool did not take: the device was told to send them again.
    pub refused: IntCounter,
    /// Events whose device hung up before the spool had answered.
    pub unanswered: IntCounter,
    /// Bytes of bodies that arrived whole, as sent.
    pub body_bytes: IntCounter,
    /// From the end of the headers to the answer, of requests whose entries are durable.
    pub ack_latency: Histogram,
    /// Requests that may not come, or not now, by the problem's name.
    pub refused_requests: IntCounterVec,
    /// Open connections.
    pub connections: IntGauge,
    /// Connections that were closed before any request was let in, by reason.
    pub closed: IntCounterVec,
    /// TLS handshakes that failed or took too long.
    pub failed_handshakes: IntCounter,
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
            received: IntCounter::new(
                "penstock_gateway_events_received_total",
                "Events (or unreadable bodies) received: accepted, rejected, rejected and not \
                 kept, refused or unanswered",
            )?,
            not_kept: IntCounterVec::new(
                Opts::new(
                    "penstock_gateway_events_rejected_not_kept_total",
                    "Events rejected beyond the dead letters' budget: answered and counted",
                ),
                &["reason"],
            )?,
            refused: IntCounter::new(
                "penstock_gateway_events_refused_total",
                "Events that the spool did not take; the device was told to send them again",
            )?,
            unanswered: IntCounter::new(
                "penstock_gateway_events_unanswered_total",
                "Events whose device hung up before the spool had answered; they may be durable",
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
            refused_requests: IntCounterVec::new(
                Opts::new(
                    "penstock_gateway_refused_requests_total",
                    "Requests refused for their key or their fleet's limit",
                ),
                &["reason"],
            )?,
            connections: IntGauge::new("penstock_gateway_connections", "Open connections")?,
            closed: IntCounterVec::new(
                Opts::new(
                    "penstock_gateway_closed_connections_total",
                    "Connections closed before any request was let in",
                ),
                &["reason"],
            )?,
            failed_handshakes: IntCounter::new(
                "penstock_gateway_failed_handshakes_total",
                "TLS handshakes that failed or took too long",
            )?,
        };
        for reason in [NO_REQUEST, Refused::TooMany.as_str(), Refused::TooFast.as_str()] {
            metrics.closed.with_label_values(&[reason]);
        }
        registry.register(Box::new(metrics.closed.clone()))?;
        registry.register(Box::new(metrics.failed_handshakes.clone()))?;
        // From the first scrape on, so that an increase from nothing is seen as one.
        for reason in Reason::ALL {
            metrics.rejected.with_label_values(&[reason.as_str()]);
            metrics.not_kept.with_label_values(&[reason.as_str()]);
        }
        for kind in Kind::REFUSED {
            metrics.refused_requests.with_label_values(&[kind.name()]);
        }
        registry.register(Box::new(metrics.refused_requests.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.received.clone()))?;
        registry.register(Box::new(metrics.not_kept.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.unanswered.clone()))?;
        registry.register(Box::new(metrics.accepted.clone()))?;
        registry.register(Box::new(metrics.rejected.clone()))?;
        registry.register(Box::new(metrics.body_bytes.clone()))?;
        registry.register(Box::new(metrics.ack_latency.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        Ok(metrics)
    }

    /// Events are on their way to the spool.
    pub(super) fn receive(&self, admission: &Admission) -> Received<'_> {
        let events = admission.outcomes.len() as u64;
        self.received.inc_by(events);
        Received { metrics: self, events }
    }

    /// Counts the events of a durable admission.
    fn count(&self, admission: &Admission) {
        self.accepted.inc_by(admission.accepted() as u64);
        for (place, outcome) in admission.outcomes.iter().enumerate() {
            let Some(rejection) = outcome.rejection() else { continue };
            let counter = match admission.not_kept.contains(place) {
                true => &self.not_kept,
                false => &self.rejected,
            };
            counter.with_label_values(&[rejection.reason.as_str()]).inc();
        }
    }
}

/// Events between admission and the spool's answer: each is counted once, whatever happens.
pub(super) struct Received<'a> {
    metrics: &'a ListenMetrics,
    /// Those whose fate is not counted yet.
    events: u64,
}

impl Received<'_> {
    /// The spool has answered.
    pub(super) fn settle(mut self, admission: &Admission, is_durable: bool) {
        let events = std::mem::take(&mut self.events);
        match is_durable {
            true => self.metrics.count(admission),
            false => self.metrics.refused.inc_by(events),
        }
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.metrics.unanswered.inc_by(self.events);
    }
}
