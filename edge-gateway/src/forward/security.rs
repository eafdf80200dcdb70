//! How the connection to Kafka is secured (spec I13, O6): TLS, with a certificate of the gateway's
//! own (mutual TLS) or a user's name and password (SASL/SCRAM).
//!
//! Secrets stand in files of their own, never in the configuration, and are read when a connection
//! is built. [`Credentials`] notices that they changed, so that a rotation needs no restart.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The largest file of a certificate, key or password.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `[kafka.tls]`. Its presence turns TLS on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The authorities (PEM) that brokers' certificates are held against; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// The gateway's own certificate chain (PEM), for brokers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub key_file: Option<PathBuf>,
}

/// `[kafka.sasl]`. Its presence turns SASL on, within TLS.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    /// `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user.
    pub username: String,
    /// The file with the password; line ends at its end don't count.
    pub password_file: PathBuf,
}

/// What was read from the files. It is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    password: Option<String>,
    /// Of all files.
    digest: [u8; 32],
}

/// Adds what is wrong to `problems`.
pub fn validate(tls: Option<&TlsConfig>, sasl: Option<&SaslConfig>, problems: &mut Vec<String>) {
    if let Some(tls) = tls
        && tls.cert_file.is_some() != tls.key_file.is_some()
    {
        problems.push("kafka.tls: cert_file and key_file belong together; give both".into());
    }
    let Some(sasl) = sasl else { return };
    if tls.is_none() {
        let problem = "kafka.sasl: only within TLS; add the section [kafka.tls]";
        problems.push(problem.into());
    }
    if !["SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&sasl.mechanism.as_str()) {
        let got = &sasl.mechanism;
        problems.push(format!(
            "kafka.sasl.mechanism: {got:?}; expected SCRAM-SHA-256 or SCRAM-SHA-512"
        ));
    }
    if sasl.username.is_empty() {
        problems.push("kafka.sasl.username: is empty".into());
    }
}

/// Adds librdkafka's settings for the connection.
pub fn secure(
    settings: &mut ClientConfig,
    tls: Option<&TlsConfig>,
    sasl: Option<&SaslConfig>,
    credentials: &Credentials,
) {
    let protocol = match (tls, sasl) {
        (None, _) => "plaintext",
        (Some(_), None) => "ssl",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    settings.set("security.protocol", protocol);
    if let Some(TlsConfig { ca_file, cert_file, key_file }) = tls {
        for (key, path) in [
            ("ssl.ca.location", ca_file),
            ("ssl.certificate.location", cert_file),
            ("ssl.key.location", key_file),
        ] {
            if let Some(path) = path {
                settings.set(key, path.display().to_string());
            }
        }
    }
    if let Some(SaslConfig { mechanism, username, .. }) = sasl {
        settings.set("sasl.mechanism", mechanism).set("sasl.username", username);
    }
    if let Some(password) = &credentials.password {
        settings.set("sasl.password", password);
    }
}

/// What a complaint of librdkafka's about a secured connection means, and what to do; none for
/// complaints about something else. It says what went wrong in words only.
pub fn explain(complaint: &str) -> Option<(&'static str, &'static str)> {
    let complaint = complaint.to_lowercase();
    let said = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if said(&[
        "alert certificate required",
        "alert bad certificate",
        "alert unknown ca",
        "alert certificate unknown",
        "alert certificate expired",
        "alert certificate revoked",
    ]) {
        return Some((
            "the broker does not accept this gateway's certificate",
            "Check kafka.tls.cert_file and kafka.tls.key_file with the operator, and whether the \
             certificate has expired.",
        ));
    }
    if said(&[
        "certificate verify failed",
        "certificate is not yet valid",
        "certificate has expired",
    ]) {
        return Some((
            "the broker's certificate is not trusted",
            "Check this machine's clock, the broker's certificate, and kafka.tls.ca_file.",
        ));
    }
    if said(&["ssl handshake", "ssl_", "ssl routines", "security.protocol"]) {
        return Some((
            "no connection comes about as [kafka.tls] wants it",
            "Check the port (TLS and plain Kafka have ports of their own), [kafka.tls], and \
             whether the broker asks for a user ([kafka.sasl]).",
        ));
    }
    said(&["sasl", "authentication"]).then_some((
        "the broker does not accept this gateway's user or password",
        "Check the user and the password in [kafka.sasl] with the operator.",
    ))
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// With the file that can't be read; never with what is in it.
    pub fn read(tls: Option<&TlsConfig>, sasl: Option<&SaslConfig>) -> anyhow::Result<Self> {
        let mut hash = Sha256::new();
        let mut password = None;
        let files = tls.map(|tls| {
            let TlsConfig { ca_file, cert_file, key_file } = tls;
            [
                ("kafka.tls.ca_file", ca_file),
                ("kafka.tls.cert_file", cert_file),
                ("kafka.tls.key_file", key_file),
            ]
        });
        for (key, path) in files.into_iter().flatten() {
            let Some(path) = path else { continue };
            let bytes = read(key, path)?;
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        if let Some(sasl) = sasl {
            let (key, path) = ("kafka.sasl.password_file", &sasl.password_file);
            let bytes = read(key, path)?;
            hash.update(&bytes);
            let Ok(text) = String::from_utf8(bytes) else {
                bail!("{key}: {} is no text in UTF-8", path.display());
            };
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() {
                bail!("{key}: {} is empty", path.display());
            }
            password = Some(text.to_owned());
        }
        Ok(Self { password, digest: hash.finalize().into() })
    }
}

fn read(key: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || -> std::io::Result<Vec<u8>> {
        if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other("it is too large"));
        }
        std::fs::read(path)
    };
    read().with_context(|| format!("{key}: read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl(mechanism: &str, password_file: PathBuf) -> SaslConfig {
        SaslConfig { mechanism: mechanism.into(), username: "gw".into(), password_file }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let problems = |tls: Option<&TlsConfig>, sasl: Option<&SaslConfig>| {
            let mut problems = Vec::new();
            validate(tls, sasl, &mut problems);
            problems.join("\n")
        };
        let tls = TlsConfig::default();
        let good = sasl("SCRAM-SHA-512", "p".into());
        assert_eq!(problems(None, None), "");
        assert_eq!(problems(Some(&tls), Some(&good)), "");
        assert!(problems(None, Some(&good)).contains("[kafka.tls]"));
        let plain = sasl("PLAIN", "p".into());
        assert!(problems(Some(&tls), Some(&plain)).contains("kafka.sasl.mechanism"));
        let half = TlsConfig { key_file: Some("k".into()), ..TlsConfig::default() };
        assert!(problems(Some(&half), None).contains("cert_file and key_file"));
    }

    #[test]
    fn a_rotation_is_noticed_and_no_secret_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (password, ca) = (dir.path().join("password"), dir.path().join("ca.pem"));
        let tls = TlsConfig { ca_file: Some(ca.clone()), ..TlsConfig::default() };
        let sasl = sasl("SCRAM-SHA-256", password.clone());
        let read = || Credentials::read(Some(&tls), Some(&sasl));
        let missing = format!("{:#}", read().err().unwrap());
        assert!(missing.contains("kafka.tls.ca_file") && missing.contains("ca.pem"), "{missing}");
        std::fs::write(&ca, "a").unwrap();
        std::fs::write(&password, "\n").unwrap();
        let empty = format!("{:#}", read().err().unwrap());
        assert!(empty.contains("kafka.sasl.password_file") && empty.contains("is empty"));
        std::fs::write(&password, "s3cret\r\n").unwrap();
        let first = read().unwrap();
        assert_eq!(first.password.as_deref(), Some("s3cret"));
        assert!(first == read().unwrap());
        std::fs::write(&ca, "b").unwrap();
        assert!(first != read().unwrap());
        assert!(!format!("{sasl:?}").contains("s3cret"));
        let mut settings = ClientConfig::new();
        secure(&mut settings, Some(&tls), Some(&sasl), &first);
        assert_eq!(settings.get("sasl.password"), Some("s3cret"));
        assert_eq!(settings.get("security.protocol"), Some("sasl_ssl"));
    }

    #[test]
    fn complaints_are_told_apart() {
        for (complaint, found) in [
            ("SASL authentication error: invalid credentials", "user or password"),
            ("SSL handshake failed: error:0A000086:certificate verify failed", "not trusted"),
            ("ssl/tls alert certificate required: SSL alert number 116", "this gateway's cert"),
            ("Disconnected: might be caused by incorrect security.protocol", "[kafka.tls]"),
        ] {
            let (said, todo) = explain(complaint).unwrap();
            assert!(said.contains(found) && todo.contains("kafka."), "{complaint}: {said}");
        }
        assert_eq!(explain("Connect to ipv4#127.0.0.1:1 failed: Connection refused"), None);
    }
}
