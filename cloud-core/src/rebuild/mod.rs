//! The rebuild (spec P5, R2): hours of devices computed again from the raw events, where the
//! stream could not know: late events, replays, conflicts, clocks that were ahead, and ranges
//! that somebody asks for.
//!
//! ```text
//! marks (store/rollup) ─▶ lease: an hour, many devices ─▶ raw far enough? ─▶ read.rs: copies
//!                                                                                  │
//!        rows, deletions, merge marks, marks done: one transaction ◀─ canonical ◀──┘
//! ```
//! - **Order**: first how far each device is closed, then its rows, then how far raw has come,
//!   then the catalog's sequence, then the files as of it. So the raw events read are at least
//!   those that the mark and the rows know of.
//! - **Writes closed minutes only**, and only rows whose content is another: a range rebuilt
//!   five times changes nothing.
//! - **No storms**: marks coalesce by device and hour and wait a moment for more of the same; an
//!   hour's devices are read together; so many hours are worked on at once and no more.
//!
//! Memory: `events_max` copies (some 200 bytes each) for each of `parallel` hours; an hour of
//! devices with more of them is read in halves.

pub mod config;
pub mod metrics;
pub mod read;
pub mod worker;

/// The role's name.
pub const ROLE: &str = "rebuild";
