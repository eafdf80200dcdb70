//! The way to the facility's MQTT broker: connection, login, subscription.

use std::time::Duration;

use super::{Level, Report};
use crate::config::GatewayConfig;
use crate::listen::mqtt::MqttConfig;
use crate::listen::mqtt::probe::{Failed, Probe, ProbeError, probe};

/// How long the broker may take for its answers, beside the connection.
const ANSWER: Duration = Duration::from_secs(8);

/// Says nothing where MQTT is not used.
pub(super) fn check(report: &mut Report, config: &GatewayConfig) {
    let Some(mqtt) = &config.mqtt else { return };
    let patience = ANSWER + Duration::from_secs(mqtt.connect_timeout_s.into());
    match probe(mqtt, &config.gateway.name, patience) {
        Ok(probe) => answered(report, mqtt, &probe),
        Err(error) => {
            let found = format!("{}: {error}", mqtt.broker);
            report.add("mqtt", Level::Fail, found, todo(&error));
        }
    }
}

fn answered(report: &mut Report, config: &MqttConfig, probe: &Probe) {
    let user = match config.username.as_str() {
        "" => "without a user".to_owned(),
        user => format!("as {user}"),
    };
    report.ok("mqtt", format!("{} lets this gateway in, {user}", config.broker));
    for (filter, granted) in &probe.subscriptions {
        match granted {
            Ok(()) => report.ok("mqtt topic", format!("{filter} may be read, with QoS 1")),
            Err(why) => {
                let todo = format!(
                    "Let the broker's operator allow this user (tried as client {}) to read the \
                     topic with QoS 1; check mqtt.topics.",
                    probe.client_id
                );
                report.add("mqtt topic", Level::Fail, why, todo);
            }
        }
    }
    let ours = config.packet_bytes_max;
    if probe.packet_bytes_max.is_none_or(|theirs| theirs > ours) {
        let theirs = probe
            .packet_bytes_max
            .map_or_else(|| "packets of any size".into(), |theirs| format!("{theirs} bytes"));
        let found = format!(
            "the broker takes {theirs} from devices; what is over {ours} bytes it drops on the \
             way here"
        );
        let todo = format!(
            "Lower its limit, so that devices are told (mosquitto: max_packet_size {ours})."
        );
        report.add("mqtt", Level::Warn, found, todo);
    }
}

fn todo(error: &ProbeError) -> &'static str {
    match error.failed {
        Failed::Files => "Correct the file, or where mqtt.* says that it is.",
        Failed::Unreachable => {
            "Check mqtt.broker (name and port), the network, and that the broker runs there."
        }
        Failed::Tls => {
            "Check mqtt.ca_file, mqtt.client_cert_file, this machine's clock, the name in \
             mqtt.broker, and that the port is the one for TLS."
        }
        Failed::Login => "Check mqtt.username and mqtt.password_file with the broker's operator.",
        Failed::Answer => {
            "Check the port: is it an MQTT 5 broker's, and does it want TLS (mqtts://)? Its log \
             says more."
        }
    }
}
