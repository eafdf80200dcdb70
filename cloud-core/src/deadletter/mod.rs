//! The dead-letter store (spec P7): every failure with its context, searchable, replayable.
//!
//! ```text
//! bus ─▶ sink ─▶ letter (context, identity) ─▶ encode (Parquet) ─▶ write ─▶ catalog: index, positions
//!                                                                     └───▶ object store
//! api ─▶ replay (admission with today's schemas) ─▶ replay-events ─▶ raw
//!        resolve (is its event in the raw store after all?)
//! ```
//! - `letter.rs` reads a record. Nothing is refused: what can't be read is a reason of its own.
//! - `sink.rs` and `write.rs` store letters as the raw writer stores events: position, file and
//!   index rows in one transaction (`store/dead_letters/publish.rs`), so that each is there once.
//! - `decide.rs` holds a letter against admission again, `replay.rs` sends what passes.
//! - `resolve.rs` asks the raw store for the events of open letters.
//!
//! **Replay does no harm twice**: the event keeps its bytes, its provenance and its received time,
//! so that a second copy is a duplicate by identity. An event is on `replay-events`, acknowledged,
//! before its letter is said to be replayed; a crash between leaves it open.
//!
//! Limits: a batch holds at most `flush_letters` letters and about `flush_bytes` bytes; a replay
//! has [`replay::CHUNK_BYTES_MAX`] bytes of letters in memory, a look [`resolve::LETTERS_MAX`]
//! letters.

use std::time::Duration;

use serde::Deserialize;

use crate::source::runner::RunnerConfig;
use crate::store::dead_letters::state::Patience;

pub mod decide;
pub mod encode;
pub mod letter;
pub mod metrics;
pub mod replay;
pub mod resolve;
pub mod schema;
pub mod sink;
pub mod stored;
pub mod write;

/// The role's name, in the catalog's positions too.
pub const ROLE: &str = "deadletter";

/// How the dead-letter store works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterConfig {
    /// The consumer group, after the topic prefix.
    pub group: String,
    /// A letter is to be found at most about this long after it was read.
    pub flush_interval_ms: u64,
    /// A flush has at most this many letters.
    pub flush_letters: usize,
    /// A batch takes at most about this much memory.
    pub flush_bytes: usize,
    /// How long the last flush may take when the process is told to stop.
    pub drain_ms: u64,
    /// How long a flush may go on after its partitions were asked back.
    pub revoke_grace_ms: u64,
    /// How often the raw store is asked for the events of letters.
    pub resolve_interval_ms: u64,
    /// When it is first asked for a letter's event; the time is doubled from look to look.
    pub resolve_first_ms: u64,
    /// It is asked at least this often.
    pub resolve_max_ms: u64,
}

impl Default for DeadLetterConfig {
    fn default() -> Self {
        Self {
            group: "penstock-deadletter".into(),
            flush_interval_ms: 10_000,
            flush_letters: 20_000,
            flush_bytes: 64 << 20,
            drain_ms: 20_000,
            revoke_grace_ms: 5_000,
            resolve_interval_ms: 30_000,
            resolve_first_ms: 120_000,
            resolve_max_ms: 24 * 3_600_000,
        }
    }
}

impl DeadLetterConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut want = |good: bool, text: &str| {
            if !good {
                problems.push(format!("deadletter.{text}"));
            }
        };
        want(!self.group.is_empty(), "group is empty");
        want(
            (10..=3_600_000).contains(&self.flush_interval_ms),
            "flush_interval_ms: 10 to 3600000",
        );
        want((1..=1_000_000).contains(&self.flush_letters), "flush_letters: 1 to 1000000");
        want(((1 << 20)..=(1 << 30)).contains(&self.flush_bytes), "flush_bytes: 1 MiB to 1 GiB");
        want(self.drain_ms <= 300_000, "drain_ms: at most 300000");
        want(self.revoke_grace_ms <= 15_000, "revoke_grace_ms: at most 15000");
        want(self.resolve_interval_ms >= 10, "resolve_interval_ms: at least 10");
        want(
            (1..=self.resolve_max_ms).contains(&self.resolve_first_ms),
            "resolve_first_ms: at least 1, at most resolve_max_ms",
        );
    }

    /// Its patience as a consumer.
    pub const fn runner(&self) -> RunnerConfig {
        RunnerConfig {
            drain: Duration::from_millis(self.drain_ms),
            revoke_grace: Duration::from_millis(self.revoke_grace_ms),
        }
    }

    /// How often it looks for a letter's event.
    pub const fn patience(&self) -> Patience {
        Patience { first_ms: self.resolve_first_ms, max_ms: self.resolve_max_ms }
    }
}
