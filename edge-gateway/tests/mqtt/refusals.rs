//! Brokers that the gateway can't work with: it says why, and tries again.

use bytes::BytesMut;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Disconnect, DisconnectProperties, DisconnectReasonCode, Packet,
    Publish, PublishProperties, SubscribeReasonCode,
};

use crate::event;
use crate::gateway::{Gate, Gateway, config};
use crate::scripted::Scripted;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_refuses_is_explained() {
    let broker = Scripted::listen().await;
    let gateway = Gateway::start(config(broker.port()), Gate::open());

    let mut peer = broker.accept().await;
    peer.refuse(ConnectReturnCode::BadUserNamePassword).await;
    gateway.has_failed("mqtt.password_file").await;

    let mut peer = broker.accept().await;
    peer.accept(false).await;
    let subscribe = peer.subscribe().await;
    peer.grant(&subscribe, SubscribeReasonCode::NotAuthorized).await;
    gateway.has_failed("may this user read it").await;

    // A promise that the broker does not give must not be taken for one.
    let mut peer = broker.accept().await;
    peer.accept(false).await;
    let subscribe = peer.subscribe().await;
    peer.grant(&subscribe, SubscribeReasonCode::Success(QoS::AtMostOnce)).await;
    gateway.has_failed("only QoS 0").await;

    let mut peer = broker.subscribed(false).await;
    gateway.is_connected().await;
    assert_eq!(gateway.state.line(), "mqtt: connected");
    let mut taken_over = Disconnect::new(DisconnectReasonCode::SessionTakenOver);
    // rumqttc passes over one without properties.
    taken_over.properties = Some(DisconnectProperties {
        session_expiry_interval: None,
        reason_string: None,
        user_properties: vec![("x".into(), "y".into())],
        server_reference: None,
    });
    peer.write(&Packet::Disconnect(taken_over)).await;
    gateway.has_failed("somebody else has connected").await;
    assert!(gateway.state.line().starts_with("mqtt: not connected: "));
    gateway.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_the_session_does_not_allow_end_the_connection() {
    let broker = Scripted::listen().await;
    let gate = Gate::open();
    let gateway = Gateway::start(config(broker.port()), gate.clone());
    let publish = |topic: &str, qos, alias| {
        let properties = PublishProperties { topic_alias: alias, ..PublishProperties::default() };
        let mut publish = Publish::new(topic, qos, event("press-1", 1), Some(properties));
        publish.pkid = 7;
        Packet::Publish(publish)
    };
    for (packet, says) in [
        (publish("a", QoS::ExactlyOnce, None), "QoS 2"),
        (publish("", QoS::AtLeastOnce, Some(1)), "without a topic"),
        (publish("", QoS::AtLeastOnce, None), "without a topic"),
    ] {
        let mut peer = broker.subscribed(false).await;
        peer.write(&packet).await;
        gateway.has_failed(says).await;
    }
    let mut peer = broker.subscribed(false).await;
    let huge = "x".repeat(1_114_112);
    peer.publish(1, "press-1", huge).await;
    gateway.has_failed("1114112 were agreed").await;
    assert!(gate.entries.lock().unwrap().is_empty());
    gateway.abandon().await;
}

/// Packets with random bytes changed, and random bytes. `PENSTOCK_TEST_SEED` replays a seed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_from_a_broker_bring_the_gateway_down() {
    let seed = std::env::var("PENSTOCK_TEST_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("PENSTOCK_TEST_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let broker = Scripted::listen().await;
    let mut config = config(broker.port());
    (config.reconnect_first_ms, config.reconnect_max_ms) = (1, 2);
    let gateway = Gateway::start(config, Gate::open());
    for _ in 0..150 {
        let mut peer = broker.accept().await;
        if rng.random_bool(0.9) {
            peer.accept(rng.random()).await;
        }
        for _ in 0..40 {
            peer.write_bytes(&bytes_of(&mut rng)).await;
        }
    }
    // And it still works.
    let mut peer = broker.subscribed(false).await;
    peer.publish(1, "press-1", event("press-1", 1)).await;
    loop {
        match peer.read().await {
            Some(Packet::PubAck(puback)) => break assert_eq!(puback.pkid, 1),
            Some(_) => {}
            None => panic!("the connection ended"),
        }
    }
    gateway.abandon().await;
}

fn bytes_of(rng: &mut ChaCha8Rng) -> BytesMut {
    let mut bytes = BytesMut::new();
    let properties = PublishProperties {
        correlation_data: Some("c".into()),
        user_properties: vec![("traceparent".into(), "t".into())],
        content_type: Some("application/json".into()),
        subscription_identifiers: vec![300],
        ..PublishProperties::default()
    };
    let mut publish =
        Publish::new("penstock/a/b/events", QoS::AtLeastOnce, event("b", 1), Some(properties));
    publish.pkid = rng.random_range(1..=u16::MAX);
    let packet = match rng.random_range(0..4) {
        0 => Packet::Publish(publish),
        1 => Packet::Disconnect(Disconnect::new(DisconnectReasonCode::ServerBusy)),
        2 => Packet::ConnAck(ConnAck {
            session_present: true,
            code: ConnectReturnCode::Success,
            properties: None,
        }),
        _ => {
            // Any packet type, with a length that fits or does not.
            let length = rng.random_range(0..24_u8);
            bytes.extend_from_slice(&[rng.random_range(1..=15) << 4, length]);
            bytes.extend((0..length).map(|_| rng.random::<u8>()));
            return bytes;
        }
    };
    packet.write(&mut bytes, None).unwrap();
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(0..bytes.len().min(80));
        bytes[at] = rng.random();
    }
    bytes
}
