//! Running totals of a fleet, for a progress display.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Totals since the start; all of them only grow.
pub struct Tally {
    /// Distinct events sent.
    pub sent: Count,
    /// Events acknowledged, re-sends included.
    pub accepted: Count,
    /// Events rejected, re-sends included.
    pub rejected: Count,
    /// Accepted events sent once more.
    pub re_sent: Count,
    /// Requests, each try counted.
    pub requests: Count,
    /// Answers 429.
    pub throttled: Count,
    /// Answers 5xx; there should be none for load.
    pub server_errors: Count,
    /// Connections refused or broken.
    pub broken: Count,
    /// Requests without an answer in time.
    pub timed_out: Count,
    /// Answers that the contract doesn't know.
    pub unexpected: Count,
    latency_micros: Mutex<Histogram<u64>>,
    first_unexpected: Mutex<Option<String>>,
}

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Its present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Quantiles of the time from the intended send to the answer, whatever number of tries it took.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// The worst.
    pub max: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        // Two significant digits: 1 % of error, and a few kilobytes.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 2);
        Self {
            sent: Count::default(),
            accepted: Count::default(),
            rejected: Count::default(),
            re_sent: Count::default(),
            requests: Count::default(),
            throttled: Count::default(),
            server_errors: Count::default(),
            broken: Count::default(),
            timed_out: Count::default(),
            unexpected: Count::default(),
            #[allow(clippy::expect_used, reason = "the bounds are constants and valid")]
            latency_micros: Mutex::new(histogram.expect("constant bounds")),
            first_unexpected: Mutex::default(),
        }
    }
}

impl Tally {
    pub(super) fn latency(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut histogram = self.latency_micros.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.saturating_record(micros.max(1));
    }

    pub(super) fn unexpected(&self, what: String) {
        self.unexpected.add(1);
        let mut first = self.first_unexpected.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(what);
    }

    /// The latencies since the start.
    pub fn latencies(&self) -> Latency {
        quantiles(&self.latency_micros.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The latencies since the last call; the next one begins anew.
    pub fn take_latencies(&self) -> Latency {
        let mut histogram = self.latency_micros.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = quantiles(&histogram);
        histogram.reset();
        latency
    }

    /// Fails when an answer came that the contract doesn't know.
    ///
    /// # Errors
    /// With the first of them.
    pub fn check(&self) -> anyhow::Result<()> {
        let first = self.first_unexpected.lock().unwrap_or_else(PoisonError::into_inner);
        match first.as_deref() {
            None => Ok(()),
            Some(first) => {
                anyhow::bail!("{} unexpected answers, first: {first}", self.unexpected.get())
            }
        }
    }
}

/// The usual quantiles of a histogram of microseconds.
pub fn quantiles(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
    Latency { p50: at(0.5), p99: at(0.99), max: Duration::from_micros(histogram.max()) }
}
