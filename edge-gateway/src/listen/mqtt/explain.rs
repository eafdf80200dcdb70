//! What went wrong on a connection, in words for a technician, with what to do where that is known.

use std::error::Error as _;
use std::io;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::{Error as PacketError, QoS};
use rumqttc::v5::{ConnectionError, StateError};
use rustls::AlertDescription;

/// The error as a sentence's end: "MQTT: …".
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Timeout(_) => "the broker does not answer in time".into(),
        ConnectionError::Io(error) => broken("the broker can't be reached", error),
        ConnectionError::Tls(error) => {
            let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
            format!("TLS with the broker: {error}{cause}; see mqtt.ca_file and the broker's name")
        }
        ConnectionError::ConnectionRefused(code) => refused(*code),
        ConnectionError::MqttState(error) => state(error),
        // A packet is not repeated: it may be anything.
        ConnectionError::NotConnAck(_) => "what answers there is no MQTT 5 broker".into(),
        ConnectionError::RequestsDone => "given up".into(),
    }
}

/// Whether the broker grants a subscription as the gateway needs it; else what is wrong.
pub(super) fn granted(filter: &str, code: &SubscribeReasonCode) -> Result<(), String> {
    match code {
        SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce) => Ok(()),
        SubscribeReasonCode::Success(QoS::AtMostOnce) => {
            Err(format!("the broker grants only QoS 0 for {filter}"))
        }
        refused => Err(format!(
            "the broker refuses the subscription of {filter} ({refused:?}); may this user read it?"
        )),
    }
}

/// Whether the broker does not know who this is, or does not want them.
pub(super) fn is_login(code: ConnectReturnCode) -> bool {
    matches!(code, ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized)
}

/// Whether the broker does not want this gateway's certificate, or its TLS. In TLS 1.3 that comes
/// after the handshake.
pub(super) fn is_alert(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::Io(error)
        | ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(PacketError::Io(error)),
        ) => alert(error).is_some(),
        _ => false,
    }
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

fn broken(what: &str, error: &io::Error) -> String {
    match alert(error) {
        Some(alert) => format!(
            "the broker refuses this gateway's certificate, or its TLS ({alert:?}): see \
             mqtt.client_cert_file"
        ),
        None => format!("{what}: {error}"),
    }
}

fn refused(code: ConnectReturnCode) -> String {
    use ConnectReturnCode as C;
    match code {
        code if is_login(code) => format!(
            "the broker refuses the login ({code:?}): see mqtt.username and the file \
             mqtt.password_file"
        ),
        C::RefusedProtocolVersion | C::UnsupportedProtocolVersion => {
            "the broker does not speak MQTT 5; the gateway needs that".into()
        }
        C::ClientIdentifierNotValid | C::BadClientId => {
            format!("the broker refuses mqtt.client_id ({code:?})")
        }
        code => format!("the broker refuses the connection ({code:?})"),
    }
}

fn state(error: &StateError) -> String {
    match error {
        StateError::ServerDisconnect { reason_code, reason_string } => match reason_code {
            DisconnectReasonCode::SessionTakenOver => {
                "somebody else has connected with this mqtt.client_id".into()
            }
            code => {
                let text = reason_string.as_deref().unwrap_or("no more was said");
                format!("the broker ended the connection ({code:?}: {text})")
            }
        },
        StateError::ConnectionAborted => "the broker closed the connection (if it does so again \
             and again: does somebody else connect with this mqtt.client_id?)"
            .into(),
        StateError::AwaitPingResp => "the broker does not answer pings: it is gone, or busy for longer than mqtt.keep_alive_s".into(),
        StateError::Io(error) | StateError::Deserialization(PacketError::Io(error)) => {
            broken("the connection broke", error)
        }
        StateError::Deserialization(PacketError::PayloadSizeLimitExceeded { pkt_size, max }) => {
            format!("the broker sent a packet of {pkt_size} bytes, though {max} were agreed")
        }
        error => format!("the broker sent what can't be read: {error}"),
    }
}
