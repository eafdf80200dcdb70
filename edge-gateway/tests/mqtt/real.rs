//! Before a real broker: what devices publish, right and wrong, and what becomes of it.

use bytes::Bytes;
use penstock_common::event::Flags;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PublishProperties};
use serde_json::Value;

use crate::gateway::{Gateway, NOW, RealSpool, config};
use crate::mosquitto::Mosquitto;
use crate::publisher::Publisher;
use crate::{event, eventually, number_of};

fn properties(content_type: &str, user: &[(&str, &str)]) -> PublishProperties {
    PublishProperties {
        content_type: Some(content_type.to_owned()),
        user_properties: user.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..PublishProperties::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_good_message_is_taken() {
    let (broker, mut spool) = (Mosquitto::start().await, RealSpool::open());
    let gateway = Gateway::connect(config(broker.port), spool.handle.clone()).await;
    let mut device = Publisher::connect(broker.port).await;
    device.publish("press-1", event("press-1", 1)).await;
    device.publish("press-1", format!("[{},{}]", event("press-1", 2), event("press-1", 3))).await;
    let topic = "penstock/line-1/press-1/events";
    let lines = format!("{}\n{}\n", event("press-1", 4), event("press-1", 5));
    device.publish_with(topic, lines, properties("application/x-ndjson", &[])).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let user = [("Content-Encoding", "zstd"), ("traceparent", trace)];
    let packed = zstd::encode_all(event("press-1", 6).as_bytes(), 1).unwrap();
    device.publish_with(topic, packed, properties("application/json", &user)).await;
    for (number, qos) in [(7, QoS::AtMostOnce), (8, QoS::ExactlyOnce)] {
        let payload = event("press-1", number);
        device.publish_as(topic, qos, false, payload, PublishProperties::default()).await;
    }
    let events = spool.events(8).await;
    let numbers: Vec<_> = events[..5].iter().map(|event| number_of(&event.payload)).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    for event in &events {
        assert_eq!((event.device_id.as_str(), &*event.fleet), ("press-1", "line-1"));
        assert_eq!(event.received_at, NOW);
        assert!(event.flags.contains(Flags::MQTT));
        let number = number_of(&event.payload);
        assert_eq!(event.payload, crate::event("press-1", number));
        assert_eq!(event.traceparent.as_deref(), (number == 6).then_some(trace));
    }
    gateway.metric_is("penstock_gateway_events_accepted_total", 8.0).await;
    gateway.metric_is("penstock_mqtt_unacknowledged_messages", 0.0).await;
    assert_eq!(gateway.metric("penstock_mqtt_acknowledged_messages_total"), 5.0);
    gateway.stop().await;
    assert!(spool.entries().len() == 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejections_are_dead_letters_and_are_answered_on_the_error_topic() {
    let (broker, mut spool) = (Mosquitto::start().await, RealSpool::open());
    let gateway = Gateway::connect(config(broker.port), spool.handle.clone()).await;
    let mut device = Publisher::connect(broker.port).await;
    device.subscribe("penstock/line-1/press-1/errors").await;
    let topic = "penstock/line-1/press-1/events";
    let json = "application/json";
    let good = || event("press-1", 1);
    let hot = event("press-1", 2).replace("61.5", "900");
    let array = format!("[{},{hot}]", good());
    let many = format!("[{}]", vec![good(); 101].join(","));
    let large = format!("{}{}", " ".repeat(1 << 20), good());
    for (payload, content_type, status, reason, pointer) in [
        (hot, json, "400", "schema_violation", "/metrics/cpu_temp"),
        (array, json, "207", "schema_violation", "/metrics/cpu_temp"),
        (event("press-2", 3), json, "400", "wrong_topic", "/device_id"),
        (
            good().replace("1.4.2", "77.0.0"),
            json,
            "400",
            "unknown_firmware",
            "/device_firmware_version",
        ),
        ("{\"event_id\":".into(), json, "400", "malformed_json", ""),
        (many, json, "413", "too_many_events", ""),
        (good(), "text/plain", "415", "unsupported_type", ""),
        (large, json, "413", "too_large", ""),
    ] {
        let (before, payload) = (spool.letters(0).await.len(), Bytes::from(payload));
        let properties = PublishProperties {
            correlation_data: Some(reason.into()),
            ..properties(content_type, &[("line", "3")])
        };
        device.publish_with(topic, payload.clone(), properties).await;
        let answer = device.message().await;
        let letter = spool.letters(before + 1).await.pop().unwrap();
        assert_eq!(letter.reason, reason);
        assert_eq!((letter.stage.as_str(), &*letter.fleet), ("gateway.admit", "line-1"));
        assert!(status == "207" || letter.payload == payload, "{reason}: not the original bytes");
        let owner = if reason == "wrong_topic" { "press-2" } else { "press-1" };
        assert_eq!(letter.device_id.as_deref(), Some(owner), "{reason}");
        let detail: Value = serde_json::from_str(&letter.detail).unwrap();
        assert_eq!(
            (&detail["topic"], &detail["errors"][0]["pointer"]),
            (&topic.into(), &pointer.into())
        );

        let given = answer.properties.unwrap();
        assert_eq!(given.correlation_data.as_deref(), Some(reason.as_bytes()));
        assert_eq!(given.user_properties[0], ("line".into(), "3".into()));
        assert_eq!(given.user_properties[1], ("penstock-status".into(), status.into()));
        let body: Value = serde_json::from_slice(&answer.payload).unwrap();
        if matches!(status, "400" | "207") {
            let events = body["events"].as_array().unwrap();
            assert_eq!(events.last().unwrap()["reason"], reason);
            assert_eq!(events.last().unwrap()["errors"], detail["errors"]);
        }
    }
    gateway.metric_is("penstock_mqtt_answers_total", 8.0).await;
    gateway.metric_is("penstock_gateway_events_rejected_total", 8.0).await;
    assert_eq!(gateway.metric("penstock_mqtt_rejected_messages_total"), 8.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_a_place_are_kept_and_those_without_events_are_not() {
    let (broker, mut spool) = (Mosquitto::start().await, RealSpool::open());
    let mut config = config(broker.port);
    config.topics = vec!["site/{device}".into(), "site/{fleet}/{device}/events".into()];
    config.error_topic = String::new();
    let gateway = Gateway::connect(config.clone(), spool.handle.clone()).await;
    let mut device = Publisher::connect(broker.port).await;
    let plain = PublishProperties::default;
    device.publish_with("site/press-1", event("press-1", 1), plain()).await;
    // The first template names no fleet: it is the gateway's.
    assert_eq!(&*spool.events(1).await[0].fleet, "plant-7");
    device.publish_with("site/a fleet/press-1/events", event("press-1", 2), plain()).await;
    let letter = spool.letters(1).await.remove(0);
    assert_eq!((letter.reason.as_str(), &*letter.fleet), ("wrong_topic", "plant-7"));
    // A retained event is taken; the empty message that clears it is nothing; nor is an empty array.
    let topic = "site/press-1";
    device.publish_as(topic, QoS::AtLeastOnce, true, event("press-1", 3), plain()).await;
    device.publish_as(topic, QoS::AtLeastOnce, true, "", plain()).await;
    device.publish_with(topic, "[]", plain()).await;
    spool.events(2).await;
    gateway.metric_is("penstock_mqtt_acknowledged_messages_total", 5.0).await;
    gateway.stop().await;

    // The session still has the topics of before: what comes there is kept as well.
    config.topics = vec!["elsewhere/{device}".into()];
    let gateway = Gateway::connect(config, spool.handle.clone()).await;
    device.publish_with("site/press-1", event("press-1", 4), plain()).await;
    assert_eq!(spool.letters(2).await[1].reason, "wrong_topic");
    assert_eq!(spool.entries().len(), 4);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_while_the_gateway_is_away_comes_later() {
    let (mut broker, mut spool) = (Mosquitto::start().await, RealSpool::open());
    let gateway = Gateway::connect(config(broker.port), spool.handle.clone()).await;
    let mut device = Publisher::connect(broker.port).await;
    gateway.stop().await;
    for number in 1..=50 {
        device.publish("press-1", event("press-1", number)).await;
    }
    // Once more, killed in the middle of it.
    let gateway = Gateway::connect(config(broker.port), spool.handle.clone()).await;
    gateway.abandon().await;
    for number in 51..=100 {
        device.publish("press-1", event("press-1", number)).await;
    }
    // And the broker too, which has saved everything by now.
    let database = broker.dir.path().join("mosquitto.db");
    eventually("the broker has saved the last event", || {
        let saved = std::fs::read(&database).unwrap_or_default();
        let last = event("press-1", 100).into_bytes();
        saved.windows(last.len()).any(|window| window == last)
    })
    .await;
    broker.kill();
    broker.restart().await;
    let gateway = Gateway::connect(config(broker.port), spool.handle.clone()).await;
    eventually("all events", || {
        let mut numbers: Vec<_> = crate::gateway::events_of(spool.entries())
            .iter()
            .map(|e| number_of(&e.payload))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers == (1..=100).collect::<Vec<_>>()
    })
    .await;
    // A broker that is killed under a connected gateway: it comes back by itself.
    broker.kill();
    gateway.has_failed("the broker").await;
    broker.restart().await;
    gateway.is_connected().await;
    let mut device = Publisher::connect(broker.port).await;
    device.publish("press-1", event("press-1", 101)).await;
    eventually("the last event", || {
        let events = crate::gateway::events_of(spool.entries());
        events.iter().any(|event| number_of(&event.payload) == 101)
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_leaves_messages_at_the_broker_until_it_has_room() {
    let (broker, mut spool) = (Mosquitto::start().await, RealSpool::with_bytes_max(128 << 10));
    let mut config = config(broker.port);
    config.receive_max = 20;
    let gateway = Gateway::connect(config, spool.handle.clone()).await;
    let mut device = Publisher::connect(broker.port).await;
    let pad = format!("\"pad\":\"{}\",\"metrics\"", "x".repeat(2_000));
    let large = |number| event("press-1", number).replace("\"metrics\"", &pad);
    for number in 1..=200 {
        device.publish("press-1", large(number)).await;
    }
    gateway.metric_is("penstock_mqtt_held", 1.0).await;
    // The broker stops at about the maximum: mosquitto 2.0.11 sends a few more, 24 here.
    let open = || gateway.metric("penstock_mqtt_unacknowledged_messages");
    eventually("the broker stops", || open() >= 20.0).await;
    assert!(open() <= 40.0, "{} messages are open", open());
    // Room comes with draining; nobody has to do anything else.
    for count in [50, 100, 150, 200] {
        spool.events(count).await;
    }
    let events = spool.events(200).await;
    let numbers: Vec<_> = events.iter().map(|event| number_of(&event.payload)).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    gateway.metric_is("penstock_mqtt_acknowledged_messages_total", 200.0).await;
    gateway.metric_is("penstock_mqtt_held", 0.0).await;
    assert!(gateway.state.standing().is_connected);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_larger_than_agreed_does_not_stop_the_others() {
    let broker = Mosquitto::with("allow_anonymous true\n").await;
    let mut spool = RealSpool::open();
    let gateway = Gateway::connect(config(broker.port), spool.handle.clone()).await;
    let mut device = Publisher::connect(broker.port).await;
    // The broker takes it, and discards it on the way to us: the contract says how to prevent that.
    device.publish("press-1", "x".repeat(2 << 20)).await;
    device.publish("press-1", event("press-1", 1)).await;
    spool.events(1).await;
    assert_eq!(spool.entries().len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_with_the_same_session_is_noticed() {
    let (broker, spool) = (Mosquitto::start().await, RealSpool::open());
    let gateway = Gateway::connect(config(broker.port), spool.handle.clone()).await;
    let mut options = MqttOptions::new("penstock-gw-1", "127.0.0.1", broker.port);
    options.set_clean_start(false);
    let _other = Publisher::with(options).await;
    gateway.has_failed("the broker closed the connection").await;
    gateway.stop().await;
}

/// A device that speaks an older version of the protocol, which has no properties.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_may_speak_mqtt_3_1_1() {
    let (broker, mut spool) = (Mosquitto::start().await, RealSpool::open());
    let gateway = Gateway::connect(config(broker.port), spool.handle.clone()).await;
    let options = rumqttc::MqttOptions::new("old", "127.0.0.1", broker.port);
    let (client, mut eventloop) = rumqttc::AsyncClient::new(options, 4);
    let polling = tokio::spawn(async move { while eventloop.poll().await.is_ok() {} });
    client.subscribe("penstock/line-1/press-1/errors", rumqttc::QoS::AtLeastOnce).await.unwrap();
    let topic = "penstock/line-1/press-1/events";
    for number in 1..=2 {
        let payload = event("press-1", number);
        client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    assert_eq!(spool.events(2).await.len(), 2);
    polling.abort();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listens_is_said_to_the_publisher() {
    // What the contract tells publishers to look at: nobody has taken the message.
    let broker = Mosquitto::start().await;
    let mut device = Publisher::connect(broker.port).await;
    let topic = "penstock/line-1/press-1/events";
    let plain = PublishProperties::default();
    let payload = event("press-1", 1);
    let reason = device.publish_as(topic, QoS::AtLeastOnce, false, payload, plain).await;
    assert_eq!(reason, PubAckReason::NoMatchingSubscribers);
}
