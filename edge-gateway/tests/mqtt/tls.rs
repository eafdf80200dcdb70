//! A broker that wants TLS, a client certificate and a password (spec O6), and certificates and
//! passwords that are replaced while the gateway runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use edge_gateway::listen::mqtt::MqttConfig;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

use crate::check::{check, fails};
use crate::gateway::{Gate, Gateway, config};
use crate::mosquitto::Mosquitto;

/// A certificate authority.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// A new one, its certificate in that file.
    fn new(file: &Path) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "plant CA");
        let key = KeyPair::generate().unwrap();
        std::fs::write(file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    /// A certificate and its key, in `<name>.pem` and `<name>.key`.
    fn issue(&self, dir: &Path, name: &str, host: &str) {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

const SETTINGS: &str = "allow_anonymous false\npassword_file {dir}/passwords\n\
                        cafile {dir}/ca.pem\ncertfile {dir}/broker.pem\nkeyfile {dir}/broker.key\n\
                        require_certificate true\n";

fn set_password(dir: &Path, password: &str) {
    let mut command = Command::new("mosquitto_passwd");
    command.arg("-c").arg("-b").arg(dir.join("passwords")).args(["gw", password]);
    assert!(command.status().unwrap().success());
}

fn tls_config(port: u16, dir: &Path) -> MqttConfig {
    let file = |name: &str| Some::<PathBuf>(dir.join(name));
    MqttConfig {
        broker: format!("mqtts://localhost:{port}"),
        username: "gw".into(),
        password_file: file("password"),
        ca_file: file("ca.pem"),
        client_cert_file: file("gateway.pem"),
        client_key_file: file("gateway.key"),
        ..config(port)
    }
}

fn files() -> (TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("ca.pem"));
    authority.issue(dir.path(), "broker", "localhost");
    authority.issue(dir.path(), "gateway", "gw-1");
    set_password(dir.path(), "right");
    std::fs::write(dir.path().join("password"), "right\n").unwrap();
    (dir, authority)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_client_certificate_and_a_password_that_changes() {
    let (dir, authority) = files();
    let mut broker = Mosquitto::prepared(dir, SETTINGS).await;
    let dir = broker.dir.path().to_owned();
    let gateway = Gateway::connect(tls_config(broker.port, &dir), Gate::open()).await;

    // A new password at the broker: refused until it is in the gateway's file too.
    broker.kill();
    set_password(&dir, "changed");
    broker.restart().await;
    gateway.has_failed("mqtt.password_file").await;
    std::fs::write(dir.join("password"), "changed").unwrap();
    gateway.is_connected().await;

    // A new certificate for the gateway needs no restart either; a foreign one is refused.
    let foreign = Authority::new(&dir.join("foreign-ca.pem"));
    foreign.issue(&dir, "gateway", "gw-1");
    broker.kill();
    broker.restart().await;
    gateway.has_failed("mqtt.client_cert_file").await;
    authority.issue(&dir, "gateway", "gw-1");
    gateway.is_connected().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_the_right_one_is_not_talked_to() {
    let (dir, authority) = files();
    // Another name in its certificate.
    authority.issue(dir.path(), "broker", "elsewhere");
    let broker = Mosquitto::prepared(dir, SETTINGS).await;
    let dir = broker.dir.path().to_owned();
    let gateway = Gateway::start(tls_config(broker.port, &dir), Gate::open());
    gateway.has_failed("TLS with the broker").await;
    let why = gateway.state.standing().last_failure.unwrap();
    assert!(why.contains("localhost") && !why.contains("right"), "{why}");
    gateway.stop().await;

    // `check` says so too.
    let (url, file) = (format!("broker=mqtts://localhost:{}", broker.port), dir.join("ca.pem"));
    let lines = check(&[&url, &format!("ca_file={}", file.display())]).await;
    fails(&lines, "mqtt", "TLS with the broker");

    // Signed by somebody else.
    let mut other = tls_config(broker.port, &dir);
    Authority::new(&dir.join("other-ca.pem"));
    other.ca_file = Some(dir.join("other-ca.pem"));
    let gateway = Gateway::start(other, Gate::open());
    gateway.has_failed("TLS with the broker").await;
    gateway.stop().await;

    // A file that is not there, or holds nothing.
    let mut missing = tls_config(broker.port, &dir);
    missing.ca_file = Some(dir.join("nowhere.pem"));
    let gateway = Gateway::start(missing.clone(), Gate::open());
    gateway.has_failed("nowhere.pem").await;
    std::fs::write(dir.join("nowhere.pem"), "nothing").unwrap();
    gateway.has_failed("there is no certificate in").await;
    gateway.stop().await;
}
