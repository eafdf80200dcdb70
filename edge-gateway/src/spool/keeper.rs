//! The thread that writes down where retirement stands, gives space back, and moves the oldest
//! segments to the dead lane when the spool is at its hard limit.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_common::retry::Backoff;

use super::index::Index;
use super::lanes::Retired;
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
    /// Moves that somebody asked for.
    evictions: u32,
}

impl Keeper {
    /// Asks for the oldest segment to be moved, whatever the limits.
    pub(super) fn ask_for_eviction(&self) {
        let mut signal = self.lock();
        signal.evictions = signal.evictions.saturating_add(1);
        drop(signal);
        self.wake();
    }

    fn take_evictions(&self) -> u32 {
        std::mem::take(&mut self.lock().evictions)
    }

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
/// restart finds it again. `written` is what the index holds.
pub(super) fn run(shared: &Shared, mut index: Index, mut written: Retired) {
    let lanes = &shared.lanes;
    let mut evictor = Evictor::new();
    let mut flush_at: Option<Instant> = None;
    let mut flushed = Instant::now();
    loop {
        shared.keeper.wait([flush_at, evictor.retry_at].into_iter().flatten().min());
        let is_over = shared.keeper.gather();
        let retired = lanes.retired();
        let main = retired.main.filter(|_| retired.main > written.main);
        let dead = retired.dead.filter(|_| retired.dead > written.dead);
        let news = Retired {
            main: main.filter(|_| !lanes.main.holds_position()),
            dead: dead.filter(|_| !lanes.dead.holds_position()),
        };
        if news != Retired::default() {
            index.put_retired(news);
            written =
                Retired { main: news.main.or(written.main), dead: news.dead.or(written.dead) };
            flush_at.get_or_insert(flushed + FLUSH_INTERVAL);
        }
        if let Err(error) = lanes.reclaim() {
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
        evictor.run(shared);
    }
}

/// Moves segments while there are too many bytes, one at a time, and says so.
struct Evictor {
    backoff: Backoff,
    retry_at: Option<Instant>,
    is_evicting: bool,
    is_stuck: bool,
}

impl Evictor {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        Self { backoff, retry_at: None, is_evicting: false, is_stuck: false }
    }

    fn run(&mut self, shared: &Shared) {
        let lanes = &shared.lanes;
        let usage = lanes.usage();
        let is_wanted = usage.used_bytes > usage.hard_bytes;
        self.tell(shared, is_wanted);
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        let is_asked = shared.keeper.take_evictions() > 0;
        if !(is_wanted || is_asked) || !lanes.may_evict() {
            return;
        }
        match lanes.evict_oldest() {
            Ok(Some(transferred)) => {
                self.backoff.reset();
                tracing::info!(
                    segment = transferred.last.segment,
                    entries = transferred.entries,
                    bytes_before = transferred.bytes_before,
                    bytes_after = transferred.bytes_after,
                    "the oldest events gave way to the dead lane"
                );
                // Its file goes, and perhaps it was not enough.
                shared.keeper.wake();
            }
            Ok(None) => {}
            Err(error) => {
                let delay = self.backoff.next_delay();
                self.retry_at = Some(Instant::now() + delay);
                let delay_ms = delay.as_millis();
                tracing::warn!(%error, delay_ms, "move the oldest events to the dead lane");
            }
        }
    }

    /// Says when the spool comes to its hard limit, when there is no way out, and when it is over.
    fn tell(&mut self, shared: &Shared, is_wanted: bool) {
        let is_stuck = is_wanted && !shared.lanes.may_evict();
        if std::mem::replace(&mut self.is_evicting, is_wanted) != is_wanted {
            if is_wanted {
                tracing::error!("the spool is at its hard limit; the oldest events give way");
            } else {
                tracing::info!("the spool is below its hard limit again");
            }
        }
        if is_stuck && !self.is_stuck {
            tracing::error!(
                "the dead lane is full too: events are refused until some are forwarded"
            );
        }
        self.is_stuck = is_stuck;
        shared.counters.is_dead_full.store(is_stuck, Relaxed);
    }
}
