//! What intake asks before it reads a body: whether this request is one of those to be sent away.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;

use super::drain::jittered;
use super::machine::Why;

/// While the disk fails, one request in this time is let through: nothing else would find out that
/// it works again.
const TRIAL_INTERVAL: Duration = Duration::from_secs(1);

/// A request is to be answered 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Why,
    /// When the device should come back.
    pub retry_after_s: u64,
}

/// Shared by all that take events; cheap to clone and to ask.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    shed_per_mille: AtomicU32,
    retry_after_s: AtomicU64,
    why: AtomicU8,
    /// When the next trial is due, in milliseconds since the start.
    trial_ms: AtomicU64,
    started: Instant,
    refused: IntCounterVec,
}

impl Gate {
    /// A gate that lets everything through. `refused` counts by reason.
    pub fn new(refused: IntCounterVec) -> Self {
        for why in WHYS {
            refused.with_label_values(&[why.label()]);
        }
        Self(Arc::new(Shared {
            shed_per_mille: AtomicU32::new(0),
            retry_after_s: AtomicU64::new(1),
            why: AtomicU8::new(0),
            trial_ms: AtomicU64::new(0),
            started: Instant::now(),
            refused,
        }))
    }

    /// Whether a request may come in.
    ///
    /// # Errors
    /// When it is to be sent away.
    pub fn ask(&self) -> Result<(), Refused> {
        self.ask_to_wait().inspect_err(|refused| {
            self.0.refused.with_label_values(&[refused.why.label()]).inc();
        })
    }

    /// The same of somebody who waits instead of being sent away.
    ///
    /// # Errors
    /// When there is to be waited.
    pub fn ask_to_wait(&self) -> Result<(), Refused> {
        let shared = &*self.0;
        let share = shared.shed_per_mille.load(Relaxed);
        if share == 0 || rand::random_range(0..1_000) >= share {
            return Ok(());
        }
        let why = WHYS[usize::from(shared.why.load(Relaxed)) % WHYS.len()];
        if why == Why::DiskFailing && self.takes_trial() {
            return Ok(());
        }
        let retry_after_s = jittered(shared.retry_after_s.load(Relaxed), rand::random());
        Err(Refused { why, retry_after_s })
    }

    /// From now on so many of a thousand requests are sent away.
    pub fn set(&self, shed_per_mille: u32, why: Why, retry_after_s: u64) {
        let shared = &*self.0;
        let place = WHYS.iter().position(|other| *other == why).unwrap_or_default();
        // At most 3 reasons.
        shared.why.store(place as u8, Relaxed);
        shared.retry_after_s.store(retry_after_s, Relaxed);
        shared.shed_per_mille.store(shed_per_mille, Relaxed);
    }

    fn takes_trial(&self) -> bool {
        let shared = &*self.0;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (now, due) = (millis(shared.started.elapsed()), shared.trial_ms.load(Relaxed));
        let next = now + millis(TRIAL_INTERVAL);
        now >= due && shared.trial_ms.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
    }
}

const WHYS: [Why; 3] = [Why::SpoolFull, Why::DiskFull, Why::DiskFailing];

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    fn gate() -> Gate {
        Gate::new(IntCounterVec::new(Opts::new("x", "x"), &["reason"]).unwrap())
    }

    #[test]
    fn about_the_share_is_sent_away_and_counted() {
        let gate = gate();
        let refused = |gate: &Gate| (0..10_000).filter(|_| gate.ask().is_err()).count() as u64;
        assert_eq!(refused(&gate), 0);
        gate.set(300, Why::SpoolFull, 40);
        let some = refused(&gate);
        assert!((2_500..3_500).contains(&some), "{some}");
        assert_eq!(gate.0.refused.with_label_values(&["spool_full"]).get(), some);
        gate.set(1_000, Why::DiskFull, 40);
        let all: Vec<Refused> = (0..1_000).filter_map(|_| gate.ask().err()).collect();
        assert_eq!(all.len(), 1_000);
        assert!(all.iter().all(|refused| (30..=50).contains(&refused.retry_after_s)));
        assert!(all.iter().any(|refused| refused.retry_after_s != all[0].retry_after_s));
        gate.set(0, Why::DiskFull, 40);
        assert_eq!(refused(&gate), 0);
    }

    #[test]
    fn while_the_disk_fails_a_request_is_let_through_now_and_then() {
        let gate = gate();
        gate.set(1_000, Why::DiskFailing, 5);
        let let_through = (0..10_000).filter(|_| gate.ask().is_ok()).count();
        assert!((1..5).contains(&let_through), "{let_through}");
    }
}
