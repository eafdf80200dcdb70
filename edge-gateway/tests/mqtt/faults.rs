//! What a broker may do to the gateway: repeat, forget, reuse, break off. The promise is the same
//! each time: nothing is acknowledged that is not durable.

use edge_gateway::spool::SpoolError;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, SubscribeReasonCode};

use crate::gateway::{Gate, Gateway, config};
use crate::scripted::Scripted;
use crate::{event, eventually, number_of};

fn numbers(gate: &Gate) -> Vec<usize> {
    gate.events().iter().map(|event| number_of(&event.payload)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_is_asked_for_as_the_contract_says() {
    let broker = Scripted::listen().await;
    let gateway = Gateway::start(config(broker.port()), Gate::open());
    let mut peer = broker.accept().await;
    assert_eq!(peer.client_id, "penstock-gw-1");
    assert!(!peer.clean_start);
    assert_eq!(peer.properties.session_expiry_interval, Some(7 * 86_400));
    assert_eq!(peer.properties.receive_maximum, Some(1_000));
    assert_eq!(peer.properties.max_packet_size, Some(1_114_112));
    // With an alias a message would arrive without its topic.
    assert_eq!(peer.properties.topic_alias_max, None);
    peer.accept(false).await;
    let subscribe = peer.subscribe().await;
    let filter = &subscribe.filters[0];
    assert_eq!((filter.path.as_str(), filter.qos), ("penstock/+/+/events", QoS::AtLeastOnce));
    assert!(filter.nolocal);
    assert_eq!(gateway.metric("penstock_mqtt_connected"), 0.0, "not before it is confirmed");
    peer.grant(&subscribe, SubscribeReasonCode::Success(QoS::AtLeastOnce)).await;
    gateway.is_connected().await;
    gateway.metric_is("penstock_mqtt_connected", 1.0).await;

    // The end: a DISCONNECT, so that nobody takes it for a broken connection.
    let stopping = tokio::spawn(gateway.stop());
    assert!(matches!(peer.read().await, Some(Packet::Disconnect(_))));
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_acknowledged_after_its_sync_and_in_order() {
    let (broker, gate) = (Scripted::listen().await, Gate::shut());
    let gateway = Gateway::start(config(broker.port()), gate.clone());
    let mut peer = broker.subscribed(false).await;
    peer.publish(1, "press-1", event("press-1", 1)).await;
    gate.has_arrived().await;
    // Everything that comes during the first sync shares the second.
    for pkid in 2..=300 {
        peer.publish(pkid, "press-1", event("press-1", pkid.into())).await;
    }
    gateway.metric_is("penstock_mqtt_messages_total", 300.0).await;
    gateway.metric_is("penstock_mqtt_unacknowledged_messages", 300.0).await;
    assert_eq!(gateway.metric("penstock_mqtt_acknowledged_messages_total"), 0.0);
    gate.permits.add_permits(1);
    assert_eq!(peer.puback().await, 1);
    gate.has_arrived().await;
    assert_eq!(numbers(&gate), [1]);
    gate.permits.add_permits(1);
    for pkid in 2..=300 {
        assert_eq!(peer.puback().await, pkid);
    }
    assert_eq!(numbers(&gate), (1..=300).collect::<Vec<_>>());
    gateway.metric_is("penstock_mqtt_unacknowledged_messages", 0.0).await;
    gateway.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_on_one_connection_is_never_acknowledged_on_another() {
    let (broker, gate) = (Scripted::listen().await, Gate::shut());
    let gateway = Gateway::start(config(broker.port()), gate.clone());
    let mut peer = broker.subscribed(false).await;
    peer.publish(1, "press-1", event("press-1", 1)).await;
    gate.has_arrived().await;
    peer.publish(2, "press-1", event("press-1", 2)).await;
    gateway.metric_is("penstock_mqtt_messages_total", 2.0).await;
    drop(peer);
    // The broker has forgotten the session, and uses the identifier for something else.
    let mut peer = broker.subscribed(false).await;
    peer.publish(1, "press-1", event("press-1", 3)).await;
    gateway.metric_is("penstock_mqtt_messages_total", 3.0).await;
    gate.permits.add_permits(1);
    gate.has_arrived().await;
    // Event 1 is durable, event 2 went with its connection, event 3 is being synced.
    assert_eq!(numbers(&gate), [1]);
    gate.permits.add_permits(1);
    assert_eq!(peer.puback().await, 1);
    assert_eq!(numbers(&gate), [1, 3]);
    gate.permits.add_permits(1);
    peer.publish(2, "press-1", event("press-1", 4)).await;
    // A late one for event 1 or 2 would have come before this.
    assert_eq!(peer.puback().await, 2);
    gateway.metric_is("penstock_mqtt_acknowledged_messages_total", 2.0).await;
    gateway.metric_is("penstock_mqtt_sessions_lost_total", 1.0).await;
    gateway.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_spool_takes_nothing_nothing_is_acknowledged_and_nothing_is_lost() {
    let (broker, gate) = (Scripted::listen().await, Gate::open());
    let full = || SpoolError::Full { bytes_used: 2, bytes_max: 1 };
    *gate.failures.lock().unwrap() = vec![full(), SpoolError::Disk("no".into()), full()];
    let gateway = Gateway::start(config(broker.port()), gate.clone());
    let mut peer = broker.subscribed(false).await;
    peer.publish(1, "press-1", event("press-1", 1)).await;
    gateway.metric_is("penstock_mqtt_held", 1.0).await;
    assert_eq!(numbers(&gate), [0; 0]);
    // The connection breaks meanwhile. What waits is kept, and comes twice then: no harm.
    drop(peer);
    let mut peer = broker.subscribed(true).await;
    gateway.metric_is("penstock_mqtt_held", 0.0).await;
    peer.publish(1, "press-1", event("press-1", 1)).await;
    assert_eq!(peer.puback().await, 1);
    assert_eq!(numbers(&gate), [1, 1]);
    gateway.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_stop_what_has_arrived_is_acknowledged_and_what_comes_after_is_left() {
    let (broker, gate) = (Scripted::listen().await, Gate::shut());
    let gateway = Gateway::start(config(broker.port()), gate.clone());
    let mut peer = broker.subscribed(false).await;
    peer.publish(1, "press-1", event("press-1", 1)).await;
    gate.has_arrived().await;
    let registry = gateway.registry.clone();
    let stopping = tokio::spawn(gateway.stop());
    tokio::task::yield_now().await;
    gate.permits.add_permits(1 << 10);
    assert_eq!(peer.puback().await, 1);
    assert!(matches!(peer.read().await, Some(Packet::Disconnect(_))));
    stopping.await.unwrap();
    assert_eq!(numbers(&gate), [1]);
    drop(registry);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_that_wait_are_bounded_and_acknowledgements_still_get_out() {
    let (broker, gate) = (Scripted::listen().await, Gate::shut());
    let mut config = config(broker.port());
    (config.packet_bytes_max, config.waiting_bytes_max) = (8 << 10, 8 << 10);
    let gateway = Gateway::start(config, gate.clone());
    let mut peer = broker.subscribed(false).await;
    // Far more than may wait: the gateway stops reading, and its side of the connection fills.
    let large = event("press-1", 1)
        .replace("\"metrics\"", &format!("\"x\":\"{}\",\"metrics\"", "y".repeat(3_000)));
    for pkid in 1..=40 {
        peer.publish(pkid, "press-1", large.clone()).await;
    }
    gate.has_arrived().await;
    let mut seen = 0.0;
    eventually("no more is read", || {
        let now = gateway.metric("penstock_mqtt_messages_total");
        std::mem::replace(&mut seen, now) == now && now > 2.0
    })
    .await;
    // rumqttc hands over up to ten packets that it has read at once.
    assert!(seen <= 14.0, "{seen} messages are in memory");
    gate.permits.add_permits(1 << 10);
    for pkid in 1..=40 {
        assert_eq!(peer.puback().await, pkid);
    }
    gateway.abandon().await;
}
