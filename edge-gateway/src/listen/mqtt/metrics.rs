//! What the MQTT side counts. Events count in the listener's metrics as well, as those by HTTP do.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

use crate::listen::metrics::ACK_BUCKETS;

/// The metrics of the MQTT side. Labels: `qos` is 0, 1 or 2; `outcome` one of [`Self::OUTCOMES`].
#[derive(Clone)]
pub(super) struct MqttMetrics {
    /// 1 while the subscription is confirmed.
    pub(super) connected: IntGauge,
    /// Sessions that the broker confirmed.
    pub(super) connections: IntCounter,
    /// Connections that could not be made, or ended other than by our own stop.
    pub(super) failures: IntCounter,
    /// How often the broker had no session any more although there was one.
    pub(super) sessions_lost: IntCounter,
    /// Messages that arrived, by the quality of service they came with.
    pub(super) messages: IntCounterVec,
    /// Of these, deliveries that the broker says it repeats.
    pub(super) redelivered: IntCounter,
    /// Bytes of their payloads.
    pub(super) bytes: IntCounter,
    /// Messages acknowledged to the broker.
    pub(super) acknowledged: IntCounter,
    /// Messages of this connection that are not acknowledged yet.
    pub(super) unacknowledged: IntGauge,
    /// From a message's arrival to its acknowledgement.
    pub(super) ack_latency: Histogram,
    /// Messages with at least one rejected event.
    pub(super) rejected: IntCounter,
    /// Answers on the error topic.
    pub(super) answers: IntCounterVec,
    /// 1 while nothing is acknowledged because the spool takes nothing.
    pub(super) held: IntGauge,
}

impl MqttMetrics {
    /// What becomes of an answer: given to the broker; not sent because there is no topic for it,
    /// it is too large, or too many wait; refused by the broker.
    pub(super) const OUTCOMES: [&'static str; 3] = ["sent", "skipped", "refused"];

    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let latency = HistogramOpts::new(
            "penstock_mqtt_ack_latency_seconds",
            "From a message's arrival to its acknowledgement, once its events are durable",
        );
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let metrics = Self {
            connected: gauge("penstock_mqtt_connected", "1 while subscribed at the broker")?,
            connections: counter("penstock_mqtt_connections_total", "Subscriptions confirmed")?,
            failures: counter(
                "penstock_mqtt_connection_failures_total",
                "Connections that failed or broke",
            )?,
            sessions_lost: counter(
                "penstock_mqtt_sessions_lost_total",
                "Times the broker had forgotten the session, and the messages in it",
            )?,
            messages: IntCounterVec::new(
                Opts::new("penstock_mqtt_messages_total", "Messages that arrived"),
                &["qos"],
            )?,
            redelivered: counter(
                "penstock_mqtt_redelivered_messages_total",
                "Messages that the broker sent once more",
            )?,
            bytes: counter("penstock_mqtt_message_bytes_total", "Bytes of messages' payloads")?,
            acknowledged: counter(
                "penstock_mqtt_acknowledged_messages_total",
                "Messages acknowledged to the broker, after the sync of their events",
            )?,
            unacknowledged: gauge(
                "penstock_mqtt_unacknowledged_messages",
                "Messages of this connection that are not acknowledged yet",
            )?,
            ack_latency: Histogram::with_opts(latency.buckets(ACK_BUCKETS.to_vec()))?,
            rejected: counter(
                "penstock_mqtt_rejected_messages_total",
                "Messages with at least one rejected event",
            )?,
            answers: IntCounterVec::new(
                Opts::new("penstock_mqtt_answers_total", "Rejections on the error topic"),
                &["outcome"],
            )?,
            held: gauge(
                "penstock_mqtt_held",
                "1 while nothing is acknowledged because the spool takes nothing",
            )?,
        };
        for outcome in Self::OUTCOMES {
            metrics.answers.with_label_values(&[outcome]);
        }
        for qos in ["0", "1"] {
            metrics.messages.with_label_values(&[qos]);
        }
        metrics.collectors().into_iter().try_for_each(|metric| registry.register(metric))?;
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.connected.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.failures.clone()),
            Box::new(self.sessions_lost.clone()),
            Box::new(self.messages.clone()),
            Box::new(self.redelivered.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.acknowledged.clone()),
            Box::new(self.unacknowledged.clone()),
            Box::new(self.ack_latency.clone()),
            Box::new(self.rejected.clone()),
            Box::new(self.answers.clone()),
            Box::new(self.held.clone()),
        ]
    }
}
