//! TLS towards the broker. The files are read at every connection, so that renewed certificates
//! are used without a restart.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::MqttConfig;

/// The client's side of TLS 1.3 or 1.2.
pub(super) fn client_config(config: &MqttConfig) -> anyhow::Result<Arc<ClientConfig>> {
    let ca_file = config.ca_file.as_deref().context("mqtt.ca_file is missing")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_file)? {
        roots
            .add(certificate)
            .with_context(|| format!("a certificate of {} can't be used", ca_file.display()))?;
    }
    // Named, because more than one provider is linked.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("set up TLS")?
        .with_root_certificates(roots);
    let tls = match (&config.client_cert_file, &config.client_key_file) {
        (Some(cert_file), Some(key_file)) => {
            let key = PrivateKeyDer::from_pem_file(key_file)
                .with_context(|| format!("read the key {}", key_file.display()))?;
            builder.with_client_auth_cert(certificates(cert_file)?, key).with_context(|| {
                format!("{} and {} can't be used", cert_file.display(), key_file.display())
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(tls))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || format!("read the certificates {}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).with_context(read)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().with_context(read)?;
    ensure!(!certificates.is_empty(), "there is no certificate in {}", path.display());
    Ok(certificates)
}
