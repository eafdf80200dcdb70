//! The whole gateway with a broker: what its admin port says of MQTT (spec I14).

use edge_gateway::config::GatewayConfig;
use edge_gateway::status::manager::ServiceManager;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::mosquitto::Mosquitto;
use crate::publisher::Publisher;
use crate::{PATIENCE, event};

async fn get(admin: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, reading).await.expect("no answer").unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Waits until the section `mqtt` is as wanted.
async fn section_once(admin: std::net::SocketAddr, wanted: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let status: Value = serde_json::from_str(&get(admin, "/status.json").await).unwrap();
            let section = &status["more"]["mqtt"];
            if wanted(section) {
                return section.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("never so")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_says_how_mqtt_stands() {
    let mut broker = Mosquitto::start().await;
    let dir = tempfile::tempdir().unwrap();
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let set = [
        "gateway.name=gw-1".to_owned(),
        "gateway.fleet=plant-7".to_owned(),
        "http.listen=127.0.0.1:0".to_owned(),
        "http.auth=off".to_owned(),
        "admin.listen=127.0.0.1:0".to_owned(),
        "kafka.bootstrap=127.0.0.1:1".to_owned(),
        "kafka.drain_ms_max=0".to_owned(),
        format!("spool.dir={}", dir.path().join("spool").display()),
        format!("mqtt.broker={url}"),
    ];
    let config = GatewayConfig::load(None, &set).unwrap();
    let stop = CancellationToken::new();
    let running = edge_gateway::gateway::start(config, stop.clone()).await.unwrap();
    let admin = running.addresses.admin;
    let section = section_once(admin, |mqtt| mqtt["state"] == "connected").await;
    assert_eq!((&section["broker"], &section["complaint"]), (&url.into(), &Value::Null));
    assert!(get(admin, "/readyz").await.contains("mqtt: connected\n"));

    let mut device = Publisher::connect(broker.port).await;
    device.publish("press-1", event("press-1", 1)).await;
    let section = section_once(admin, |mqtt| mqtt["acknowledged_total"] == 1).await;
    assert_eq!(section["messages_total"], 1);
    assert_eq!((&section["unacknowledged"], &section["is_held"]), (&0.into(), &false.into()));

    broker.kill();
    let section = section_once(admin, |mqtt| mqtt["state"] == "not connected").await;
    assert!(section["complaint"].as_str().unwrap().contains("the broker"), "{section}");
    // It takes events by HTTP all the same.
    assert!(get(admin, "/readyz").await.starts_with("ready\nmqtt: not connected: "));
    stop.cancel();
    running.finished(&ServiceManager::from_env()).await.unwrap();
}
