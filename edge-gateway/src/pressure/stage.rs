//! Looks at the world four times a second, and brings about what the machine says. Every transition
//! is logged once, counted, and shown.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use penstock_common::snapshot::CorePressure;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::PressureConfig;
use super::drain::DrainRate;
use super::gate::Gate;
use super::machine::{Limits, Pressure, Signals, State, Why};

const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What a device is told to wait while the disk can't be used, in seconds.
const DISK_RETRY_AFTER_S: u64 = 10;

/// The numbers of the spool and the forwarder that pressure follows from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// The oldest events can't be moved any more: the dead lane is full.
    pub is_dead_full: bool,
    /// Entries in it that the bus does not have.
    pub pending_entries: u64,
    /// The disk refused the last write.
    pub is_failing: bool,
    /// Records acknowledged by the bus since the start.
    pub acknowledged_total: u64,
}

/// Where they come from.
pub trait Watched: Send + 'static {
    /// The numbers now.
    fn sample(&self) -> Sample;
}

/// How pressure stands, for the status page.
#[derive(Clone, Debug)]
pub struct PressureView {
    /// The state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Why the core has events held back, if it has.
    pub hold_reason: Option<String>,
    /// Why requests are answered 429, if they are.
    pub why: Option<Why>,
    /// How many of a thousand.
    pub shed_per_mille: u32,
    /// What devices are told to wait, in seconds, before it is spread.
    pub retry_after_s: u64,
    /// How fast the spool drains, in bytes a second.
    pub drain_bytes_per_s: u64,
    /// Bytes of the spool.
    pub spool_bytes: u64,
    /// Free bytes of its disk, as far as they are known.
    pub disk_free_bytes: Option<u64>,
    /// The limits.
    pub limits: Limits,
}

/// The stage, before it runs.
pub struct Stage<W> {
    /// The limits.
    pub config: PressureConfig,
    /// The spool's soft limit, in bytes.
    pub soft_bytes: u64,
    /// The spool's hard limit, in bytes: above it the spool evicts.
    pub hard_bytes: u64,
    /// A directory on the spool's disk.
    pub dir: PathBuf,
    /// The spool and the forwarder.
    pub watched: W,
    /// The core's word.
    pub core: watch::Receiver<CorePressure>,
    /// What intake asks.
    pub gate: Gate,
    /// What it counts.
    pub metrics: PressureMetrics,
}

/// The stage's outputs.
pub struct Outputs {
    /// Whether events stay on disk.
    pub hold: watch::Receiver<bool>,
    /// How it stands.
    pub view: watch::Receiver<PressureView>,
}

/// What it counts.
#[derive(Clone)]
pub struct PressureMetrics {
    state: IntGauge,
    transitions: IntCounterVec,
    /// For [`Gate::new`].
    pub refused: IntCounterVec,
    shed_per_mille: IntGauge,
    retry_after_seconds: IntGauge,
    drain_bytes_per_second: IntGauge,
    disk_free_bytes: IntGauge,
    holding: IntGauge,
}

impl<W: Watched> Stage<W> {
    /// Starts to look, until `stop`.
    pub fn spawn(self, stop: CancellationToken) -> (Outputs, JoinHandle<()>) {
        let (running, outputs) = self.running();
        (outputs, tokio::spawn(running.run(stop)))
    }

    const fn limits(&self) -> Limits {
        Limits {
            soft_bytes: self.soft_bytes,
            hard_bytes: self.hard_bytes,
            disk_free_bytes_min: self.config.disk_free_bytes_min,
        }
    }

    fn running(self) -> (Running<W>, Outputs) {
        let limits = self.limits();
        let (hold_out, hold) = watch::channel(false);
        let view = PressureView {
            state: State::Open,
            since: Instant::now(),
            hold_reason: None,
            why: None,
            shed_per_mille: 0,
            retry_after_s: 1,
            drain_bytes_per_s: 0,
            spool_bytes: 0,
            disk_free_bytes: None,
            limits,
        };
        let (view_out, view) = watch::channel(view);
        let running = Running {
            pressure: Pressure::new(limits),
            drain: DrainRate::new(),
            heard_at: Instant::now(),
            is_stale: false,
            hold: hold_out,
            view: view_out,
            stage: self,
        };
        (running, Outputs { hold, view })
    }
}

struct Running<W> {
    stage: Stage<W>,
    pressure: Pressure,
    drain: DrainRate,
    /// When the core was last heard of.
    heard_at: Instant,
    is_stale: bool,
    hold: watch::Sender<bool>,
    view: watch::Sender<PressureView>,
}

impl<W: Watched> Running<W> {
    async fn run(mut self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            let dir = self.stage.dir.clone();
            let free = tokio::task::spawn_blocking(move || free_bytes(&dir)).await;
            self.look(free.ok().flatten(), Instant::now());
        }
    }

    fn look(&mut self, disk_free_bytes: Option<u64>, now: Instant) {
        let Sample { spool_bytes, is_dead_full, pending_entries, is_failing, acknowledged_total } =
            self.stage.watched.sample();
        let bytes_per_entry = spool_bytes as f64 / pending_entries.max(1) as f64;
        self.drain.note(acknowledged_total, bytes_per_entry, now);
        let (core_hold, reason) = self.core_hold(now);
        let verdict = self.pressure.step(&Signals {
            core_hold,
            spool_bytes,
            disk_free_bytes,
            disk_failing: is_failing,
            eviction_blocked: is_dead_full,
        });
        let retry_after_s = match (verdict.state, verdict.why) {
            (State::Refuse, Why::DiskFailing | Why::DiskFull) => {
                DISK_RETRY_AFTER_S.min(self.stage.config.retry_after_s_max)
            }
            _ => self.drain.seconds_for(verdict.excess_bytes, self.stage.config.retry_after_s_max),
        };
        self.stage.gate.set(verdict.shed_per_mille, verdict.why, retry_after_s);
        self.hold.send_if_modified(|hold| std::mem::replace(hold, verdict.hold) != verdict.hold);
        let limits = self.stage.limits();
        let view = PressureView {
            state: verdict.state,
            since: now,
            hold_reason: core_hold.then_some(reason),
            why: (verdict.shed_per_mille > 0).then_some(verdict.why),
            shed_per_mille: verdict.shed_per_mille,
            retry_after_s,
            drain_bytes_per_s: self.drain.bytes_per_s() as u64,
            spool_bytes,
            disk_free_bytes,
            limits,
        };
        self.show(view);
    }

    /// Whether the core asks to hold, and why. An old word counts no more.
    fn core_hold(&mut self, now: Instant) -> (bool, String) {
        if self.stage.core.has_changed().unwrap_or(false) {
            self.heard_at = now;
        }
        let CorePressure { hold, reason, .. } = self.stage.core.borrow_and_update().clone();
        let is_stale = hold && now - self.heard_at > self.stage.config.hold_stale();
        if is_stale && !std::mem::replace(&mut self.is_stale, is_stale) {
            tracing::warn!(
                reason,
                "the core asked to hold events back and was not heard of since: they go on"
            );
        }
        self.is_stale = is_stale;
        (hold && !is_stale, reason)
    }

    /// Shows how it stands; logs and counts a transition.
    fn show(&self, mut view: PressureView) {
        let metrics = &self.stage.metrics;
        let before = self.view.borrow().clone();
        metrics.state.set(place(view.state));
        metrics.holding.set(i64::from(view.hold_reason.is_some()));
        metrics.shed_per_mille.set(i64::from(view.shed_per_mille));
        metrics.retry_after_seconds.set(signed(view.retry_after_s));
        metrics.drain_bytes_per_second.set(signed(view.drain_bytes_per_s));
        metrics.disk_free_bytes.set(view.disk_free_bytes.map_or(-1, signed));
        if view.state == before.state {
            view.since = before.since;
        } else {
            self.transition(&before, &view);
        }
        self.view.send_replace(view);
    }

    fn transition(&self, before: &PressureView, view: &PressureView) {
        let (from, to) = (before.state.label(), view.state.label());
        self.stage.metrics.transitions.with_label_values(&[from, to]).inc();
        let why = match view.state {
            State::Open => "everything is taken and forwarded",
            State::Hold => "the core is behind: events stay on disk",
            State::Shed => "the spool is above its soft limit: some requests are answered 429",
            State::Evict => "the spool is at its hard limit: its oldest events become dead letters",
            State::Refuse => match view.why {
                Some(Why::DiskFull) => "the disk is full: all requests are answered 429",
                Some(Why::DiskFailing) => "the disk refuses writes: all requests are answered 429",
                Some(Why::SpoolFull) | None => "the spool is full: all requests are answered 429",
            },
        };
        let hold_reason = view.hold_reason.as_deref().unwrap_or_default();
        let (spool_bytes, disk_free) = (view.spool_bytes, view.disk_free_bytes);
        if view.state > before.state {
            tracing::warn!(from, to, spool_bytes, disk_free, hold_reason, "pressure: {why}");
        } else {
            tracing::info!(from, to, spool_bytes, disk_free, hold_reason, "pressure: {why}");
        }
    }
}

impl PressureMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(format!("penstock_pressure_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<_> {
            let opts = Opts::new(format!("penstock_pressure_{name}"), help);
            let counters = IntCounterVec::new(opts, labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        Ok(Self {
            state: gauge("state", "0 open, 1 hold, 2 shed, 3 evict, 4 refuse")?,
            transitions: counters(
                "transitions_total",
                "Changes of the state of pressure",
                &["from", "to"],
            )?,
            refused: counters(
                "refused_requests_total",
                "Requests answered 429 before their body was read",
                &["reason"],
            )?,
            shed_per_mille: gauge("shed_per_mille", "Of a thousand requests, those answered 429")?,
            retry_after_seconds: gauge(
                "retry_after_seconds",
                "What devices are told to wait, before it is spread",
            )?,
            drain_bytes_per_second: gauge(
                "drain_bytes_per_second",
                "How fast the bus takes the spool's bytes",
            )?,
            disk_free_bytes: gauge("disk_free_bytes", "Free on the spool's disk; -1: not known")?,
            holding: gauge("holding", "1 while the core has events held back")?,
        })
    }
}

fn place(state: State) -> i64 {
    State::ALL.iter().position(|other| *other == state).map_or(-1, |place| place as i64)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn free_bytes(dir: &std::path::Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests;
