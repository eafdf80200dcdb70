//! The live view (spec S1, L2): the last five minutes of every device, in memory.
//!
//! ```text
//! bus ─▶ tail (its own, no group) ─▶ stage ─▶ window (rings) ─▶ latest values, snapshots
//!                                        └──▶ feed ─▶ subscribers (server-sent events)
//! ```
//! - `window.rs`: the rings; bounded, without duplicates. Pure.
//! - `feed.rs`: who wants which devices; what comes is handed on, never waited for.
//! - `mean.rs`: many devices as one line. Pure.
//! - `freshness.rs`: from the append on the bus to being visible here. Pure.
//! - `stage.rs`: the loop.
//!
//! Every replica has all of it, needs no database, and begins by rewinding five minutes.

use serde::Deserialize;

pub mod feed;
pub mod freshness;
pub mod mean;
pub mod stage;
pub mod window;

/// So far back it reaches, ms.
pub const WINDOW_MS: i64 = 300_000;

/// How the live view works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveConfig {
    /// Events in memory at most, some 130 bytes each with five metrics; beyond it the window
    /// gets shorter.
    pub events_max: usize,
    /// Streams to browsers at the same time.
    pub streams_max: usize,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self { events_max: 3_000_000, streams_max: 500 }
    }
}

impl LiveConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        if !(1_000..=100_000_000).contains(&self.events_max) {
            problems.push("live.events_max: 1000 to 100000000".into());
        }
        if !(1..=100_000).contains(&self.streams_max) {
            problems.push("live.streams_max: 1 to 100000".into());
        }
    }
}
