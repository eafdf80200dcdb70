//! The dead-letter store's metrics. Labels come from messages, hence they are bounded.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// So many pairs of stage and reason get labels of their own.
const PAIRS_MAX: usize = 64;
/// What all others are called.
const OTHER: &str = "other";

/// All of them, `penstock_deadletter_…`. The lag is with the other consumers':
/// `penstock_source_lag_records{role="deadletter"}`.
#[derive(Clone, Debug)]
pub struct DeadLetterMetrics {
    stored: IntCounterVec,
    pairs: Arc<Mutex<HashSet<(String, String)>>>,
    /// Published files.
    pub files: IntCounter,
    /// Bytes of published files.
    pub file_bytes: IntCounter,
    /// From the decision to flush to the publication, in seconds.
    pub flush_seconds: Histogram,
    /// Failed tries of a step, by step.
    pub retries: IntCounterVec,
    /// Publications refused because another owner has the partitions.
    pub fenced: IntCounter,
    /// Letters in state open.
    pub open: IntGauge,
    /// Letters in state replayed, not yet seen in the raw store.
    pub waiting: IntGauge,
    /// Letters sent through `replay-events`.
    pub replayed: IntCounter,
    /// Letters that a replay refused.
    pub refused: IntCounter,
    /// Letters whose event was found in the raw store.
    pub resolved: IntCounter,
    /// Looks for a letter's event in vain.
    pub looks_in_vain: IntCounter,
}

impl DeadLetterMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("penstock_deadletter_{name}"), help);
        let counter = |name, help| add(registry, IntCounter::with_opts(opts(name, help))?);
        let gauge = |name, help| add(registry, IntGauge::with_opts(opts(name, help))?);
        let by = |name, help, labels: &[&str]| {
            add(registry, IntCounterVec::new(opts(name, help), labels)?)
        };
        let seconds = HistogramOpts::new(
            "penstock_deadletter_flush_seconds",
            "From the decision to flush to the publication",
        )
        .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]);
        Ok(Self {
            stored: by("stored_total", "Dead letters in published files", &["stage", "reason"])?,
            pairs: Arc::default(),
            files: counter("files_total", "Published files")?,
            file_bytes: counter("file_bytes_total", "Bytes of published files")?,
            flush_seconds: add(registry, Histogram::with_opts(seconds)?)?,
            retries: by("retries_total", "Failed tries of a step", &["step"])?,
            fenced: counter("fenced_total", "Publications refused: another owner")?,
            open: gauge("open", "Dead letters that nothing was done about")?,
            waiting: gauge(
                "replayed_waiting",
                "Dead letters replayed and not yet seen in the raw store",
            )?,
            replayed: counter("replayed_total", "Dead letters sent through replay-events")?,
            refused: counter("refused_total", "Dead letters that a replay refused")?,
            resolved: counter("resolved_total", "Dead letters whose event is stored after all")?,
            looks_in_vain: counter("looks_in_vain_total", "Looks for a letter's event in vain")?,
        })
    }

    /// Counts a stored letter.
    pub fn stored(&self, stage: &str, reason: &str) {
        let labels = if self.has_label(stage, reason) { [stage, reason] } else { [OTHER, OTHER] };
        self.stored.with_label_values(&labels).inc();
    }

    fn has_label(&self, stage: &str, reason: &str) -> bool {
        let is_code = |text: &str| {
            (1..=48).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        if !is_code(stage) || !is_code(reason) {
            return false;
        }
        let pair = (stage.to_owned(), reason.to_owned());
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.contains(&pair) || (pairs.len() < PAIRS_MAX && pairs.insert(pair))
    }

    /// How many letters of that stage and reason were stored.
    pub fn stored_of(&self, stage: &str, reason: &str) -> u64 {
        self.stored.with_label_values(&[stage, reason]).get()
    }
}

fn add<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_codes() {
        let metrics = DeadLetterMetrics::new(&Registry::new()).unwrap();
        for n in 0..1_000 {
            metrics.stored("gateway.admit", &format!("reason_{n}"));
        }
        metrics.stored("gateway.admit", "reason_1");
        metrics.stored("Evil \"stage\"", "x");
        assert_eq!(metrics.stored_of("gateway.admit", "reason_1"), 2);
        assert_eq!(metrics.stored_of(OTHER, OTHER), 1_000 - PAIRS_MAX as u64 + 1);
    }
}
