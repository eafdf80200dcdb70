//! What the ledger counts, `penstock_ledger_…`, by gateway.

use std::collections::BTreeMap;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::verdict::Verdict;

/// The ledger's metrics.
#[derive(Clone, Debug)]
pub struct LedgerMetrics {
    received: IntGaugeVec,
    stored: IntGaugeVec,
    duplicates: IntGaugeVec,
    dead_lettered: IntGaugeVec,
    in_flight: IntGaugeVec,
    not_kept: IntGaugeVec,
    missing: IntGaugeVec,
    damaged: IntGaugeVec,
    status_age: IntGaugeVec,
    /// Statuses that could not be read.
    pub unreadable: IntCounter,
    /// Statuses that were stored.
    pub statuses: IntCounter,
    /// 1 while verdicts wait for a partition to be read.
    pub waiting: IntGauge,
}

/// The label of the gateways beyond the limit.
const OTHER: &str = "other";

impl LedgerMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let opts = Opts::new(format!("penstock_ledger_{name}"), help);
            let gauge = IntGaugeVec::new(opts, &["gateway"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(format!("penstock_ledger_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let waiting = IntGauge::new(
            "penstock_ledger_waiting",
            "1 while verdicts wait for what was on the bus to be read",
        )?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self {
            received: gauge("received_total", "Records that gateways made durable or rejected")?,
            stored: gauge("stored_total", "Of these, events in the raw store")?,
            duplicates: gauge("duplicates_total", "Of these, further copies of stored events")?,
            dead_lettered: gauge("dead_lettered_total", "Of these, dead letters")?,
            in_flight: gauge("in_flight", "Of these, on their way")?,
            not_kept: gauge("not_kept_total", "Of these, rejected and only counted")?,
            missing: gauge("missing", "Of these, acknowledged by the bus and arrived nowhere")?,
            damaged: gauge("damaged", "Of these, unreadable on the gateway's disk")?,
            status_age: gauge("status_age_seconds", "Seconds since the gateway's last status")?,
            unreadable: counter("unreadable_statuses_total", "Statuses that could not be read")?,
            statuses: counter("statuses_total", "Statuses that were stored")?,
            waiting,
        })
    }

    /// Shows gateways: by name what became of their numbers, and how old their last status is in
    /// seconds. Those beyond `gateways_max` are added up, with the greatest age.
    pub fn show<'a>(
        &self,
        gateways: impl IntoIterator<Item = (&'a str, &'a Verdict, Option<i64>)>,
        gateways_max: usize,
    ) {
        let mut shown: BTreeMap<&str, (Verdict, Option<i64>)> = BTreeMap::new();
        for (gateway, verdict, age) in gateways {
            let label = if shown.len() < gateways_max { gateway } else { OTHER };
            let (sum, oldest) = shown.entry(label).or_default();
            *sum += verdict;
            *oldest = age.max(*oldest);
        }
        for (gateway, (verdict, age)) in shown {
            let set = |gauge: &IntGaugeVec, n: u64| {
                gauge.with_label_values(&[gateway]).set(i64::try_from(n).unwrap_or(i64::MAX));
            };
            set(&self.received, verdict.received);
            set(&self.stored, verdict.stored);
            set(&self.duplicates, verdict.duplicates);
            set(&self.dead_lettered, verdict.dead_lettered);
            set(&self.in_flight, verdict.in_flight);
            set(&self.not_kept, verdict.not_kept);
            set(&self.missing, verdict.missing);
            set(&self.damaged, verdict.damaged);
            if let Some(age) = age {
                self.status_age.with_label_values(&[gateway]).set(age);
            }
        }
    }

    /// How many numbers of a gateway are missing, as last shown.
    pub fn missing(&self, gateway: &str) -> i64 {
        self.missing.with_label_values(&[gateway]).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_beyond_the_limit_share_a_label() {
        let registry = Registry::new();
        let metrics = LedgerMetrics::new(&registry).unwrap();
        let one = Verdict { received: 5, missing: 1, ..Verdict::default() };
        let all = ["a", "b", "c", "d"].map(|name| (name, &one, Some(7)));
        metrics.show(all, 2);
        assert_eq!(["a", "b", OTHER].map(|name| metrics.missing(name)), [1, 1, 2]);
        let families = registry.gather();
        let missing = families.iter().find(|f| f.name() == "penstock_ledger_missing").unwrap();
        assert_eq!(missing.get_metric().len(), 3);
    }
}
