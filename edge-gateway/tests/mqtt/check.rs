//! `edge-gateway check` (spec I14) on the way to the broker: one thing broken at a time.

use edge_gateway::check::{self, Level};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PublishProperties, SubscribeReasonCode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::event;
use crate::gateway::{Gate, Gateway, config};
use crate::mosquitto::Mosquitto;
use crate::publisher::Publisher;
use crate::scripted::Scripted;

/// The lines about MQTT, with these settings of `[mqtt]`.
pub(crate) async fn check(set: &[&str]) -> Vec<check::Line> {
    let dir = tempfile::tempdir().unwrap();
    let spool = format!("spool.dir={}", dir.path().join("spool").display());
    let usual = [
        "gateway.name=gw-1",
        "gateway.fleet=plant-7",
        "http.listen=127.0.0.1:0",
        "http.auth=off",
        "admin.listen=127.0.0.1:0",
        "kafka.bootstrap=127.0.0.1:1",
        &spool,
    ];
    let usual = usual.map(str::to_owned).into_iter();
    let set = usual.chain(set.iter().map(|item| format!("mqtt.{item}"))).collect::<Vec<_>>();
    let checking = tokio::task::spawn_blocking(move || check::run(None, &set));
    let lines = checking.await.unwrap().lines;
    lines.into_iter().filter(|line| line.check.starts_with("mqtt")).collect()
}

/// That this is the only line about it, and that there is something to do.
pub(crate) fn fails(lines: &[check::Line], check: &str, words: &str) {
    let failed: Vec<_> = lines.iter().filter(|line| line.level == Level::Fail).collect();
    let [line] = failed[..] else { panic!("{lines:#?}") };
    assert_eq!(line.check, check);
    assert!(line.found.contains(words), "{words:?} is not in {:?}", line.found);
    assert!(!line.todo.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_broker_is_good_and_a_running_gateway_is_not_disturbed() {
    let broker = Mosquitto::start().await;
    let url = format!("broker=mqtt://127.0.0.1:{}", broker.port);
    let lines = check(&[&url]).await;
    let found: Vec<_> = lines.iter().map(|line| (line.check, line.level)).collect();
    assert_eq!(found, [("mqtt", Level::Ok), ("mqtt topic", Level::Ok)], "{lines:#?}");
    assert!(lines[1].found.contains("penstock/+/+/events"));
    // Nothing of it stays at the broker: a message would have no place to go.
    let mut device = Publisher::connect(broker.port).await;
    let topic = "penstock/line-1/press-1/events";
    let plain = PublishProperties::default;
    let payload = event("press-1", 1);
    let reason = device.publish_as(topic, QoS::AtLeastOnce, false, payload, plain()).await;
    assert_eq!(reason, PubAckReason::NoMatchingSubscribers);

    let gateway = Gateway::connect(config(broker.port), Gate::open()).await;
    assert!(check(&[&url]).await.iter().all(|line| line.level == Level::Ok));
    device.publish("press-1", event("press-1", 2)).await;
    gateway.metric_is("penstock_mqtt_acknowledged_messages_total", 1.0).await;
    assert_eq!(gateway.metric("penstock_mqtt_connections_total"), 1.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_there_or_is_something_else() {
    assert_eq!(check(&[]).await.len(), 0, "MQTT is not used");
    fails(&check(&["broker=mqtt://127.0.0.1:1"]).await, "mqtt", "can't be reached");
    let nowhere = "broker=mqtt://nowhere.invalid";
    fails(&check(&[nowhere]).await, "mqtt", "can't be reached");
    let missing = ["broker=mqtt://127.0.0.1:1", "username=gw", "password_file=/nowhere"];
    fails(&check(&missing).await, "mqtt", "password file /nowhere");

    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("broker=mqtt://{}", other.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = other.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    fails(&check(&[&url]).await, "mqtt", "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_allow_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("passwords"), "").unwrap();
    std::fs::write(dir.path().join("wrong"), "a secret").unwrap();
    let settings = "allow_anonymous false\npassword_file {dir}/passwords\n";
    let broker = Mosquitto::prepared(dir, settings).await;
    let url = format!("broker=mqtt://127.0.0.1:{}", broker.port);
    let file = format!("password_file={}", broker.dir.path().join("wrong").display());
    let lines = check(&[&url, "username=gw", &file]).await;
    fails(&lines, "mqtt", "refuses the login");
    assert!(!format!("{lines:?}").contains("a secret"));

    // mosquitto grants every subscription and then delivers nothing; others say so.
    let broker = Scripted::listen().await;
    let url = format!("broker=mqtt://127.0.0.1:{}", broker.port());
    let checking = tokio::spawn(async move { check(&[&url]).await });
    let mut peer = broker.accept().await;
    assert_eq!((peer.client_id.as_str(), peer.clean_start), ("penstock-gw-1-check", true));
    assert_eq!(peer.properties.session_expiry_interval, Some(0));
    peer.accept(false).await;
    let subscribe = peer.subscribe().await;
    peer.grant(&subscribe, SubscribeReasonCode::NotAuthorized).await;
    let lines = checking.await.unwrap();
    fails(&lines, "mqtt topic", "may this user read it");
    // It said nothing of its largest packet.
    let warned = lines.iter().find(|line| line.level == Level::Warn).unwrap();
    assert!(warned.todo.contains("max_packet_size"), "{warned:?}");
}
