//! How often each token may ask: a bucket that fills steadily. Pure but for the lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use uuid::Uuid;

/// Buckets kept at most; beyond it those that are full again are dropped.
const BUCKETS_MAX: usize = 10_000;

/// The rule, and the buckets of all tokens.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    per_second: f64,
    burst: f64,
    buckets: Arc<Mutex<HashMap<Uuid, Bucket>>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Whether a request may pass, and what the token has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Allowance {
    pub(super) passes: bool,
    /// Requests at once.
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Until all is there again; or, where it does not pass, until the next one may, seconds.
    pub(super) reset_s: u32,
}

impl Limits {
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst: f64::from(burst), buckets: Arc::default() }
    }

    pub(super) fn ask(&self, token: Uuid, now: Instant) -> Allowance {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&token) {
            buckets.retain(|_, bucket| self.filled(*bucket, now) < self.burst);
        }
        let bucket = buckets.entry(token).or_insert(Bucket { left: self.burst, at: now });
        let left = self.filled(*bucket, now);
        let passes = left >= 1.0;
        let left = if passes { left - 1.0 } else { left };
        *bucket = Bucket { left, at: now };
        let missing = if passes { self.burst - left } else { 1.0 - left };
        Allowance {
            passes,
            limit: self.burst as u32,
            remaining: left as u32,
            reset_s: (missing / self.per_second).ceil() as u32,
        }
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + seconds * self.per_second).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (limits, start) = (Limits::new(2.0, 4), Instant::now());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for remaining in [3, 2, 1, 0] {
            let allowance = limits.ask(one, start);
            assert!(allowance.passes && allowance.remaining == remaining, "{allowance:?}");
        }
        let refused = limits.ask(one, start);
        assert_eq!((refused.passes, refused.limit, refused.reset_s), (false, 4, 1));
        assert!(limits.ask(other, start).passes, "another token's bucket is its own");
        assert!(!limits.ask(one, start + Duration::from_millis(400)).passes);
        assert!(limits.ask(one, start + Duration::from_millis(600)).passes);
        assert_eq!(limits.ask(one, start + Duration::from_secs(60)).remaining, 3);
    }
}
