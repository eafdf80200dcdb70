//! The way to Kafka, one step after the other: name, connection, answer, topics.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::{Level, Report};
use crate::forward::KafkaConfig;
use crate::forward::probe::{Probe, ProbeError, TopicState, probe};
use crate::forward::security;

/// How long one connection may take, and one answer.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(8);

/// Why a place can't be reached, and what to do.
type Unreachable = (String, &'static str);

pub(super) fn check(report: &mut Report, config: &KafkaConfig) {
    let places = config.bootstrap.split(',').map(str::trim).filter(|place| !place.is_empty());
    let tried: Vec<(&str, Result<(), Unreachable>)> =
        places.map(|place| (place, reach(place))).collect();
    let is_reached = tried.iter().any(|(_, reached)| reached.is_ok());
    for (place, reached) in &tried {
        match reached {
            Ok(()) => report.ok("kafka", format!("{place} takes connections")),
            Err((found, todo)) => {
                let level = if is_reached { Level::Warn } else { Level::Fail };
                report.add("kafka", level, format!("{place}: {found}"), *todo);
            }
        }
    }
    if !is_reached {
        return;
    }
    match probe(config, ANSWER) {
        Ok(probe) => answered(report, &probe),
        Err(error) => {
            let (found, todo) = explain(&error);
            report.add("kafka", Level::Fail, found, todo);
        }
    }
}

fn reach(place: &str) -> Result<(), Unreachable> {
    let correct = "Correct kafka.bootstrap: host:port, several with commas between.";
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !has_port {
        return Err(("there is no port in it".into(), correct));
    }
    let addresses = place.to_socket_addrs().map_err(|error| {
        let name = place.rsplit_once(':').map_or(place, |(name, _)| name);
        (
            format!("the name {name:?} is not known here ({error})"),
            "Check the spelling in kafka.bootstrap, and the name server (DNS) of this machine.",
        )
    })?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        io::ErrorKind::ConnectionRefused => (
            "the connection is refused: the machine is there, but nothing listens on that port"
                .into(),
            "Check the port in kafka.bootstrap, and whether the broker runs.",
        ),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => (
            format!("no answer within {} s", CONNECT.as_secs()),
            "Check the network cable, the address, and the firewall in between.",
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            (format!("there is no way to it: {last}"), "Check the network cable and the router.")
        }
        _ => (format!("can't be reached: {last}"), "Check the network."),
    })
}

fn answered(report: &mut Report, probe: &Probe) {
    report.ok("kafka", format!("answers as a cluster of {} brokers", probe.brokers.len()));
    for (host, port) in &probe.brokers {
        let place = format!("{host}:{port}");
        if let Err((found, _)) = reach(&place) {
            let found = format!("the cluster names its broker {place}, but {found}");
            let todo = "Events go to the addresses that the cluster names. Let the operator \
                        correct the broker's advertised.listeners, or this machine's DNS.";
            report.add("kafka", Level::Fail, found, todo);
        }
    }
    for (topic, state) in &probe.topics {
        let (level, found, todo) = match state {
            TopicState::Good { partitions } => {
                (Level::Ok, format!("is there, with {partitions} partitions"), "")
            }
            TopicState::Leaderless { partitions } => (
                Level::Warn,
                format!("has {partitions} partitions without a leader"),
                "A broker is down; events for these partitions wait on this disk meanwhile.",
            ),
            TopicState::Missing => (
                Level::Fail,
                "is not there".to_owned(),
                "Let the operator run `cloud-core topics apply`; check kafka.topic_prefix.",
            ),
            TopicState::Forbidden => (
                Level::Fail,
                "is not allowed to this gateway".to_owned(),
                "Let the operator grant this gateway's user Describe and Write on it.",
            ),
            TopicState::Other(error) => (Level::Fail, error.clone(), "Ask the operator."),
        };
        report.add("kafka topic", level, format!("{topic} {found}"), todo);
    }
}

/// The library says what went wrong in its log only.
fn explain(error: &ProbeError) -> (String, &'static str) {
    let (error, complaints) = match error {
        ProbeError::Unusable(error) => {
            let found = format!("the connection can't be set up: {error}");
            return (found, "Check the files that [kafka.tls] and [kafka.sasl] name.");
        }
        ProbeError::Silent { error, complaints } => (error, complaints),
    };
    let known = complaints.iter().find_map(|said| security::explain(said).map(|what| (said, what)));
    if let Some((said, (found, todo))) = known {
        return (format!("{found}: {said}"), todo);
    }
    let last = complaints.last().unwrap_or(error);
    let found = format!("takes connections, but does not answer as Kafka does: {last}");
    (found, "Check the port: is it a broker's, and does it want TLS?")
}
