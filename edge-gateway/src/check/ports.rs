//! The ports to listen on: free, or in use by this gateway.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Level, Report};
use crate::config::GatewayConfig;

/// How long the running gateway may take to say who it is.
const ASK: Duration = Duration::from_secs(3);
/// The most that is read of its answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

pub(super) fn check(report: &mut Report, config: &GatewayConfig) {
    let running = running(config.admin.listen);
    let is_this = running.as_ref().is_some_and(|name| *name == config.gateway.name);
    for (check, key, address) in [
        ("device port", "http.listen", config.http.listen),
        ("admin port", "admin.listen", config.admin.listen),
    ] {
        match TcpListener::bind(address) {
            Ok(_) => report.ok(check, format!("{address} is free")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_this => {
                report.ok(check, format!("{address} is in use by this gateway, which is running"));
            }
            Err(error) => {
                let (found, todo) = refused(key, address, &error, running.as_deref());
                report.add(check, Level::Fail, found, todo);
            }
        }
    }
}

fn refused(
    key: &str,
    address: SocketAddr,
    error: &io::Error,
    running: Option<&str>,
) -> (String, String) {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let by = running.map_or_else(
                || "another program".to_owned(),
                |name| format!("another program (a gateway named {name} runs here)"),
            );
            let todo = format!("Stop it (`ss -ltnp | grep :{port}` names it), or change {key}.");
            (format!("{address} is taken by {by}"), todo)
        }
        io::ErrorKind::AddrNotAvailable => (
            format!("{address}: this machine does not have that address"),
            format!("Correct {key}; 0.0.0.0:{port} listens on every address."),
        ),
        io::ErrorKind::PermissionDenied => (
            format!("{address}: ports below 1024 need a right that this user does not have"),
            format!("Choose a higher port for {key}, or give the service CAP_NET_BIND_SERVICE."),
        ),
        _ => (format!("{address} can't be listened on: {error}"), format!("Correct {key}.")),
    }
}

/// The name of the gateway whose admin port this is, if one answers.
fn running(admin: SocketAddr) -> Option<String> {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let mut stream = TcpStream::connect_timeout(&(ip, admin.port()).into(), ASK).ok()?;
    stream.set_read_timeout(Some(ASK)).ok()?;
    stream.set_write_timeout(Some(ASK)).ok()?;
    stream
        .write_all(b"GET /status.json HTTP/1.1\r\nHost: check\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    let status: serde_json::Value = serde_json::from_str(body).ok()?;
    status["gateway"]["name"].as_str().map(str::to_owned)
}
