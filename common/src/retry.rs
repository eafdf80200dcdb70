//! Exponential back-off with full jitter.

use std::time::Duration;

/// Delays that double from `first` up to `max`; each is drawn between half of its step and all of
/// it, so that many clients that failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// A back-off that has not failed yet.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, attempt: 0 }
    }

    /// The delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.first.saturating_mul(1 << self.attempt.min(20)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        step.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// How many delays were handed out since the last success.
    pub const fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Forgets the failures after a success.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_start_again_after_a_reset() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, max);
        for attempt in 0..40 {
            let step = first.saturating_mul(1 << attempt.min(20)).min(max);
            let delay = backoff.next_delay();
            assert!(delay >= step / 2 && delay <= step, "attempt {attempt}: {delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }
}
