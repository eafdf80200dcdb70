//! What a gateway tells people and programs on its admin port (spec I14, O1), asked over HTTP of a
//! gateway with a real spool; the bus is away.

mod budget;
mod files;
mod identity;
mod page;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_gateway::config::GatewayConfig;
use edge_gateway::gateway::{self, Running};
use edge_gateway::status::manager::ServiceManager;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Gateway {
    running: Running,
    stop: CancellationToken,
    _dir: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Gateway {
    pub(crate) async fn start(set: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = format!("spool.dir={}", dir.path().join("spool").display());
        let usual = [
            "gateway.name=bench-1",
            "gateway.fleet=press-line",
            "http.listen=127.0.0.1:0",
            "http.auth=off",
            "admin.listen=127.0.0.1:0",
            "kafka.bootstrap=127.0.0.1:1",
            "kafka.drain_ms_max=0",
            "status.interval_ms=10",
            &spool,
        ];
        let set: Vec<String> = usual.iter().chain(set).map(|item| (*item).to_owned()).collect();
        let config = GatewayConfig::load(None, &set).unwrap();
        let stop = CancellationToken::new();
        let running = gateway::start(config, stop.clone()).await.unwrap();
        Self { running, stop, _dir: dir }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.running.finished(&ServiceManager::from_env()).await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        ask(self.running.addresses.admin, &request).await
    }

    pub(crate) async fn post(&self, body: &str) -> Answer {
        let request = format!(
            "POST /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        ask(self.running.addresses.http, &request).await
    }

    pub(crate) async fn status(&self) -> Value {
        let answer = self.get("/status.json").await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Asks again until `wanted` holds.
    pub(crate) async fn status_once(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "{status:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A metric's value, summed over its labels.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.body;
        let is_it = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        };
        let lines: Vec<&str> = text.lines().filter(is_it).collect();
        assert!(!lines.is_empty(), "no metric {name}");
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        lines.into_iter().map(value).sum::<f64>() as u64
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

async fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.expect("no answer").unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A valid event.
pub(crate) fn event(number: usize) -> String {
    format!(
        r#"{{"event_id":"018f3c2a-7b1e-7c3d-9a4f-{number:012x}","device_id":"press-{number}","device_firmware_version":"1.4.2","timestamp":"2026-01-15T08:30:00Z","metrics":{{"cpu_temp":61.5,"vibration_rms":2.31,"supply_voltage":23.9}}}}"#
    )
}
