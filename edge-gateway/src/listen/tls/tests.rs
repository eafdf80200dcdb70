use std::path::Path;

use penstock_common::clock::ManualClock;
use penstock_common::event::UnixMicros;
use prometheus::Registry;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

fn certificate(from: i32, to: i32) -> (String, String) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn files(certificate: &str, key: &str) -> (TempDir, TlsConfig) {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        Some(dir.path().join(name))
    };
    let config = TlsConfig {
        cert_file: put("cert.pem", certificate),
        key_file: put("key.pem", key),
        ..TlsConfig::default()
    };
    (dir, config)
}

fn micros(text: &str) -> UnixMicros {
    UnixMicros::parse_rfc3339(text).unwrap()
}

#[test]
fn the_end_of_a_certificate_is_read_whatever_its_century() {
    for (from, to) in [(1999, 2049), (2026, 2050), (1970, 2026), (2049, 9998)] {
        let (certificate, key) = certificate(from, to);
        let validity = load(&files(&certificate, &key).1).unwrap().validity.unwrap();
        assert_eq!(validity.not_before, micros(&format!("{from}-01-01T00:00:00Z")));
        assert_eq!(validity.not_after, micros(&format!("{to}-01-01T00:00:00Z")));
    }
}

/// The first end in the chain counts: that of an intermediate ends the trust as well.
#[test]
fn a_chain_is_good_while_all_of_it_is() {
    let (leaf, key) = certificate(2020, 2040);
    let (other, _) = certificate(2025, 2030);
    let validity = load(&files(&format!("{leaf}{other}"), &key).1).unwrap().validity.unwrap();
    assert_eq!(validity.not_before, micros("2025-01-01T00:00:00Z"));
    assert_eq!(validity.not_after, micros("2030-01-01T00:00:00Z"));
}

#[test]
fn what_is_wrong_is_told_with_the_file_and_what_to_do() {
    let (good, key) = certificate(2020, 2040);
    let (other, _) = certificate(2020, 2040);
    let fault = |certificate: &str, key: &str| load(&files(certificate, key).1).unwrap_err();
    for (error, key, words) in [
        (fault(&other, &key), "http.tls.key_file", "the two that were made together"),
        (fault("", &key), "http.tls.cert_file", "BEGIN CERTIFICATE"),
        (fault(&good, &good), "http.tls.key_file", "BEGIN PRIVATE KEY"),
        (fault(&good[..good.len() - 30], &key), "http.tls.cert_file", "copy it again"),
    ] {
        let text = error.to_string();
        assert!(error.key == key && text.contains(words), "{text}");
        assert!(!text.contains("MIG"), "nothing of the files is repeated: {text}");
    }
    let (dir, config) = files(&good, &key);
    std::fs::remove_file(dir.path().join("key.pem")).unwrap();
    let text = load(&config).unwrap_err().to_string();
    assert!(text.contains("key.pem") && text.contains("correct the path"), "{text}");
    let (dir, config) = files(&good, &key);
    let no_authority = TlsConfig {
        client_ca_file: Some(dir.path().join("none.pem")),
        client_auth: ClientAuth::Required,
        ..config
    };
    assert_eq!(load(&no_authority).unwrap_err().key, "http.tls.client_ca_file");
}

#[test]
fn an_ended_certificate_is_better_than_none_at_the_start() {
    let (certificate, key) = certificate(2020, 2021);
    let (_dir, config) = files(&certificate, &key);
    let clock = Arc::new(ManualClock::new(micros("2026-01-01T00:00:00Z")));
    let metrics = TlsMetrics::new(&Registry::new()).unwrap();
    let (tls, _) = open(config, clock, metrics.clone()).unwrap();
    assert_eq!(tls.validity().unwrap().not_after, micros("2021-01-01T00:00:00Z"));
    assert_eq!(metrics.expiry.get(), 1_609_459_200);
}

#[test]
fn settings_that_do_not_go_together_are_named() {
    let some = || Some(Path::new("x").to_owned());
    for (config, words) in [
        (TlsConfig { cert_file: some(), ..TlsConfig::default() }, "cert_file and key_file"),
        (TlsConfig { client_ca_file: some(), ..TlsConfig::default() }, "client_auth"),
        (
            TlsConfig {
                client_auth: ClientAuth::Required,
                client_ca_file: some(),
                ..TlsConfig::default()
            },
            "need cert_file",
        ),
        (TlsConfig { handshake_timeout_ms: 0, ..TlsConfig::default() }, "handshake_timeout_ms"),
    ] {
        let mut problems = Vec::new();
        config.validate(&mut problems);
        assert!(problems.join("\n").contains(words), "{problems:?}");
    }
    let mut problems = Vec::new();
    TlsConfig::default().validate(&mut problems);
    assert!(problems.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No bytes make it panic, cut or changed.
    #[test]
    fn any_bytes_have_a_validity_or_none(
        at in 0_usize..400, byte in any::<u8>(), length in 0_usize..600, noise in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        static PEM: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let der = PEM.get_or_init(|| {
            CertificateDer::from_pem_slice(certificate(2020, 2040).0.as_bytes()).unwrap().to_vec()
        });
        let mut changed = der.clone();
        if let Some(place) = changed.get_mut(at) {
            *place = byte;
        }
        changed.truncate(length);
        let _ = Validity::of(&changed);
        let _ = Validity::of(&noise);
        let _ = Validity::of(&[&changed[..changed.len().min(at)], &noise[..]].concat());
    }
}
