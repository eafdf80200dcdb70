//! A broker that does what a test tells it to: real sockets and real packets, and faults that no
//! real broker would produce when asked.

use std::net::SocketAddr;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Packet,
    PingResp, Publish, SubAck, Subscribe, SubscribeReasonCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::PATIENCE;

pub(crate) struct Scripted {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// The broker's end of one connection.
pub(crate) struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) properties: ConnectProperties,
}

impl Scripted {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next connection, its CONNECT read.
    pub(crate) async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted.expect("nobody connects").unwrap();
        let mut peer = Peer {
            stream,
            buffer: BytesMut::new(),
            client_id: String::new(),
            clean_start: true,
            properties: ConnectProperties::new(),
        };
        let Some(Packet::Connect(connect, _, _)) = peer.read().await else {
            panic!("no CONNECT");
        };
        peer.client_id = connect.client_id;
        peer.clean_start = connect.clean_start;
        peer.properties = connect.properties.unwrap();
        peer
    }

    /// The next connection, accepted and subscribed.
    pub(crate) async fn subscribed(&self, session_present: bool) -> Peer {
        let mut peer = self.accept().await;
        peer.accept(session_present).await;
        let subscribe = peer.subscribe().await;
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        peer.grant(&subscribe, granted).await;
        peer
    }
}

impl Peer {
    /// The next packet but for pings, which are answered; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<Packet> {
        let reading = async {
            loop {
                match Packet::read(&mut self.buffer, None) {
                    Ok(Packet::PingReq(_)) => {
                        self.write(&Packet::PingResp(PingResp)).await;
                    }
                    Ok(packet) => return Some(packet),
                    Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => {
                        match self.stream.read_buf(&mut self.buffer).await {
                            Ok(0) | Err(_) => return None,
                            Ok(_) => {}
                        }
                    }
                    // It writes a DISCONNECT that it can't read itself.
                    Err(rumqttc::v5::mqttbytes::Error::PayloadRequired) => {
                        let normal = DisconnectReasonCode::NormalDisconnection;
                        return Some(Packet::Disconnect(Disconnect::new(normal)));
                    }
                    Err(error) => panic!("the gateway sent {error}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the gateway sends nothing")
    }

    /// The packet identifier of the next acknowledgement.
    pub(crate) async fn puback(&mut self) -> u16 {
        match self.read().await {
            Some(Packet::PubAck(puback)) => puback.pkid,
            other => panic!("no PUBACK but {other:?}"),
        }
    }

    pub(crate) async fn subscribe(&mut self) -> Subscribe {
        match self.read().await {
            Some(Packet::Subscribe(subscribe)) => subscribe,
            other => panic!("no SUBSCRIBE but {other:?}"),
        }
    }

    pub(crate) async fn accept(&mut self, session_present: bool) {
        let code = ConnectReturnCode::Success;
        self.write(&Packet::ConnAck(ConnAck { session_present, code, properties: None })).await;
    }

    pub(crate) async fn refuse(&mut self, code: ConnectReturnCode) {
        let connack = ConnAck { session_present: false, code, properties: None };
        self.write(&Packet::ConnAck(connack)).await;
    }

    pub(crate) async fn grant(&mut self, subscribe: &Subscribe, code: SubscribeReasonCode) {
        let return_codes = vec![code; subscribe.filters.len()];
        let suback = SubAck { pkid: subscribe.pkid, return_codes, properties: None };
        self.write(&Packet::SubAck(suback)).await;
    }

    /// Sends a message of that device with QoS 1.
    pub(crate) async fn publish(
        &mut self,
        pkid: u16,
        device: &str,
        payload: impl Into<bytes::Bytes>,
    ) {
        let topic = format!("penstock/line-1/{device}/events");
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
        publish.pkid = pkid;
        self.write(&Packet::Publish(publish)).await;
    }

    /// What can't be sent any more is lost, as on a real network.
    pub(crate) async fn write(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        self.write_bytes(&bytes).await;
    }

    pub(crate) async fn write_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }
}
