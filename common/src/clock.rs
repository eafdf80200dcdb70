//! Time as an argument: a clock that can be replaced in tests, and one that doesn't run backward.

mod steady;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::event::UnixMicros;

pub use self::steady::{STEP_BACK_MAX, Steady, Turn};

/// A time before this means that the clock was never set (it counts from 1970, or from its
/// build): 2025-01-01T00:00:00Z.
pub const CLOCK_SET_AFTER: UnixMicros = UnixMicros(1_735_689_600_000_000);

/// What time it is, and whether that can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The time.
    pub at: UnixMicros,
    /// Whether the clock was set. If not, the time keeps order and means nothing else.
    pub is_set: bool,
}

/// Says what time it is.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> UnixMicros;

    /// The same, and whether it can be relied on.
    fn reading(&self) -> Reading {
        let at = self.now();
        Reading { at, is_set: at >= CLOCK_SET_AFTER }
    }
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMicros {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        UnixMicros(micros)
    }
}

/// A clock that a test sets by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub const fn new(now: UnixMicros) -> Self {
        Self(AtomicI64::new(now.0))
    }

    /// Moves the clock to `now`, in either direction.
    pub fn set(&self, now: UnixMicros) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMicros {
        UnixMicros(self.0.load(Ordering::SeqCst))
    }
}
