//! The rules of admission for one event (spec I3, I10, E2–E4): which schema, what is wrong, which
//! flags. The gateway holds every event against them; the core does so again when it replays a
//! dead letter. Pure.
//!
//! | limit | value |
//! |---|---|
//! | one event | [`EVENT_BYTES_MAX`] |
//! | errors reported of one event | [`ERRORS_MAX`] |

mod explain;
mod fields;
mod reason;
mod single;
mod validate;

use std::borrow::Cow;

use uuid::Uuid;

pub use self::explain::{syntax_error, utf8_error};
pub use self::fields::is_key;
pub use self::reason::{FieldError, Reason, cut};
pub use self::single::{Identity, admit, identity};
pub use self::validate::Validation;
use crate::event::{Flags, UnixMicros};

/// Bytes of one event.
pub const EVENT_BYTES_MAX: usize = 64 << 10;
/// Errors reported of one event.
pub const ERRORS_MAX: usize = 16;

/// What admission found out about an event that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted<'t> {
    /// Its id.
    pub event_id: Uuid,
    /// Its device.
    pub device_id: Cow<'t, str>,
    /// Its own time, cut to microseconds.
    pub timestamp: UnixMicros,
    /// The schema that admitted it.
    pub schema_version: u32,
    /// Facts to be noted with it.
    pub flags: Flags,
}

/// What admission found out about an event that is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its device, where one could be read that can be a key.
    pub device_id: Option<String>,
    /// The schema it was held against, where one was chosen.
    pub schema_version: Option<u32>,
    /// Why.
    pub rejection: Rejection,
}

/// Why an event is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its id as sent, where one could be read.
    pub event_id: Option<String>,
    /// The main reason.
    pub reason: Reason,
    /// What exactly is wrong; at least one.
    pub errors: Vec<FieldError>,
}

#[cfg(test)]
mod tests;
