//! `[mqtt]`: which broker, which topics, and how much of it is borne. Without the section there is
//! no MQTT.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::topic::Template;

const MIB: usize = 1 << 20;

/// The section `[mqtt]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// `mqtt://host:1883`, or `mqtts://host:8883` for TLS.
    pub broker: String,
    /// The name of the session at the broker: unique there, and never changed, for the broker
    /// keeps messages under it. Empty: `penstock-` and the gateway's name.
    pub client_id: String,
    /// Who logs in; empty: nobody.
    pub username: String,
    /// The file with the password, read at every connection.
    pub password_file: Option<PathBuf>,
    /// The certificates (PEM) that the broker's must be signed by; needed for TLS.
    pub ca_file: Option<PathBuf>,
    /// The gateway's own certificate chain (PEM), for a broker that asks for one.
    pub client_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    pub client_key_file: Option<PathBuf>,
    /// Where devices publish events: `{device}` must be the event's device; `{fleet}` is the
    /// event's fleet, else `gateway.fleet`.
    pub topics: Vec<String>,
    /// Where rejections are answered; empty: nowhere.
    pub error_topic: String,
    /// How long the broker keeps the session, and the messages for it, without a connection.
    pub session_expiry_s: u32,
    /// Messages that the broker may send before the first of them is acknowledged.
    pub receive_max: u16,
    /// Bytes of messages that may wait for the disk; beyond it nothing is read.
    pub waiting_bytes_max: usize,
    /// The largest packet. The broker discards what is larger: let it refuse that of its
    /// publishers (mosquitto: `max_packet_size`).
    pub packet_bytes_max: u32,
    /// How often a silent connection is tried.
    pub keep_alive_s: u16,
    /// How long a connection may take, TLS and the broker's answer included.
    pub connect_timeout_s: u16,
    /// How soon a broken connection is made again; doubled with each failure.
    pub reconnect_first_ms: u64,
    /// The longest that is waited between two tries.
    pub reconnect_max_ms: u64,
    /// How long messages that have arrived may take after the stop.
    pub drain_timeout_ms: u64,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            broker: String::new(),
            client_id: String::new(),
            username: String::new(),
            password_file: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            topics: vec!["penstock/{fleet}/{device}/events".into()],
            error_topic: "penstock/{fleet}/{device}/errors".into(),
            session_expiry_s: 7 * 86_400,
            receive_max: 1_000,
            waiting_bytes_max: 16 * MIB,
            packet_bytes_max: (MIB + (64 << 10)) as u32,
            keep_alive_s: 30,
            connect_timeout_s: 10,
            reconnect_first_ms: 500,
            reconnect_max_ms: 30_000,
            drain_timeout_ms: 10_000,
        }
    }
}

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// A name, or an IP address as it stands in a URL.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_tls: bool,
}

/// The templates of a valid configuration.
#[derive(Clone, Debug)]
pub(super) struct Templates {
    pub(super) events: Vec<Template>,
    pub(super) errors: Option<Template>,
}

impl MqttConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let address = self.address();
        let is_tls = address.as_ref().is_ok_and(|address| address.is_tls);
        if let Err(problem) = address {
            problems.push(format!("mqtt.broker: {problem}"));
        }
        if let Err(problem) = self.templates() {
            problems.push(problem);
        }
        let mut check = |ok: bool, problem: &str| {
            if !ok {
                problems.push(format!("mqtt.{problem}"));
            }
        };
        check(
            self.client_id.len() <= 128 && !self.client_id.contains('\0'),
            "client_id: expected at most 128 bytes",
        );
        check(
            self.password_file.is_none() || !self.username.is_empty(),
            "username: empty; a password_file needs one",
        );
        check(!is_tls || self.ca_file.is_some(), "ca_file: missing; mqtts:// needs one");
        check(
            self.client_cert_file.is_some() == self.client_key_file.is_some(),
            "client_cert_file and mqtt.client_key_file: expected both or neither",
        );
        let files = [&self.ca_file, &self.client_cert_file, &self.client_key_file];
        check(
            is_tls || files.iter().all(|file| file.is_none()),
            "broker: certificates are given; expected mqtts://",
        );
        self.validate_numbers(problems);
    }

    fn validate_numbers(&self, problems: &mut Vec<String>) {
        let mut range = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("mqtt.{key}: {value}; expected {least} to {most}"));
            }
        };
        // Less than the time that somebody needs to repair a gateway would lose messages.
        range("session_expiry_s", self.session_expiry_s.into(), 60, u32::MAX.into());
        range("receive_max", self.receive_max.into(), 1, u16::MAX.into());
        range("packet_bytes_max", self.packet_bytes_max.into(), 4 << 10, 3 * MIB as u64 / 2);
        let least = u64::from(self.packet_bytes_max);
        range("waiting_bytes_max", self.waiting_bytes_max as u64, least, 1 << 30);
        range("keep_alive_s", self.keep_alive_s.into(), 5, 3_600);
        range("connect_timeout_s", self.connect_timeout_s.into(), 1, 300);
        range("reconnect_first_ms", self.reconnect_first_ms, 1, 60_000);
        range("reconnect_max_ms", self.reconnect_max_ms, self.reconnect_first_ms, 600_000);
        range("drain_timeout_ms", self.drain_timeout_ms, 0, 600_000);
    }

    /// The broker's address.
    pub(super) fn address(&self) -> Result<Address, String> {
        let url = self.broker.as_str();
        let wrong = |why: &str| format!("{why}; expected mqtt://host:1883 or mqtts://host:8883");
        if url.is_empty() {
            return Err(wrong("missing"));
        }
        // A password in the URL must not be repeated.
        if url.contains('@') {
            return Err(wrong("user and password belong into username and password_file"));
        }
        let (is_tls, authority) = match url.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err(wrong(&format!("{url:?}"))),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            // A colon within brackets is of an IPv6 address.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong(&format!("{url:?} has no port")))?)
            }
            _ => (authority, if is_tls { 8883 } else { 1883 }),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_some() && is_tls {
            return Err(wrong("an IPv6 address has no certificate that can be checked here"));
        }
        let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_host = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(named),
        };
        if !is_host || port == 0 {
            return Err(wrong(&format!("{url:?}")));
        }
        Ok(Address { host: host.to_owned(), port, is_tls })
    }

    /// The topic templates.
    pub(super) fn templates(&self) -> Result<Templates, String> {
        if self.topics.is_empty() {
            return Err("mqtt.topics: empty; expected at least one".into());
        }
        let parse = |key: &str, text: &String| {
            text.parse::<Template>().map_err(|problem| format!("mqtt.{key}: {problem}"))
        };
        let events = self.topics.iter().map(|text| parse("topics", text));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        if self.error_topic.is_empty() {
            return Ok(Templates { events, errors: None });
        }
        let errors = parse("error_topic", &self.error_topic)?;
        if !errors.is_complete() {
            return Err(format!("mqtt.error_topic: {errors}; wildcards can't be published on"));
        }
        if let Some(same) = events.iter().find(|events| events.overlaps(&errors)) {
            return Err(format!("mqtt.error_topic: {errors} is also a topic of events ({same})"));
        }
        Ok(Templates { events, errors: Some(errors) })
    }

    pub(super) const fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_s as u64)
    }

    pub(super) const fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(broker: &str) -> MqttConfig {
        MqttConfig { broker: broker.into(), ..MqttConfig::default() }
    }

    fn problems(config: &MqttConfig) -> String {
        let mut problems = Vec::new();
        config.validate(&mut problems);
        problems.join("\n")
    }

    #[test]
    fn addresses_are_read() {
        for (url, host, port, is_tls) in [
            ("mqtt://broker", "broker", 1883, false),
            ("mqtt://127.0.0.1:21883/", "127.0.0.1", 21883, false),
            ("mqtts://broker.plant.example", "broker.plant.example", 8883, true),
            ("mqtt://[::1]:1884", "[::1]", 1884, false),
            ("mqtt://[::1]", "[::1]", 1883, false),
        ] {
            let address = with(url).address().unwrap();
            assert_eq!(address, Address { host: host.into(), port, is_tls }, "{url}");
        }
        for url in
            ["", "broker:1883", "http://x", "mqtt://", "mqtt://a:b", "mqtt://a b", "mqtt://a:0"]
        {
            assert!(with(url).address().unwrap_err().contains("mqtt://host:1883"), "{url}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        let said = problems(&with("mqtt://gw:s3cret@broker"));
        assert!(said.contains("password_file") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn the_defaults_are_valid_and_what_is_wrong_is_named() {
        assert_eq!(problems(&with("mqtt://broker")), "");
        let wrong = MqttConfig {
            ca_file: Some("ca.pem".into()),
            client_key_file: Some("key.pem".into()),
            password_file: Some("password".into()),
            topics: vec!["a/#/b".into()],
            session_expiry_s: 0,
            receive_max: 0,
            packet_bytes_max: 1,
            waiting_bytes_max: 0,
            keep_alive_s: 1,
            connect_timeout_s: 0,
            reconnect_first_ms: 0,
            reconnect_max_ms: u64::MAX,
            drain_timeout_ms: u64::MAX,
            ..with("mqtt://broker")
        };
        let said = problems(&wrong);
        for key in [
            "broker",
            "client_cert_file",
            "username",
            "topics",
            "session_expiry_s",
            "receive_max",
            "packet_bytes_max",
            "waiting_bytes_max",
            "keep_alive_s",
            "connect_timeout_s",
            "reconnect_first_ms",
            "reconnect_max_ms",
            "drain_timeout_ms",
        ] {
            assert!(said.contains(&format!("mqtt.{key}: ")) || said.contains(key), "{key}: {said}");
        }
        assert!(problems(&with("mqtts://broker")).contains("mqtt.ca_file"));
        let looping = MqttConfig { topics: vec!["penstock/#".into()], ..with("mqtt://broker") };
        assert!(problems(&looping).contains("also a topic of events"));
    }
}
