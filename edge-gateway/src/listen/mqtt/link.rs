//! The way back on one connection: acknowledgements and answers.
//!
//! A connection has an event loop of its own, and the link belongs to that. When the connection
//! ends the event loop goes, and what is still put into the link goes nowhere. So a message can
//! only be acknowledged on the connection that it came on: on the next one its packet identifier
//! may be that of another message, which nobody has made durable yet.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, ClientError};
use tokio_util::sync::CancellationToken;

/// Requests beside acknowledgements and answers: subscribe, disconnect.
const OTHER_REQUESTS: usize = 16;

#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    client: AsyncClient,
    /// Cancelled when the connection must not or can't be used any more.
    closed: CancellationToken,
    /// Answers that the event loop has not sent yet.
    answers: AtomicUsize,
    answers_max: usize,
    /// The largest packet that the broker takes.
    packet_bytes_max: AtomicU32,
}

/// As many messages as a broker can have open at once: a packet identifier has 16 bits.
const OPEN_MAX: usize = u16::MAX as usize;

/// How many requests an event loop must be able to hold so that no acknowledgement ever waits:
/// while the connection waits for room in the inbox, it sends none. An acknowledgement for each
/// message that the broker can have open, an answer for each that it may, and answers for QoS 0.
/// It may have `receive_max` open, but mosquitto 2.0.11, resuming a session, has had thousands.
pub(super) fn requests_max(receive_max: u16) -> usize {
    OPEN_MAX + 2 * usize::from(receive_max) + OTHER_REQUESTS
}

impl Link {
    pub(super) fn new(client: AsyncClient, receive_max: u16) -> Self {
        Self(Arc::new(Inner {
            client,
            closed: CancellationToken::new(),
            answers: AtomicUsize::new(0),
            answers_max: usize::from(receive_max),
            packet_bytes_max: AtomicU32::new(u32::MAX),
        }))
    }

    /// Whether an acknowledgement would still reach the broker, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.0.closed.is_cancelled()
    }

    /// Resolves when it is closed.
    pub(super) async fn closed(&self) {
        self.0.closed.cancelled().await;
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        self.0.closed.cancel();
    }

    pub(super) fn set_packet_bytes_max(&self, bytes: u32) {
        self.0.packet_bytes_max.store(bytes, Relaxed);
    }

    pub(super) fn packet_bytes_max(&self) -> usize {
        self.0.packet_bytes_max.load(Relaxed) as usize
    }

    /// Acknowledges a message. On a closed link that does nothing: the broker sends it again.
    pub(super) fn acknowledge(&self, publish: &Publish) {
        if self.0.client.try_ack(publish).is_err() && self.is_open() {
            // There is room for as many as it can have open. It uses identifiers twice.
            tracing::error!("the broker sends more messages than it can have open");
            self.close();
        }
    }

    /// Sends an answer; false if it can't be sent.
    pub(super) fn answer(
        &self,
        topic: &str,
        payload: Vec<u8>,
        properties: PublishProperties,
        is_promised: bool,
    ) -> bool {
        // QoS 0 is not bounded by what the broker may have open.
        if !is_promised && self.0.answers.load(Relaxed) >= self.0.answers_max {
            return false;
        }
        self.0.answers.fetch_add(1, Relaxed);
        let qos = QoS::AtLeastOnce;
        let sent =
            self.0.client.try_publish_with_properties(topic, qos, false, payload, properties);
        if sent.is_err() {
            self.0.answers.fetch_sub(1, Relaxed);
        }
        sent.is_ok()
    }

    /// The event loop has sent an answer.
    pub(super) fn note_answer_sent(&self) {
        self.0.answers.fetch_sub(1, Relaxed);
    }

    pub(super) fn subscribe(&self, filters: Vec<Filter>) -> Result<(), Box<ClientError>> {
        self.0.client.try_subscribe_many(filters).map_err(Box::new)
    }

    /// Ends the connection after everything that was put into the link before.
    pub(super) fn disconnect(&self) -> Result<(), Box<ClientError>> {
        self.0.client.try_disconnect().map_err(Box::new)
    }
}
