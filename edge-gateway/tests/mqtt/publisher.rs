//! A device at a real broker: publishes and waits for the broker's acknowledgement, and reads
//! what is published for it.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

use crate::PATIENCE;

pub(crate) struct Publisher {
    client: AsyncClient,
    eventloop: EventLoop,
}

impl Publisher {
    pub(crate) async fn connect(port: u16) -> Self {
        Self::with(MqttOptions::new(
            format!("device-{:x}", rand::random::<u64>()),
            "127.0.0.1",
            port,
        ))
        .await
    }

    pub(crate) async fn with(mut options: MqttOptions) -> Self {
        options.set_max_packet_size(Some(8 << 20));
        let (client, eventloop) = AsyncClient::new(options, 64);
        let mut publisher = Self { client, eventloop };
        publisher.until(|packet| matches!(packet, Packet::ConnAck(_))).await;
        publisher
    }

    /// Publishes on the topic of that device and fleet `line-1`, QoS 1.
    pub(crate) async fn publish(&mut self, device: &str, payload: impl Into<Bytes>) {
        let topic = format!("penstock/line-1/{device}/events");
        self.publish_with(&topic, payload, PublishProperties::default()).await;
    }

    pub(crate) async fn publish_with(
        &mut self,
        topic: &str,
        payload: impl Into<Bytes>,
        properties: PublishProperties,
    ) {
        let reason = self.publish_as(topic, QoS::AtLeastOnce, false, payload, properties).await;
        assert_eq!(reason, PubAckReason::Success);
    }

    pub(crate) async fn publish_as(
        &mut self,
        topic: &str,
        qos: QoS,
        retain: bool,
        payload: impl Into<Bytes>,
        properties: PublishProperties,
    ) -> PubAckReason {
        let payload = payload.into();
        self.client
            .publish_bytes_with_properties(topic, qos, retain, payload, properties)
            .await
            .unwrap();
        match qos {
            QoS::AtMostOnce => {
                // In order behind it: when this is answered, the other was read.
                self.client.subscribe("nothing", qos).await.unwrap();
                self.until(|packet| matches!(packet, Packet::SubAck(_))).await;
                PubAckReason::Success
            }
            QoS::AtLeastOnce => {
                match self.until(|packet| matches!(packet, Packet::PubAck(_))).await {
                    Packet::PubAck(puback) => puback.reason,
                    _ => unreachable!(),
                }
            }
            QoS::ExactlyOnce => {
                self.until(|packet| matches!(packet, Packet::PubComp(_))).await;
                PubAckReason::Success
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        self.until(|packet| matches!(packet, Packet::SubAck(_))).await;
    }

    /// The next message that is published for it.
    pub(crate) async fn message(&mut self) -> Publish {
        match self.until(|packet| matches!(packet, Packet::Publish(_))).await {
            Packet::Publish(publish) => publish,
            _ => unreachable!(),
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let reading = async {
            loop {
                match self.eventloop.poll().await.unwrap() {
                    Event::Incoming(packet) if wanted(&packet) => return packet,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("nothing comes from the broker")
    }
}
