//! From files to a configuration, or to what is wrong with them and what to do.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use super::{ClientAuth, TlsConfig, Validity};

/// What devices are spoken to in.
const ALPN: &[u8] = b"http/1.1";

/// A configuration and how long its certificate is good.
#[derive(Debug)]
pub struct Loaded {
    /// For connections.
    pub server: Arc<ServerConfig>,
    /// From the latest begin to the first end in the chain; none where it can't be read.
    pub validity: Option<Validity>,
    /// SHA-256 of what was read.
    pub(super) digest: [u8; 32],
}

/// What is wrong, with which file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} ({path}): {problem}")]
pub struct TlsError {
    /// The configuration's key.
    pub key: &'static str,
    /// The file.
    pub path: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

const CERT: &str = "http.tls.cert_file";
const KEY: &str = "http.tls.key_file";
const CLIENT_CA: &str = "http.tls.client_ca_file";

/// Reads the files.
///
/// # Errors
/// With the file, what is wrong with it, and what to do.
pub fn load(config: &TlsConfig) -> Result<Loaded, TlsError> {
    let (Some(cert_file), Some(key_file)) = (&config.cert_file, &config.key_file) else {
        let problem = "is not set: set cert_file and key_file".into();
        return Err(TlsError { key: CERT, path: String::new(), problem });
    };
    let mut read = Sha256::new();
    let chain = certificates(&mut read, CERT, cert_file)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&mut read, KEY, key_file)?)
        .map_err(|error| fault(KEY, key_file, in_words(&error, "PRIVATE KEY")))?;
    let validity = chain.iter().map(|cert| Validity::of(cert)).collect::<Option<Vec<_>>>();
    let validity = validity.and_then(|each| each.into_iter().reduce(Validity::both));

    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| fault(CERT, cert_file, error.to_string()))?;
    let builder = match (config.client_auth, &config.client_ca_file) {
        (ClientAuth::Off, _) | (_, None) => builder.with_no_client_auth(),
        (wanted, Some(ca_file)) => {
            builder.with_client_cert_verifier(verifier(&mut read, provider, ca_file, wanted)?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let problem = format!(
                "is not the key of the certificate in {}: put the two that were made together",
                cert_file.display()
            );
            fault(KEY, key_file, problem)
        }
        error => fault(CERT, cert_file, format!("can't be used with its key: {error}")),
    })?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.ticketer = ring::Ticketer::new()
        .map_err(|error| fault(CERT, cert_file, format!("no key for sessions: {error}")))?;
    Ok(Loaded { server: Arc::new(server), validity, digest: read.finalize().into() })
}

fn verifier(
    read: &mut Sha256,
    provider: Arc<CryptoProvider>,
    ca_file: &Path,
    wanted: ClientAuth,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(read, CLIENT_CA, ca_file)? {
        roots.add(certificate).map_err(|error| {
            fault(CLIENT_CA, ca_file, format!("holds a certificate of no authority: {error}"))
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match wanted {
        ClientAuth::Required => builder,
        _ => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| fault(CLIENT_CA, ca_file, error.to_string()))
}

fn certificates(
    read: &mut Sha256,
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = bytes(read, key, path)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(fault(key, path, in_words(&pem::Error::NoItemsFound, "CERTIFICATE")))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(fault(key, path, in_words(&error, "CERTIFICATE"))),
    }
}

fn bytes(read: &mut Sha256, key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = std::fs::read(path).map_err(|error| {
        use std::io::ErrorKind;
        let what_to_do = match error.kind() {
            ErrorKind::NotFound => "put the file there, or correct the path",
            ErrorKind::PermissionDenied => "let the gateway's user read it",
            _ => "see whether the disk is well",
        };
        fault(key, path, format!("can't be read: {error}; {what_to_do}"))
    })?;
    read.update((bytes.len() as u64).to_le_bytes());
    read.update(&bytes);
    Ok(bytes)
}

fn in_words(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => {
            format!(
                "holds no \"-----BEGIN {wanted}-----\" part: it must be PEM, not DER or PKCS#12"
            )
        }
        error => format!("is no good PEM: {error}; copy it again"),
    }
}

fn fault(key: &'static str, path: &Path, problem: String) -> TlsError {
    TlsError { key, path: path.display().to_string(), problem }
}
