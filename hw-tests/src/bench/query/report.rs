//! What was measured, as a table beside what is wanted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use hdrhistogram::Histogram;

use super::load::{Figures, Measured};
use super::made::Made;
use super::question::Kind;
use super::usage::Usages;
use crate::demo::progress::millis;
use crate::fleet::{Tally, quantiles};

/// What came in meanwhile.
pub(super) struct Ingest {
    /// Events a second.
    pub(super) wanted: f64,
    pub(super) took: Duration,
    pub(super) tally: Arc<Tally>,
    /// Events stored of those.
    pub(super) stored: u64,
}

pub(super) struct Report {
    pub(super) made: Made,
    pub(super) measured: Measured,
    pub(super) usages: Usages,
    pub(super) alone: Vec<(Kind, Figures)>,
    pub(super) ingest: Ingest,
    /// Questions a second.
    pub(super) wanted: f64,
}

impl Report {
    /// Fails unless every answer was complete and every event is stored.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (kind, figures) in &self.measured.kinds {
            let first = figures.first_error.as_deref().unwrap_or_default();
            let (errors, name) = (figures.errors, kind.name());
            ensure!(errors == 0, "{errors} wrong or missing answers ({name}), first: {first}");
        }
        let (accepted, stored) = (self.ingest.tally.accepted.get(), self.ingest.stored);
        ensure!(accepted == stored, "{accepted} events accepted, {stored} stored");
        Ok(())
    }

    fn asked(&self) -> u64 {
        self.measured.kinds.values().map(|figures| figures.asked).sum()
    }

    fn processors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usages { api, core, gateway, load, .. } = self.usages;
        let each = |cpu: Duration| millis(cpu.div_f64(self.asked().max(1) as f64));
        let share = |cpu: Duration| {
            let share = cpu.as_secs_f64() / self.measured.took.as_secs_f64().max(1e-9);
            format!("{:.0} % of a core", share * 100.0)
        };
        let mut row = |name: &str, value: String| writeln!(f, "{name:<32}{value}");
        row("CPU of the API", format!("{} a question, {}", each(api), share(api)))?;
        let database = self.usages.database();
        row("CPU of PostgreSQL, all of it", share(database))?;
        row("CPU of the other roles", share(core))?;
        row("CPU of the gateway", share(gateway))?;
        row("CPU of this program", share(load))?;
        row("the machine was busy", format!("{:.0} %", self.usages.busy() * 100.0))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.made)?;
        let achieved = self.asked() as f64 / self.measured.took.as_secs_f64().max(1e-9);
        let errors: u64 = self.measured.kinds.values().map(|figures| figures.errors).sum();
        writeln!(f, "questions: {achieved:.1}/s of {}/s, errors {errors}", self.wanted)?;
        head(f)?;
        for (kind, figures) in &self.measured.kinds {
            line(f, *kind, figures)?;
        }
        writeln!(f, "alone, one after the other, beside the same ingest:")?;
        for (kind, figures) in &self.alone {
            line(f, *kind, figures)?;
        }
        let behind = quantiles(&self.measured.behind);
        let (p99, max) = (millis(behind.p99), millis(behind.max));
        writeln!(f, "sent after its time: p99 {p99}, max {max} (part of the latency)")?;
        self.processors(f)?;
        let Ingest { wanted, took, tally, stored } = &self.ingest;
        let accepted = tally.accepted.get();
        let pace = accepted as f64 / took.as_secs_f64().max(1e-9);
        let ack = tally.latencies();
        writeln!(
            f,
            "ingest: {pace:.0} events/s of {wanted}/s, acknowledged p50 {} p99 {} max {}, \
             429: {}, 5xx: {}",
            millis(ack.p50),
            millis(ack.p99),
            millis(ack.max),
            tally.throttled.get(),
            tally.server_errors.get()
        )?;
        write!(f, "accepted {accepted}, stored {stored}")
    }
}

fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "{:<26}{:>7}{:>10}{:>10}{:>10}{:>10}{:>8}{:>12}{:>10}",
        "", "asked", "p50", "p99", "max", "wanted", "rows", "bytes", "sent"
    )
}

/// Rows and bytes are those of one answer; sent: compressed.
fn line(f: &mut fmt::Formatter<'_>, kind: Kind, figures: &Figures) -> fmt::Result {
    let at = |quantile| time(&figures.latency, quantile);
    let each = |sum: u64| sum / figures.asked.max(1);
    let wanted = kind.target().map_or_else(String::new, millis);
    writeln!(
        f,
        "{:<26}{:>7}{:>10}{:>10}{:>10}{:>10}{:>8}{:>12}{:>10}",
        kind.name(),
        figures.asked,
        at(0.5),
        at(0.99),
        at(1.0),
        wanted,
        each(figures.rows),
        each(figures.plain_bytes),
        each(figures.bytes)
    )
}

fn time(latency: &Histogram<u64>, quantile: f64) -> String {
    millis(Duration::from_micros(latency.value_at_quantile(quantile)))
}
