//! TLS on real sockets (spec I13, O6): versions, client certificates, rotation under load.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edge_gateway::listen::ListenConfig;
use edge_gateway::listen::tls::{ClientAuth, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Client, JSON, PATIENCE, request};
use crate::event;
use crate::server::{RealSpool, Server};

/// An authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for the gateway or a client, and its key.
    fn issue(&self, end_year: i32) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(end_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// The files of a gateway.
struct Files {
    dir: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap(), authority: Authority::new() };
        files.put(&files.authority.issue(2040));
        std::fs::write(files.path("ca.pem"), files.authority.0.pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, (certificate, key): &(String, String)) {
        for (name, text) in [("cert.pem", certificate), ("key.pem", key)] {
            std::fs::write(self.path("new"), text).unwrap();
            std::fs::rename(self.path("new"), self.path(name)).unwrap();
        }
    }

    fn config(&self, client_auth: ClientAuth) -> ListenConfig {
        let tls = TlsConfig {
            cert_file: Some(self.path("cert.pem")),
            key_file: Some(self.path("key.pem")),
            client_ca_file: (client_auth != ClientAuth::Off).then(|| self.path("ca.pem")),
            client_auth,
            handshake_timeout_ms: 1_000,
            poll_interval_ms: 10,
        };
        ListenConfig { tls, ..ListenConfig::default() }
    }

    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shown: Option<(String, String)>,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config).into()
    }
}

async fn connect(
    server: &Server,
    connector: &TlsConnector,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Client::on(connector.connect(name, stream).await?))
}

#[tokio::test]
async fn both_versions_are_spoken_and_nothing_else() {
    let (files, mut spool) = (Files::new(), RealSpool::open());
    let server = Server::start(files.config(ClientAuth::Off), spool.handle.clone()).await;
    for version in [&TLS12, &TLS13] {
        let mut client = connect(&server, &files.client(&[version], None)).await.unwrap();
        let (_, session) = client.stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        for number in 0..3 {
            assert_eq!(client.post_json(event(number)).await.status, 202);
        }
    }
    assert_eq!(spool.entries().len(), 6);
    // Plain HTTP is no handshake.
    let mut plain = server.client().await;
    plain.send(request(JSON, event(1).as_bytes())).await;
    assert!(plain.answer().await.is_none());
    eventually("the failed handshake is counted", || {
        server.metric("penstock_gateway_failed_handshakes_total") >= 1.0
    })
    .await;
    let expiry = server.metric("penstock_tls_certificate_expiry_timestamp_seconds");
    assert_eq!(expiry, 2_208_988_800.0, "2040-01-01");
    server.stop().await;
    assert!(spool.entries().is_empty());
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_in_time() {
    let (files, spool) = (Files::new(), RealSpool::open());
    let server = Server::start(files.config(ClientAuth::Off), spool.handle.clone()).await;
    let mut silent = server.client().await;
    let mut slow = server.client().await;
    slow.send([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
    assert!(silent.is_closed().await);
    assert!(slow.is_closed().await);
    eventually("both are counted", || {
        server.metric("penstock_gateway_failed_handshakes_total") == 2.0
    })
    .await;
}

#[tokio::test]
async fn client_certificates_are_asked_for_as_configured() {
    let (files, spool) = (Files::new(), RealSpool::open());
    let foreign = Authority::new();
    for (client_auth, without, with_foreign) in [
        (ClientAuth::Off, true, true),
        (ClientAuth::Optional, true, false),
        (ClientAuth::Required, false, false),
    ] {
        let server = Server::start(files.config(client_auth), spool.handle.clone()).await;
        for (shown, expected) in [
            (None, without),
            (Some(files.authority.issue(2040)), true),
            (Some(foreign.issue(2040)), with_foreign),
            (Some(files.authority.issue(2021)), client_auth == ClientAuth::Off),
        ] {
            for version in [&TLS12, &TLS13] {
                let connector = files.client(&[version], shown.clone());
                // TLS 1.3 tells a client of a refusal with the first thing that it reads.
                let got_in = match connect(&server, &connector).await {
                    Err(_) => false,
                    Ok(mut client) => {
                        let sent = client.try_send(request(JSON, event(1).as_bytes())).await;
                        sent.is_ok() && client.answer().await.is_some_and(|a| a.status == 202)
                    }
                };
                assert_eq!(got_in, expected, "{client_auth:?}, {version:?}, {shown:?}");
            }
        }
        server.stop().await;
    }
}

/// I13: new certificates while devices come and go; not one request fails.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_rotated_under_load() {
    const DEVICES: usize = 6;
    const ROTATIONS: u64 = 5;
    let (files, mut spool) = (Files::new(), RealSpool::open());
    let server = Arc::new(Server::start(files.config(ClientAuth::Off), spool.handle.clone()).await);
    let (sent, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut devices = Vec::new();
    for device in 0..DEVICES {
        let (server, sent, stop) = (server.clone(), sent.clone(), stop.clone());
        let connector = files.client(&[&TLS13, &TLS12], None);
        devices.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let mut client = connect(&server, &connector).await.unwrap();
                // Some stay for long, some come for one request.
                for _ in 0..=device * 10 {
                    let number = sent.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(client.post_json(event(number)).await.status, 202);
                }
            }
        }));
    }
    for rotation in 1..=ROTATIONS {
        let until = sent.load(Ordering::SeqCst) + 100;
        eventually("more is sent", || sent.load(Ordering::SeqCst) >= until).await;
        let issued = files.authority.issue(2030 + rotation as i32);
        files.put(&issued);
        eventually("the new certificate is taken", || {
            server.metric("penstock_tls_certificates_taken_total") >= rotation as f64
        })
        .await;
        let client = connect(&server, &files.client(&[&TLS13], None)).await.unwrap();
        let shown = client.stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        assert_eq!(shown, CertificateDer::from_pem_slice(issued.0.as_bytes()).unwrap());
    }
    stop.store(true, Ordering::SeqCst);
    for device in devices {
        device.await.unwrap();
    }
    // Each once, however its two files came.
    assert_eq!(server.metric("penstock_tls_certificates_taken_total"), ROTATIONS as f64);
    assert_eq!(server.metric("penstock_tls_certificates_refused_total"), 0.0);
    let stored = spool.entries().len();
    assert_eq!(stored, sent.load(Ordering::SeqCst));
    println!("{stored} requests over {ROTATIONS} rotations, none failed");
}

#[tokio::test]
async fn a_certificate_that_is_no_good_does_not_take_the_place_of_one_that_is() {
    let (files, spool) = (Files::new(), RealSpool::open());
    let server = Server::start(files.config(ClientAuth::Off), spool.handle.clone()).await;
    let tls = server.tls.clone().unwrap();
    let good = files.authority.issue(2040);
    let other = files.authority.issue(2040);
    for (what, certificate, key, fault) in [
        ("another's key", &good.0, &other.1, "not the key of the certificate"),
        ("no PEM", &"nonsense".to_owned(), &good.1, "BEGIN CERTIFICATE"),
        ("one that has ended", &files.authority.issue(2021).0, &good.1, ""),
    ] {
        files.put(&(certificate.clone(), key.clone()));
        eventually(what, || tls.fault().is_some_and(|told| told.contains(fault))).await;
        let client = connect(&server, &files.client(&[&TLS13], None)).await;
        assert_eq!(client.unwrap().post_json(event(1)).await.status, 202, "{what}");
    }
    let ended = files.authority.issue(2021);
    files.put(&ended);
    eventually("one that has ended", || {
        tls.fault().is_some_and(|told| told.contains("has ended already"))
    })
    .await;
    assert_eq!(server.metric("penstock_tls_faulty"), 1.0);
    files.put(&good);
    eventually("a good one is taken", || tls.fault().is_none()).await;
    assert_eq!(server.metric("penstock_tls_faulty"), 0.0);
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
