//! Backpressure (spec I9): from the core's backlog and the disk to what devices are told.
//!
//! ```text
//! open ─ the core is behind ─▶ hold ─ spool above its soft limit ─▶ shed ─ at its hard limit ─▶ evict
//!                                                                 refuse: nothing can be kept
//! ```
//!
//! - **hold**: events stay on disk, so that Kafka does not have to keep what the core can't read;
//!   statuses go on.
//! - **shed**: a share of the requests is answered 429 before its body is read. The share grows
//!   from the soft limit to the hard one, so that intake settles where the drain is, instead of
//!   being cut off and let in by turns. `Retry-After` says when there should be room again.
//! - **evict**: the spool moves its oldest events to the dead lane, to make room for what is new
//!   (`spool/keeper.rs`).
//! - **refuse**: everything is answered 429: the disk fails, is filled by somebody else, or there
//!   is no room left to move anything to.
//!
//! [`machine`] decides and [`drain`] measures, both purely; [`gate`] is what intake asks;
//! [`stage`] looks at the world, logs and counts every transition, and shows it.

pub mod drain;
pub mod gate;
pub mod machine;
pub mod stage;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[pressure]`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PressureConfig {
    /// Below this much free space on the spool's disk, everything is refused.
    pub disk_free_bytes_min: u64,
    /// The longest that a device is told to wait, in seconds.
    pub retry_after_s_max: u64,
    /// For how long the core's word to hold counts when it is not heard of again.
    pub hold_stale_ms: u64,
}

impl Default for PressureConfig {
    fn default() -> Self {
        Self { disk_free_bytes_min: 64 << 20, retry_after_s_max: 120, hold_stale_ms: 600_000 }
    }
}

impl PressureConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let Self { retry_after_s_max, hold_stale_ms, .. } = *self;
        if !(1..=3_600).contains(&retry_after_s_max) {
            problems.push(format!("pressure.retry_after_s_max = {retry_after_s_max}: 1 to 3600"));
        }
        if !(1_000..=86_400_000).contains(&hold_stale_ms) {
            problems.push(format!("pressure.hold_stale_ms = {hold_stale_ms}: 1000 to 86400000"));
        }
    }

    const fn hold_stale(&self) -> Duration {
        Duration::from_millis(self.hold_stale_ms)
    }
}
