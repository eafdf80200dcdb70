//! What a connection is made with.

use anyhow::{Context, anyhow};
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::ConnectProperties;
use rumqttc::{TlsConfiguration, Transport};

use super::ANSWERS_OPEN_MAX;
use super::config::MqttConfig;
use super::tls;

/// What becomes of the session when the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// It stays for the configured time, with what was not acknowledged.
    Kept,
    /// It goes with the connection.
    Passing,
}

/// The name of the session at the broker.
pub(super) fn client_id(config: &MqttConfig, gateway: &str) -> String {
    match config.client_id.as_str() {
        "" => format!("penstock-{gateway}"),
        given => given.to_owned(),
    }
}

/// Read anew for every connection: password and certificates may have been renewed.
pub(super) fn read(
    config: &MqttConfig,
    client_id: &str,
    session: Session,
) -> anyhow::Result<MqttOptions> {
    let address = config.address().map_err(|problem| anyhow!(problem))?;
    let is_kept = session == Session::Kept;
    let mut options = MqttOptions::new(client_id, &address.host, address.port);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options
        .set_network_options(network)
        .set_keep_alive(config.keep_alive())
        .set_connection_timeout(config.connect_timeout_s.into())
        .set_outgoing_inflight_upper_limit(ANSWERS_OPEN_MAX)
        .set_clean_start(!is_kept)
        .set_manual_acks(true);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(if is_kept { config.session_expiry_s } else { 0 });
    properties.receive_maximum = Some(config.receive_max);
    properties.max_packet_size = Some(config.packet_bytes_max);
    options.set_connect_properties(properties);
    if !config.username.is_empty() {
        let password = match &config.password_file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("read the password file {}", path.display()))?,
            None => String::new(),
        };
        options.set_credentials(&config.username, password.trim_end_matches(['\r', '\n']));
    }
    if address.is_tls {
        let tls = TlsConfiguration::Rustls(tls::client_config(config)?);
        options.set_transport(Transport::tls_with_config(tls));
    }
    Ok(options)
}
