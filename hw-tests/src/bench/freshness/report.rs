//! What was measured, as a table beside what is wanted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;

use super::FreshnessArgs;
use super::judge::{Judged, Leg};
use crate::demo::progress::millis;
use crate::fleet::{Tally, quantiles};

/// Processor time.
pub(super) struct Used {
    pub(super) gateway: Duration,
    pub(super) core: Duration,
    pub(super) api: Duration,
    /// The devices and those who follow.
    pub(super) load: Duration,
}

pub(super) struct Report {
    pub(super) args: FreshnessArgs,
    pub(super) devices: u32,
    pub(super) took: Duration,
    pub(super) tally: Arc<Tally>,
    pub(super) used: Used,
    pub(super) judged: Judged,
}

impl Report {
    /// Fails when something that was followed was not shown, or shown twice.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Judged { expected, invisible, spurious, means_missing, examples, .. } = &self.judged;
        let examples = examples.join("\n  ");
        ensure!(*expected > 0, "nothing was followed");
        ensure!(*invisible == 0, "{invisible} of {expected} points stayed invisible\n  {examples}");
        ensure!(*spurious == 0, "{spurious} points were shown that were not sent, or twice");
        ensure!(*means_missing == 0, "{means_missing} seconds of the fleet have no mean");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted = self.tally.accepted.get();
        let achieved = accepted as f64 / self.took.as_secs_f64();
        let Judged { streams, expected, invisible, spurious, means_missing, .. } = &self.judged;
        let mut row =
            |name: &str, value: String, wanted: &str| writeln!(f, "{name:<46}{value:<48}{wanted}");
        row("", "measured".into(), "wanted")?;
        let rate = format!("{achieved:.0}/s of {}/s, {} devices", self.args.rate, self.devices);
        row("events", rate, "")?;
        let followed = format!("{expected} points by {streams} streams");
        row("followed", followed, "")?;
        row(
            "  never shown / shown without being sent",
            format!("{invisible} / {spurious}"),
            "0 / 0",
        )?;
        row("received to shown, streams of devices", legs(&self.judged.devices), "p99 2 s")?;
        row("received to shown, streams of groups", legs(&self.judged.groups), "p99 2 s")?;
        row("  received to appended on the bus", legs(&self.judged.to_bus), "")?;
        row("  appended to shown", legs(&self.judged.from_bus), "")?;
        row("a second's end to the fleet's mean of it", legs(&self.judged.means), "")?;
        row("  seconds without one", means_missing.to_string(), "0")?;
        let said = format!("at most {} ms", self.judged.said_ms_max);
        row("what the streams say (freshness_ms)", said, "")?;
        row("streams that began anew", self.judged.begun_anew.to_string(), "")?;
        let each =
            |cpu: Duration| format!("{:.1}", cpu.as_secs_f64() * 1e6 / accepted.max(1) as f64);
        let Used { gateway, core, api, load } = self.used;
        let cpu = [gateway, core, api, load].map(each).join(" / ");
        row("CPU: gateway / roles / API / this, µs an event", cpu, "")?;
        let ack = quantiles_of(&self.tally);
        write!(f, "acknowledged: {ack}; accepted {accepted}, all of them on the topic")
    }
}

fn legs(leg: &Leg) -> String {
    let latency = quantiles(leg);
    let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(millis);
    format!("p50 {p50}  p99 {p99}  max {max}")
}

fn quantiles_of(tally: &Tally) -> String {
    let latency = tally.latencies();
    let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(millis);
    format!("p50 {p50}  p99 {p99}  max {max}")
}
