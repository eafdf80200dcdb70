//! Secrets: made, recognised, and hashed.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const BYTES: usize = 32;
/// A prefix lets people and scanners of repositories recognise a token.
const TOKEN_PREFIX: &str = "pst_";
const SESSION_PREFIX: &str = "pss_";
const FLEET_KEY_PREFIX: &str = "pfk_";

/// What is stored of a secret.
pub type Hash = [u8; 32];

/// Which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a token.
    Token,
    /// Of a browser's session.
    Session,
    /// Of a fleet's devices; gateways look at these.
    FleetKey,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Token => TOKEN_PREFIX,
            Self::Session => SESSION_PREFIX,
            Self::FleetKey => FLEET_KEY_PREFIX,
        }
    }
}

/// A secret as its owner has it. Shown once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    kind: Kind,
    text: String,
}

// By hand: it stays out of logs.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?}, …)", self.kind)
    }
}

impl Secret {
    /// A new one.
    pub fn random(kind: Kind) -> Self {
        let bytes: [u8; BYTES] = rand::random();
        Self { kind, text: format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bytes)) }
    }

    /// Reads one of that kind; none when it can't be one.
    pub fn parse(kind: Kind, text: &str) -> Option<Self> {
        let body = text.strip_prefix(kind.prefix())?;
        let bytes = URL_SAFE_NO_PAD.decode(body).ok()?;
        (bytes.len() == BYTES).then(|| Self { kind, text: text.to_owned() })
    }

    /// Which kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// As its owner writes it.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is stored.
    pub fn hash(&self) -> Hash {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_recognised_and_never_shown() {
        let secret = Secret::random(Kind::Token);
        assert_eq!(Secret::parse(Kind::Token, secret.reveal()), Some(secret.clone()));
        assert_eq!(Secret::parse(Kind::Session, secret.reveal()), None);
        for wrong in ["", "pst_", "pst_abc", "hunter2", &secret.reveal()[..20]] {
            assert_eq!(Secret::parse(Kind::Token, wrong), None, "{wrong}");
        }
        assert!(!format!("{secret:?}").contains(&secret.reveal()[4..10]));
        assert_ne!(secret.hash(), Secret::random(Kind::Token).hash());
    }
}
