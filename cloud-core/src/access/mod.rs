//! Who may do what (spec S5): tokens with roles, sessions of browsers, and the audit log.
//!
//! ```text
//! request ─▶ secret (secret.rs) ─▶ whose is it (identify.rs, cached; store/access.rs) ─▶ role
//! ```
//! A secret is 32 random bytes; only its SHA-256 is stored, and compared by looking it up. It
//! reaches neither logs nor error messages.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

pub mod identify;
pub mod secret;

/// What a token may do; each role may also do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks at devices, rollups and live values.
    Viewer,
    /// Also reads raw events, dead letters and the ledger.
    Analyst,
    /// Also changes things, and reads the audit log.
    Admin,
}

impl Role {
    /// Every role, from the least to the greatest.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Analyst, Self::Admin];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.name() == text);
        known.ok_or_else(|| format!("unknown role {text:?}: want viewer, analyst or admin"))
    }
}

/// Whose a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The token.
    pub token_id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// When the token, or the session, ends; µs since the Unix epoch.
    pub expires_at: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_ordered() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().unwrap_err().contains("analyst"));
        assert!(Role::Viewer < Role::Analyst && Role::Analyst < Role::Admin);
    }
}
