//! What went wrong on a connection, in words for a technician, with what to do where that is known.

use std::error::Error as _;

use rumqttc::v5::mqttbytes::Error as PacketError;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rumqttc::v5::{ConnectionError, StateError};

/// The error as a sentence's end: "MQTT: …".
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Timeout(_) => "the broker does not answer in time".into(),
        ConnectionError::Io(error) => format!("the broker can't be reached: {error}"),
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

fn refused(code: ConnectReturnCode) -> String {
    use ConnectReturnCode as C;
    match code {
        C::BadUserNamePassword | C::NotAuthorized => format!(
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
        StateError::AwaitPingResp => "the broker does not answer pings".into(),
        StateError::Io(error) => format!("the connection broke: {error}"),
        StateError::Deserialization(PacketError::Io(error)) => {
            format!("the connection broke: {error}")
        }
        StateError::Deserialization(PacketError::PayloadSizeLimitExceeded { pkt_size, max }) => {
            format!("the broker sent a packet of {pkt_size} bytes, though {max} were agreed")
        }
        error => format!("the broker sent what can't be read: {error}"),
    }
}
