//! Where devices post, the key that they show there, and whom they trust.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// `pfk_` and 32 bytes in base64.
const KEY_BYTES: usize = 47;

/// An address, and a key where there is one.
#[derive(Clone, Copy)]
pub struct Target {
    /// The address.
    pub address: SocketAddr,
    key: Option<[u8; KEY_BYTES]>,
    tls: Option<&'static TlsConnector>,
}

impl Target {
    /// One that wants this key.
    ///
    /// # Errors
    /// When it can't be a fleet's key.
    pub fn with_key(address: SocketAddr, key: &str) -> anyhow::Result<Self> {
        let bytes: Option<[u8; KEY_BYTES]> = key.as_bytes().try_into().ok();
        ensure!(bytes.is_some() && key.starts_with("pfk_"), "that is no key of a fleet");
        Ok(Self { address, key: bytes, tls: None })
    }

    /// The same by TLS, by certificates of the authority in this PEM file. What is read stays in
    /// memory for good: a process has one or two of these.
    ///
    /// # Errors
    /// When the file can't be read, or has no certificate.
    pub fn trusting(self, ca_file: &Path) -> anyhow::Result<Self> {
        let read = || format!("read {}", ca_file.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file).with_context(read)? {
            roots.add(certificate.with_context(read)?)?;
        }
        ensure!(!roots.is_empty(), "{} has no certificate", ca_file.display());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { tls: Some(Box::leak(Box::new(connector))), ..self })
    }

    /// What speaks TLS to it, where it does.
    pub(super) const fn tls(&self) -> Option<&'static TlsConnector> {
        self.tls
    }

    /// The key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_ref().and_then(|key| std::str::from_utf8(key).ok())
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, key: None, tls: None }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

// By hand: the key stays out of logs.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.address)
    }
}
