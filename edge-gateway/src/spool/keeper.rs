//! The thread that writes down where retirement stands and gives space back.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Position;
use super::index::Index;
use super::open::Shared;

/// How long retirements are gathered before they are written to the index.
const GATHER: Duration = Duration::from_millis(200);
/// How often the index is flushed at most: each flush wears the disk.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Wakes and ends the keeper thread.
#[derive(Default)]
pub(super) struct Keeper {
    signal: Mutex<Signal>,
    changed: Condvar,
}

#[derive(Default)]
struct Signal {
    is_dirty: bool,
    is_closed: bool,
}

impl Keeper {
    pub(super) fn wake(&self) {
        let mut signal = self.lock();
        if !signal.is_dirty {
            signal.is_dirty = true;
            drop(signal);
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for a retirement, at most until `deadline`, or for the end.
    fn wait(&self, deadline: Option<Instant>) {
        let mut signal = self.lock();
        while !signal.is_dirty && !signal.is_closed {
            signal = match deadline {
                None => self.changed.wait(signal).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    let waited = self.changed.wait_timeout(signal, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Lets more retirements gather; takes them; returns whether it is over.
    fn gather(&self) -> bool {
        let deadline = Instant::now() + GATHER;
        let mut signal = self.lock();
        while !signal.is_closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(signal, left);
            signal = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        signal.is_dirty = false;
        signal.is_closed
    }

    fn lock(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper thread. While damage waits to be told, the index stays where it is, so that a
/// restart finds it again. `written` is the position that the index holds.
pub(super) fn run(shared: &Shared, mut index: Index, mut written: Option<Position>) {
    let mut flush_at: Option<Instant> = None;
    let mut flushed = Instant::now();
    loop {
        shared.keeper.wait(flush_at);
        let is_over = shared.keeper.gather();
        let retired = shared.log.retired();
        let may_write = retired > written && !shared.log.holds_damage();
        if let Some(position) = retired.filter(|_| may_write) {
            index.put_retired(position);
            written = retired;
            flush_at.get_or_insert(flushed + FLUSH_INTERVAL);
        }
        if let Err(error) = shared.log.reclaim() {
            tracing::warn!(%error, "give the spool's space back");
        }
        if is_over || flush_at.is_some_and(|at| at <= Instant::now()) {
            index.flush();
            flushed = Instant::now();
            flush_at = None;
        }
        if is_over {
            return;
        }
    }
}
