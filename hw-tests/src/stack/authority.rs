//! A certificate for a gateway, by an authority that lives as long as the run.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// The files of a certificate for 127.0.0.1.
pub(super) struct Issued {
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
    /// Whom devices trust.
    pub(super) ca_file: PathBuf,
}

/// Makes them in a directory.
pub(super) fn issue(dir: &Path) -> anyhow::Result<Issued> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
    let write = |name: &str, pem: String| {
        let path = dir.join(name);
        std::fs::write(&path, pem).with_context(|| format!("write {}", path.display()))?;
        anyhow::Ok(path)
    };
    Ok(Issued {
        cert_file: write("gateway.pem", certificate.pem())?,
        key_file: write("gateway.key", key.serialize_pem())?,
        ca_file: write("ca.pem", authority.pem())?,
    })
}
