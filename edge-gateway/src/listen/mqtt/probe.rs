//! Asks the broker once how it is, for `edge-gateway check`: with a session of its own that goes
//! with the connection, so that a running gateway keeps its own session, and every message in it.

use std::time::Duration;

use anyhow::Context as _;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Filter, Packet};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop};

use super::config::MqttConfig;
use super::explain::{explain, granted, is_alert, is_login};
use super::options::{self, Session};

/// What the broker said.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The name under which it was asked.
    pub client_id: String,
    /// The largest packet that it takes; none: any.
    pub packet_bytes_max: Option<u32>,
    /// Each filter, and why it is not granted as the gateway needs it.
    pub subscriptions: Vec<(String, Result<(), String>)>,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// A file that the configuration names can't be used.
    Files,
    /// Nobody answers there.
    Unreachable,
    /// TLS does not come about.
    Tls,
    /// The broker refuses the login.
    Login,
    /// It answers, but not as the gateway needs it.
    Answer,
}

/// Why it could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{said}")]
pub struct ProbeError {
    /// How far it came.
    pub failed: Failed,
    /// What was found, for people.
    pub said: String,
}

/// Logs in, subscribes, and goes.
///
/// # Errors
/// When there is no connection, or no answer within `patience`.
pub fn probe(config: &MqttConfig, gateway: &str, patience: Duration) -> Result<Probe, ProbeError> {
    let failed = |failed: Failed, error: anyhow::Error| {
        let said = format!("{error:#}");
        ProbeError { failed, said }
    };
    let client_id = options::client_id(config, gateway) + "-check";
    let options = options::read(config, &client_id, Session::Passing)
        .map_err(|error| failed(Failed::Files, error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the check's runtime")
        .map_err(|error| failed(Failed::Answer, error))?;
    runtime.block_on(async {
        let (client, eventloop) = AsyncClient::new(options, 8);
        match tokio::time::timeout(patience, ask(config, &client, eventloop)).await {
            Ok(answer) => answer.map(|(packet_bytes_max, subscriptions)| Probe {
                client_id,
                packet_bytes_max,
                subscriptions,
            }),
            Err(_) => {
                let said = "the broker does not answer in time".to_owned();
                Err(ProbeError { failed: Failed::Answer, said })
            }
        }
    })
}

type Answer = (Option<u32>, Vec<(String, Result<(), String>)>);

async fn ask(
    config: &MqttConfig,
    client: &AsyncClient,
    mut eventloop: EventLoop,
) -> Result<Answer, ProbeError> {
    let templates =
        config.templates().map_err(|said| ProbeError { failed: Failed::Files, said })?;
    let filters: Vec<String> = templates.events.iter().map(|template| template.filter()).collect();
    let wanted = filters.iter().map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce));
    let mut packet_bytes_max = None;
    loop {
        match eventloop.poll().await.map_err(|error| refused(&error))? {
            Event::Incoming(Packet::ConnAck(connack)) => {
                packet_bytes_max = limits(&connack)?;
                // There is room for it: it is the first request.
                let _ = client.try_subscribe_many(wanted.clone());
            }
            Event::Incoming(Packet::SubAck(suback)) => {
                let _ = client.try_disconnect();
                // It must go out. What comes back, if anything does, says nothing more.
                while !matches!(
                    eventloop.poll().await,
                    Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) | Err(_)
                ) {}
                let answers = filters.into_iter().zip(&suback.return_codes);
                let answers = answers.map(|(filter, code)| {
                    let granted = granted(&filter, code);
                    (filter, granted)
                });
                return Ok((packet_bytes_max, answers.collect()));
            }
            _ => {}
        }
    }
}

fn limits(connack: &ConnAck) -> Result<Option<u32>, ProbeError> {
    let limits = connack.properties.as_ref();
    if limits.and_then(|limits| limits.max_qos) == Some(0) {
        let said = "the broker takes QoS 0 only, which promises nothing".to_owned();
        return Err(ProbeError { failed: Failed::Answer, said });
    }
    Ok(limits.and_then(|limits| limits.max_packet_size))
}

fn refused(error: &ConnectionError) -> ProbeError {
    let failed = match error {
        error if is_alert(error) => Failed::Tls,
        ConnectionError::Io(_) | ConnectionError::Timeout(_) => Failed::Unreachable,
        ConnectionError::Tls(_) => Failed::Tls,
        ConnectionError::ConnectionRefused(code) if is_login(*code) => Failed::Login,
        _ => Failed::Answer,
    };
    ProbeError { failed, said: explain(error) }
}
