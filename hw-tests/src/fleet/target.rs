//! Where devices post, and the key that they show there.

use std::fmt;
use std::net::SocketAddr;

use anyhow::ensure;

/// `pfk_` and 32 bytes in base64.
const KEY_BYTES: usize = 47;

/// An address, and a key where there is one.
#[derive(Clone, Copy)]
pub struct Target {
    /// The address.
    pub address: SocketAddr,
    key: Option<[u8; KEY_BYTES]>,
}

impl Target {
    /// One that wants this key.
    ///
    /// # Errors
    /// When it can't be a fleet's key.
    pub fn with_key(address: SocketAddr, key: &str) -> anyhow::Result<Self> {
        let bytes: Option<[u8; KEY_BYTES]> = key.as_bytes().try_into().ok();
        ensure!(bytes.is_some() && key.starts_with("pfk_"), "that is no key of a fleet");
        Ok(Self { address, key: bytes })
    }

    /// The key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_ref().and_then(|key| std::str::from_utf8(key).ok())
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, key: None }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

// By hand: the key stays out of logs.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.address)
    }
}
