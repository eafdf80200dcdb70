//! One connection to the broker, from its opening to its end.
//!
//! Each has an event loop of its own: rumqttc's would carry requests of the old connection, and a
//! count of packet identifiers that may not suit the new one, over to the next (see `link`). The
//! event loop is polled by a task that does nothing else and that is never interrupted within a
//! poll, because a poll that is dropped may lose the request that it was about to send; a panic in
//! it ends the connection and no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_common::clock::Clock;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, PubAck, PubAckReason, Publish, RetainForwardRule, SubAck,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio_util::sync::CancellationToken;

use super::explain::{explain, granted};
use super::inbox::{Inbox, Item, Message};
use super::link::{Link, requests_max};
use super::metrics::MqttMetrics;
use super::state::MqttState;

/// Keep-alive times without anything happening, not even a ping of our own, until a connection
/// counts as dead: writing to it does not end.
const SILENT_KEEP_ALIVES: u32 = 2;

/// Used where a broker asks for no pings at all.
const PING_AT_LEAST: Duration = Duration::from_secs(60);

/// What a connection needs.
pub(super) struct Setup {
    pub(super) options: MqttOptions,
    pub(super) filters: Vec<String>,
    pub(super) receive_max: u16,
    pub(super) inbox: Inbox,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: MqttMetrics,
    pub(super) state: MqttState,
    /// Cancelled when nothing more is to be taken.
    pub(super) stop: CancellationToken,
    /// Whether the broker should have a session.
    pub(super) had_session: bool,
}

/// A connection that is being made, or is there.
pub(super) struct Connection {
    setup: Setup,
    eventloop: EventLoop,
    link: Link,
    unacknowledged: i64,
    /// Answers that the broker has not acknowledged, and since when it has acknowledged none.
    answers: u32,
    answers_since: Instant,
    last_refused: Option<Instant>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As asked for.
    Closed,
    /// For this reason.
    Lost(String),
}

impl Connection {
    pub(super) fn new(setup: Setup) -> Self {
        let requests = requests_max(setup.receive_max);
        let (client, eventloop) = AsyncClient::new(setup.options.clone(), requests);
        let link = Link::new(client, setup.receive_max);
        let answers_since = Instant::now();
        Self {
            setup,
            eventloop,
            link,
            unacknowledged: 0,
            answers: 0,
            answers_since,
            last_refused: None,
        }
    }

    pub(super) fn link(&self) -> Link {
        self.link.clone()
    }

    /// Runs until the connection ends.
    pub(super) async fn run(mut self) -> End {
        let end = self.poll_until_end().await;
        // Whatever is still to be acknowledged came on a connection that is no more.
        self.link.close();
        self.setup.metrics.unacknowledged.set(0);
        end
    }

    async fn poll_until_end(&mut self) -> End {
        loop {
            // The broker may have asked for another one.
            let keep_alives = self.eventloop.options.keep_alive() * SILENT_KEEP_ALIVES;
            let connecting = Duration::from_secs(self.setup.options.connection_timeout());
            let silent_max = keep_alives + connecting;
            let link = self.link.clone();
            let event = tokio::select! {
                event = tokio::time::timeout(silent_max, self.eventloop.poll()) => event,
                () = link.closed() => return End::Lost("given up".into()),
            };
            let handled = match event {
                Ok(Ok(event)) => self.handle(event).await,
                Ok(Err(error)) => Err(explain(&error)),
                Err(_) => Err("the broker takes nothing any more".into()),
            };
            match handled {
                // Beyond its limit of open answers the event loop sends nothing else either.
                Ok(None) if self.answers > 0 && self.answers_since.elapsed() > silent_max => {
                    return End::Lost("the broker does not acknowledge answers".into());
                }
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(why) => return End::Lost(why),
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<Option<End>, String> {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => self.connected(&connack)?,
            Event::Incoming(Packet::SubAck(suback)) => self.subscribed(&suback)?,
            Event::Incoming(Packet::Publish(publish)) => self.received(publish).await?,
            Event::Incoming(Packet::PubAck(puback)) => self.answer_taken(&puback),
            Event::Outgoing(Outgoing::PubAck(_)) => {
                self.setup.metrics.acknowledged.inc();
                self.unacknowledged -= 1;
                self.setup.metrics.unacknowledged.set(self.unacknowledged);
            }
            Event::Outgoing(Outgoing::Publish(_)) => {
                self.link.note_answer_sent();
                if self.answers == 0 {
                    self.answers_since = Instant::now();
                }
                self.answers += 1;
            }
            Event::Outgoing(Outgoing::Disconnect) => return Ok(Some(End::Closed)),
            _ => {}
        }
        Ok(None)
    }

    fn connected(&mut self, connack: &ConnAck) -> Result<(), String> {
        let setup = &self.setup;
        if !connack.session_present && setup.had_session {
            setup.metrics.sessions_lost.inc();
            tracing::error!(
                "the broker has forgotten the gateway's session: messages that it had \
                 acknowledged and not yet delivered are lost; does it save its sessions?"
            );
        }
        let limits = connack.properties.as_ref();
        if limits.and_then(|limits| limits.max_qos) == Some(0) {
            return Err("the broker takes QoS 0 only, which promises nothing".into());
        }
        let packet_bytes_max = limits.and_then(|limits| limits.max_packet_size);
        self.link.set_packet_bytes_max(packet_bytes_max.unwrap_or(u32::MAX));
        let ours = setup.options.max_packet_size().unwrap_or(u32::MAX);
        if packet_bytes_max.is_none_or(|theirs| theirs > ours) {
            // It must not send them to us, and says nothing to whoever published them.
            tracing::warn!(
                ours,
                theirs = packet_bytes_max,
                "the broker takes larger packets than mqtt.packet_bytes_max and will discard \
                 them: lower its limit (mosquitto: max_packet_size)"
            );
        }
        let expiry = limits.and_then(|limits| limits.session_expiry_interval);
        let asked = setup.options.session_expiry_interval();
        if expiry.is_some_and(|seconds| Some(seconds) < asked) {
            tracing::warn!(seconds = expiry, "the broker keeps the session for a shorter time");
        }
        if self.eventloop.options.keep_alive().is_zero() {
            self.eventloop.options.set_keep_alive(PING_AT_LEAST);
        }
        let filters = setup.filters.iter().map(|path| Filter {
            path: path.clone(),
            qos: QoS::AtLeastOnce,
            // What the gateway itself publishes is for others.
            nolocal: true,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
        });
        self.link.subscribe(filters.collect()).map_err(|error| error.to_string())
    }

    fn subscribed(&self, suback: &SubAck) -> Result<(), String> {
        for (code, filter) in suback.return_codes.iter().zip(&self.setup.filters) {
            granted(filter, code)?;
        }
        self.setup.metrics.connections.inc();
        self.setup.metrics.connected.set(1);
        self.setup.state.connected();
        Ok(())
    }

    async fn received(&mut self, publish: Publish) -> Result<(), String> {
        let setup = &self.setup;
        let qos = match publish.qos {
            QoS::AtMostOnce => "0",
            QoS::AtLeastOnce => "1",
            // It was subscribed to with QoS 1: a session of somebody else's making.
            QoS::ExactlyOnce => return Err("a message with QoS 2 on a QoS 1 subscription".into()),
        };
        if publish.topic.is_empty() {
            return Err("a message without a topic, though no aliases were agreed".into());
        }
        setup.metrics.messages.with_label_values(&[qos]).inc();
        setup.metrics.bytes.inc_by(publish.payload.len() as u64);
        if publish.dup {
            setup.metrics.redelivered.inc();
        }
        if publish.qos == QoS::AtLeastOnce {
            self.unacknowledged += 1;
            setup.metrics.unacknowledged.set(self.unacknowledged);
        }
        let (arrived, received) = (Instant::now(), setup.clock.reading());
        let share = tokio::select! {
            biased;
            // Unacknowledged: the broker sends it again when the gateway is back.
            () = setup.stop.cancelled() => return Ok(()),
            () = self.link.closed() => return Ok(()),
            share = setup.inbox.reserve(&publish) => share,
        };
        let link = self.link.clone();
        let message = Message { publish, received, arrived, link, share };
        if setup.inbox.put(Item::Message(Box::new(message))) {
            Ok(())
        } else {
            Err("the gateway is stopping".into())
        }
    }

    /// The broker took an answer, or did not.
    fn answer_taken(&mut self, puback: &PubAck) {
        self.answers = self.answers.saturating_sub(1);
        self.answers_since = Instant::now();
        if matches!(puback.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
            return;
        }
        self.setup.metrics.answers.with_label_values(&["refused"]).inc();
        let now = Instant::now();
        if self.last_refused.is_none_or(|last| now - last > Duration::from_secs(60)) {
            self.last_refused = Some(now);
            let reason = puback.reason;
            tracing::warn!(?reason, "the broker refuses answers on mqtt.error_topic");
        }
    }
}
