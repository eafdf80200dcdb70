//! The devices' side: HTTP/1.1 on TLS, or on plain TCP, `POST /v1/events` (docs/contracts/ingest.md).
//!
//! Everything that a client can make large or long is bounded:
//!
//! | what | beyond it |
//! |---|---|
//! | connections | wait in the kernel's backlog |
//! | connections of a source, open and new | closed at once |
//! | the handshake; the first request that is let in | closed |
//! | headers in bytes and time; answers that nobody reads | closed |
//! | a body in bytes; in time | 413; 408 |
//! | the bytes of all bodies that are being worked on | 429 |
//! | what its fleet may send | 429 |
//!
//! Under load the answer is 429, never a 5xx; 503 means that the gateway is stopping.
//!
//! `mqtt` takes events from a broker, through the same admission into the same spool.

mod access;
mod answer;
mod body;
mod http;
mod limit;
mod metrics;
pub mod mqtt;
mod problem;
mod server;
mod sources;
mod stall;
pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use penstock_common::clock::Clock;
use penstock_common::telemetry::traces::Traces;
use prometheus::Registry;
use serde::{Deserialize, Serialize};

pub use self::access::{Access, Auth};
use self::limit::Buckets;
pub use self::metrics::ListenMetrics;
use self::problem::Kind;
pub use self::server::serve;
use self::tls::TlsConfig;
use crate::admit::BODY_BYTES_MAX;
use crate::admit::budget::Budget;
use crate::pressure::gate::Gate;
use crate::spool::entry::Entry;
use crate::spool::{SpoolError, SpoolHandle};

/// `[http]`: where devices post, and how much of them is borne.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// `address:port`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether devices show a key.
    pub auth: Auth,
    /// Open connections; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// Open connections from one address (of IPv6, one network of /64); more are closed at once.
    pub connections_per_source_max: usize,
    /// New connections a second from one address, once that many were opened at once.
    pub connections_per_source_per_second: u32,
    /// From a connection's opening, its handshake included, to the end of the headers of the first
    /// request that is let in: who has shown no key in that time does not keep a place.
    pub first_request_timeout_ms: u64,
    /// From a connection's opening, or its last answer, to the end of the next request's headers.
    /// It is the keep-alive time as well: longer than the interval at which devices send.
    pub head_timeout_ms: u64,
    /// From the end of a request's headers to the end of its body; beyond it 408.
    pub body_timeout_ms: u64,
    /// How long an answer may find nobody to read it.
    pub write_timeout_ms: u64,
    /// Largest request body as sent; the limit of 1 MiB can be lowered.
    pub body_bytes_max: usize,
    /// Bytes of all bodies being read or waiting for the disk; beyond it 429.
    pub bodies_bytes_max: usize,
    /// How long open requests may take after the stop.
    pub drain_timeout_ms: u64,
    /// What a device is told to wait while the spool can't take its events, in seconds.
    pub retry_after_s: u64,
    /// TLS; without a certificate, plain HTTP.
    pub tls: TlsConfig,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            auth: Auth::default(),
            tls: TlsConfig::default(),
            connections_max: 10_000,
            connections_per_source_max: 1_000,
            connections_per_source_per_second: 100,
            first_request_timeout_ms: 15_000,
            head_timeout_ms: 75_000,
            body_timeout_ms: 20_000,
            write_timeout_ms: 20_000,
            body_bytes_max: BODY_BYTES_MAX,
            bodies_bytes_max: 32 << 20,
            drain_timeout_ms: 10_000,
            retry_after_s: 5,
        }
    }
}

impl ListenConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut range = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("http.{key}: {value}; expected {least} to {most}"));
            }
        };
        let body_bytes_max = self.body_bytes_max as u64;
        range("connections_max", self.connections_max as u64, 1, 1_000_000);
        let per_source = self.connections_per_source_max as u64;
        range("connections_per_source_max", per_source, 1, 1_000_000);
        let per_second = u64::from(self.connections_per_source_per_second);
        range("connections_per_source_per_second", per_second, 1, 1_000_000);
        range("first_request_timeout_ms", self.first_request_timeout_ms, 100, 3_600_000);
        range("write_timeout_ms", self.write_timeout_ms, 100, 600_000);
        range("head_timeout_ms", self.head_timeout_ms, 100, 3_600_000);
        range("body_timeout_ms", self.body_timeout_ms, 100, 600_000);
        range("body_bytes_max", body_bytes_max, 1_024, BODY_BYTES_MAX as u64);
        // Room for at least one compressed body and what it may become.
        let least = body_bytes_max + BODY_BYTES_MAX as u64;
        range("bodies_bytes_max", self.bodies_bytes_max as u64, least, 4 << 30);
        range("drain_timeout_ms", self.drain_timeout_ms, 0, 600_000);
        range("retry_after_s", self.retry_after_s, 1, 3_600);
        self.tls.validate(problems);
    }

    const fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }
}

/// Makes entries durable. The spool does; tests put other things in its place.
pub trait Durable: Send + Sync + 'static {
    /// Resolves once all `entries` are synced, or none may be relied upon.
    fn submit(&self, entries: Vec<Entry>) -> impl Future<Output = Result<(), SpoolError>> + Send;
}

impl Durable for SpoolHandle {
    async fn submit(&self, entries: Vec<Entry>) -> Result<(), SpoolError> {
        Self::submit(self, entries).await
    }
}

/// What a request goes through: the key, the fleet's limit, admission, the spool, the answer.
pub struct Ingest<D = SpoolHandle> {
    access: Access,
    buckets: Buckets,
    spool: D,
    clock: Arc<dyn Clock>,
    metrics: ListenMetrics,
    budget: Option<Budget>,
    gate: Option<Gate>,
    traces: Traces,
}

impl<D: Durable> Ingest<D> {
    /// Puts the parts together and registers the metrics.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn new(
        access: Access,
        spool: D,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        Ok(Self {
            access,
            buckets: Buckets::default(),
            spool,
            clock,
            metrics: ListenMetrics::new(registry)?,
            budget: None,
            gate: None,
            traces: Traces::default(),
        })
    }

    /// Keeps rejections within this budget; without one, all are kept.
    #[must_use]
    pub fn budgeted(self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// Asks this gate before a request's body is read.
    #[must_use]
    pub fn gated(self, gate: Gate) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Records some requests; without it, none.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Counts a request that may not come, or not now, and tells about it.
    fn refuse(&self, kind: Kind, source: IpAddr) {
        self.metrics.refused_requests.with_label_values(&[kind.name()]).inc();
        self.access.tell(kind.name(), source);
    }
}

#[cfg(test)]
mod tests;
