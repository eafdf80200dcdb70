//! The devices' side: HTTP/1.1 on TCP, `POST /v1/events` (docs/contracts/ingest.md).
//!
//! Everything that a client can make large is bounded: connections, header size and time, body
//! size and time, and the bytes of all bodies that are being worked on. Under load the answer is
//! 429, never a 5xx; 503 means that the gateway is stopping.

mod answer;
mod body;
mod http;
mod metrics;
mod problem;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_common::clock::Clock;
use prometheus::Registry;
use serde::{Deserialize, Serialize};

pub use self::metrics::ListenMetrics;
pub use self::server::serve;
use crate::admit::budget::Budget;
use crate::admit::{Admitter, BODY_BYTES_MAX};
use crate::pressure::gate::Gate;
use crate::spool::entry::Entry;
use crate::spool::{SpoolError, SpoolHandle};

/// `[http]`: where devices post, and how much of them is borne.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// `address:port`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Open connections; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// From a connection's opening, or its last answer, to the end of the next request's headers.
    /// It is the keep-alive time as well: longer than the interval at which devices send.
    pub head_timeout_ms: u64,
    /// From the end of a request's headers to the end of its body; beyond it 408.
    pub body_timeout_ms: u64,
    /// Largest request body as sent; the limit of 1 MiB can be lowered.
    pub body_bytes_max: usize,
    /// Bytes of all bodies being read or waiting for the disk; beyond it 429.
    pub bodies_bytes_max: usize,
    /// How long open requests may take after the stop.
    pub drain_timeout_ms: u64,
    /// What a device is told to wait while the spool can't take its events, in seconds.
    pub retry_after_s: u64,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            connections_max: 10_000,
            head_timeout_ms: 75_000,
            body_timeout_ms: 20_000,
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
        range("head_timeout_ms", self.head_timeout_ms, 100, 3_600_000);
        range("body_timeout_ms", self.body_timeout_ms, 100, 600_000);
        range("body_bytes_max", body_bytes_max, 1_024, BODY_BYTES_MAX as u64);
        // Room for at least one compressed body and what it may become.
        let least = body_bytes_max + BODY_BYTES_MAX as u64;
        range("bodies_bytes_max", self.bodies_bytes_max as u64, least, 4 << 30);
        range("drain_timeout_ms", self.drain_timeout_ms, 0, 600_000);
        range("retry_after_s", self.retry_after_s, 1, 3_600);
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

/// What a request goes through: admission, the spool, the answer.
pub struct Ingest<D = SpoolHandle> {
    admitter: Admitter,
    spool: D,
    clock: Arc<dyn Clock>,
    metrics: ListenMetrics,
    budget: Option<Budget>,
    gate: Option<Gate>,
}

impl<D: Durable> Ingest<D> {
    /// Puts the parts together and registers the metrics.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn new(
        admitter: Admitter,
        spool: D,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        Ok(Self {
            admitter,
            spool,
            clock,
            metrics: ListenMetrics::new(registry)?,
            budget: None,
            gate: None,
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
}

#[cfg(test)]
mod tests;
