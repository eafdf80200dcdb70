//! TLS towards devices (spec I13): TLS 1.3 and 1.2 by rustls, certificates that are replaced
//! without a restart, and client certificates where they are wanted.
//!
//! ```text
//! cert_file, key_file, client_ca_file ─▶ load.rs ─▶ watch::Receiver<Arc<ServerConfig>> ─▶ accept
//!                 ▲ watcher.rs: when they change; what is no good is told, the present one stays
//! ```
//!
//! A connection keeps the certificate that it began with. Sessions are resumed by tickets that
//! end with their configuration, so that a client certificate is looked at again after a change.

mod load;
mod metrics;
mod validity;
mod watcher;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::load::{Loaded, TlsError, load};
pub use self::metrics::TlsMetrics;
pub use self::validity::Validity;
pub use self::watcher::{Watcher, open};

/// `[http.tls]`: without a certificate, devices are served by plain HTTP.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The certificate and those that lead to its authority, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// The authorities of client certificates, PEM.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// How long a handshake may take.
    pub handshake_timeout_ms: u64,
    /// How often the files are looked at.
    pub poll_interval_ms: u64,
}

/// `http.tls.client_auth`: whether clients show a certificate. Their fleet is their key's in any
/// case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            cert_file: None,
            key_file: None,
            client_ca_file: None,
            client_auth: ClientAuth::Off,
            handshake_timeout_ms: 10_000,
            poll_interval_ms: 1_000,
        }
    }
}

impl TlsConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        if self.cert_file.is_some() != self.key_file.is_some() {
            problems.push(
                "http.tls: cert_file and key_file go together; give both, or none for plain HTTP"
                    .into(),
            );
        }
        let wants_ca = self.client_auth != ClientAuth::Off;
        if wants_ca != self.client_ca_file.is_some() {
            problems.push(
                "http.tls: client_ca_file and client_auth = \"optional\" or \"required\" go together"
                    .into(),
            );
        }
        if wants_ca && self.cert_file.is_none() {
            problems.push("http.tls: client certificates need cert_file and key_file".into());
        }
        for (key, value) in [
            ("handshake_timeout_ms", self.handshake_timeout_ms),
            ("poll_interval_ms", self.poll_interval_ms),
        ] {
            if !(10..=600_000).contains(&value) {
                problems.push(format!("http.tls.{key}: {value}; expected 10 to 600000"));
            }
        }
    }

    pub(super) const fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }
}

/// The TLS configuration of the moment; clones share it.
#[derive(Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<Loaded>>,
    fault: Arc<Mutex<Option<String>>>,
}

impl Tls {
    /// For the next connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.borrow().server)
    }

    /// From when to when the certificate in use is good; none where that can't be read.
    pub fn validity(&self) -> Option<Validity> {
        self.current.borrow().validity
    }

    /// Why the files can't be used, while they can't: the certificate in use is then an older one.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests;
