//! What the service manager is told (`sd_notify(3)`): that the gateway takes events, that it is
//! still alive, that it drains. Started by hand, nobody asks, and nothing is said.
//!
//! A watchdog (`WatchdogSec=`) starts a gateway again that has not said "alive" for so long. It is
//! said where everything is supervised, so a runtime that hangs falls silent. A disk that hangs
//! does not: starting again would not help.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The connection to the service manager, where there is one.
#[derive(Debug)]
pub struct ServiceManager(Option<UnixDatagram>);

impl ServiceManager {
    /// The one that started this process. It is asked before anything can change the environment.
    pub fn from_env() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self(None);
        };
        Self::at(&path).unwrap_or_else(|error| {
            tracing::warn!(%error, ?path, "the service manager can't be told anything");
            Self(None)
        })
    }

    /// One that listens at a socket's path; a leading `@` means the abstract namespace.
    ///
    /// # Errors
    /// When nobody does.
    pub fn at(path: &OsStr) -> io::Result<Self> {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not listen must not stop the gateway.
        socket.set_nonblocking(true)?;
        Ok(Self(Some(socket)))
    }

    /// The gateway takes events.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=taking events");
    }

    /// It is still there; to be said at least twice in every watchdog interval.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// It drains, which may take a while.
    pub fn draining(&self) {
        self.say("STOPPING=1\nSTATUS=draining");
    }

    fn say(&self, what: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(what.as_bytes()) {
            tracing::debug!(%error, what, "tell the service manager");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(listener: &UnixDatagram) -> String {
        let mut message = [0; 100];
        let length = listener.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    fn says_what_systemd_understands(listener: &UnixDatagram, path: &OsStr) {
        let manager = ServiceManager::at(path).unwrap();
        manager.ready();
        manager.alive();
        manager.draining();
        assert!(heard(listener).starts_with("READY=1\n"));
        assert_eq!(heard(listener), "WATCHDOG=1");
        assert!(heard(listener).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn it_is_told_at_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        says_what_systemd_understands(&listener, path.as_os_str());
    }

    #[test]
    fn it_is_told_in_the_abstract_namespace() {
        let name = format!("penstock-{:016x}", rand::random::<u64>());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        says_what_systemd_understands(&listener, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn nobody_needs_to_listen() {
        ServiceManager(None).ready();
        assert!(ServiceManager::at(OsStr::new("/nowhere/notify")).is_err());
    }
}
