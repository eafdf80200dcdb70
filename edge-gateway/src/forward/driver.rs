//! The forwarder's thread: spool → producers → bus → retirement, and the statuses beside it.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use penstock_common::clock::Clock;
use penstock_common::retry::Backoff;
use penstock_common::status::GatewayStatus;
use penstock_common::telemetry::traces::Traces;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::metrics::ForwardMetrics;
use super::report::{self, Reporter, StatusConfig};
use super::settle::Settled;
use super::tell::{Silence, stalled};
use super::track::Track;
use super::view::SharedView;
use super::{Connect, Delivery, KafkaConfig, STATUS_TOKEN};
use crate::spool::{SpoolHandle, SpoolReader};

/// How long one wait for the bus may take: the reaction time to everything else.
const WAIT: Duration = Duration::from_millis(20);

/// How long an idle spool is waited for.
const IDLE_WAIT: Duration = Duration::from_millis(200);

/// After how long without an acknowledgement people are told, and again each time.
const SILENCE: Duration = Duration::from_secs(15);

/// How long the last status may take once everything is handed over, and once it could not be.
const LAST_STATUS_WAIT: [Duration; 2] = [Duration::from_secs(2), Duration::from_millis(200)];

/// The most bytes of a batch at first.
const BATCH_BYTES_MAX: usize = 1_000_000;

/// What gave way may have this part of what may be in flight.
const DEAD_SHARE: usize = 4;

/// How often the view and the gauges are renewed.
const VIEW_INTERVAL: Duration = Duration::from_millis(250);

/// The forwarder, before it runs.
pub struct Driver<C> {
    /// Builds producers.
    pub connect: C,
    /// Bounds and the drain limit.
    pub config: KafkaConfig,
    /// How often it says how the spool stands.
    pub status: StatusConfig,
    /// Dates the statuses.
    pub clock: Arc<dyn Clock>,
    /// The gateway's name, for the headers.
    pub gateway: Arc<str>,
    /// Where events come from.
    pub reader: SpoolReader,
    /// Where those that gave way come from.
    pub dead_reader: SpoolReader,
    /// Where they are retired.
    pub spool: SpoolHandle,
    /// While it says true, entries stay in the spool; statuses go on.
    pub hold: watch::Receiver<bool>,
    /// What it counts.
    pub metrics: ForwardMetrics,
    /// Adds to a status what the spool does not know.
    pub complete: Box<dyn Fn(&mut GatewayStatus) + Send>,
    /// How it stands, for people.
    pub view: SharedView,
    /// Records the sending of traced events.
    pub traces: Traces,
}

/// Why the loop over one pair of producers ended.
enum Outcome {
    /// The gateway is shutting down and the drain is over.
    Drained,
    /// The producers failed: what was in flight is sent again by the next ones.
    Failed(String),
}

impl<C: Connect> Driver<C> {
    /// Runs on a thread of its own until `shutdown`, then drains for up to `drain_ms_max`.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn spawn(self, shutdown: CancellationToken) -> std::io::Result<JoinHandle<()>> {
        let thread = thread::Builder::new().name("forward".into());
        thread.spawn(move || Forwarder::new(self).run(&shutdown))
    }
}

/// The forwarder while it runs.
struct Forwarder<C> {
    driver: Driver<C>,
    /// Events, and what gave way: on the same producers, and neither waits for the other.
    track: Track,
    dead: Track,
    reporter: Reporter,
    backoff: Backoff,
    /// What a topic's limit on batches has been found to allow.
    batch_bytes_max: usize,
    deliveries: Vec<Delivery>,
    silence: Silence,
    /// Partitions that did not answer when people were last told of it.
    stalled_told: usize,
    view_at: Instant,
}

/// The producers, and when the drain is over.
struct Session<P> {
    link: Link<P>,
    drain_until: Option<Instant>,
}

impl<C: Connect> Forwarder<C> {
    fn new(driver: Driver<C>) -> Self {
        let now = Instant::now();
        let (reader, dead_reader) = (driver.reader.another(), driver.dead_reader.another());
        let dead_config = KafkaConfig {
            in_flight_bytes_max: driver.config.in_flight_bytes_max / DEAD_SHARE,
            in_flight_records_max: (driver.config.in_flight_records_max / DEAD_SHARE).max(1),
            ..driver.config.clone()
        };
        let (gateway, traces) = (|| driver.gateway.clone(), || driver.traces.clone());
        Self {
            track: Track::new(gateway(), reader, 0, &driver.config, traces(), now),
            dead: Track::new(gateway(), dead_reader, 1, &dead_config, traces(), now),
            reporter: Reporter::new(driver.status, now),
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
            batch_bytes_max: BATCH_BYTES_MAX,
            deliveries: Vec::new(),
            silence: Silence { since: None, told_at: now, is_status_refused: false },
            stalled_told: 0,
            view_at: now,
            driver,
        }
    }

    fn run(mut self, shutdown: &CancellationToken) {
        loop {
            let outcome = match Link::connect(&self.driver.connect, self.batch_bytes_max) {
                Ok(link) => self.session(Session { link, drain_until: None }, shutdown),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            };
            let Outcome::Failed(reason) = outcome else { return };
            if shutdown.is_cancelled() {
                tracing::info!(reason, "left to the next start: what the bus did not take");
                return;
            }
            let delay = self.backoff.next_delay();
            self.driver.metrics.rewinds.inc();
            tracing::warn!(
                reason,
                delay_ms = delay.as_millis(),
                "the connection to the bus is given up; what it had not acknowledged is sent again"
            );
            self.driver.view.update(|view| view.complaint = Some(reason));
            self.track.give_up();
            self.dead.give_up();
            // What was on its way went with the producer.
            self.reporter.answered();
            wait_unless(shutdown, delay);
        }
    }

    /// Forwards through one pair of producers for as long as it lives.
    fn session(
        &mut self,
        mut session: Session<C::Producer>,
        shutdown: &CancellationToken,
    ) -> Outcome {
        loop {
            if shutdown.is_cancelled() {
                let limit = Duration::from_millis(self.driver.config.drain_ms_max);
                let until = *session.drain_until.get_or_insert_with(|| Instant::now() + limit);
                if self.in_flight() == 0 || Instant::now() >= until {
                    self.report_last(&mut session.link);
                    let in_flight = self.in_flight();
                    tracing::info!(in_flight, "forwarding ends; the rest stays in the spool");
                    return Outcome::Drained;
                }
            }
            if let Err(reason) = self.step(&mut session) {
                return Outcome::Failed(reason);
            }
        }
    }

    /// A bounded piece of work, or a short wait for some.
    fn step(&mut self, session: &mut Session<C::Producer>) -> Result<(), String> {
        let link = &mut session.link;
        self.serve(link, Duration::ZERO)?;
        let now = Instant::now();
        if self.reporter.is_due(now) {
            self.report(link)?;
        }
        let is_held = *self.driver.hold.borrow();
        self.tell(link, is_held, now);
        if session.drain_until.is_some() || is_held {
            return self.serve(link, WAIT);
        }
        let mut has_moved = false;
        for track in [&mut self.track, &mut self.dead] {
            track.learn(link, now);
            has_moved |= track.advance(link, now)?;
        }
        if has_moved {
            return Ok(());
        }
        if self.in_flight() == 0 && !self.reporter.is_on_its_way() {
            self.track.wait_for_entries(IDLE_WAIT, now);
            return Ok(());
        }
        self.serve(link, WAIT)
    }

    /// Records in flight of both tracks.
    const fn in_flight(&self) -> usize {
        self.track.flight.len() + self.dead.flight.len()
    }

    fn stalled(&self, now: Instant) -> usize {
        stalled([&self.track, &self.dead], now)
    }

    /// Takes the bus's answers, waiting up to `wait` for some.
    fn serve(&mut self, link: &mut Link<C::Producer>, wait: Duration) -> Result<(), String> {
        let polled = link.poll(wait, &mut self.deliveries);
        let now = Instant::now();
        let mut status = None;
        let records = self.deliveries.drain(..).filter_map(|delivery| {
            if delivery.token == STATUS_TOKEN {
                status = Some(delivery.result);
                return None;
            }
            Some(delivery)
        });
        let metrics = &self.driver.metrics;
        let dead = &self.dead.flight;
        let (dead, main): (Vec<_>, Vec<_>) = records.partition(|record| dead.is_of(record.token));
        let mut settle = |track: &mut Track, answers: Vec<Delivery>| {
            track.settle(answers.into_iter(), &mut self.batch_bytes_max, metrics, now)
        };
        let (main, dead) = (settle(&mut self.track, main), settle(&mut self.dead, dead));
        let Settled { acknowledged, end } = main.and(dead);
        metrics.acknowledged.inc_by(acknowledged);
        if acknowledged > 0 {
            self.silence.since = None;
            self.driver.view.update(|view| view.acknowledged_at = Some(now));
        }
        if let Some(position) = self.track.acks.retire() {
            self.driver.spool.retire(position);
            self.backoff.reset();
        }
        if let Some(position) = self.dead.acks.retire() {
            self.driver.spool.retire_dead(position);
        }
        if let Some(result) = status {
            self.status_answered(result.map_err(|refusal| refusal.reason));
        }
        polled?;
        end.map_or(Ok(()), Err)
    }

    fn status_answered(&mut self, result: Result<(), String>) {
        let Some(listed) = self.reporter.answered() else { return };
        self.silence.is_status_refused = result.is_err();
        match result {
            Ok(()) => {
                self.silence.since = None;
                self.driver.metrics.statuses.inc();
                self.driver.spool.note_told(&listed.epochs, &listed.damaged);
                self.driver.view.update(|view| view.acknowledged_at = Some(Instant::now()));
            }
            Err(reason) => {
                self.driver.metrics.statuses_refused.inc();
                tracing::warn!(reason, "the bus has no status of now; the next one follows");
            }
        }
    }

    /// Sends a status, unless the producer has no room for it now.
    fn report(&mut self, link: &mut Link<C::Producer>) -> Result<(), String> {
        let driver = &self.driver;
        let stat = driver.spool.stat();
        let (mut status, listed) = report::status(&driver.gateway, &stat, driver.clock.reading());
        (driver.complete)(&mut status);
        let record = report::outbound(&status).map_err(|error| format!("{error:#}"))?;
        if link.send_status(record)? {
            self.reporter.sent(listed, Instant::now());
        }
        Ok(())
    }

    /// Says at the end of a drain how the spool is left; best effort.
    fn report_last(&mut self, link: &mut Link<C::Producer>) {
        let wait = LAST_STATUS_WAIT[usize::from(self.in_flight() > 0)];
        let (until, mut is_sent) = (Instant::now() + wait, false);
        while Instant::now() < until {
            if !self.reporter.is_on_its_way() {
                if is_sent {
                    return;
                }
                is_sent = self.report(link).is_ok() && self.reporter.is_on_its_way();
            }
            if let Err(reason) = self.serve(link, WAIT) {
                tracing::debug!(reason, "the last status");
                return;
            }
        }
    }

    /// Renews the gauges and the view, and says when the bus has been silent for long.
    fn tell(&mut self, link: &mut Link<C::Producer>, is_held: bool, now: Instant) {
        let in_flight = self.in_flight();
        let tracks = [&self.track, &self.dead];
        let any_parked = tracks.iter().any(|track| track.lanes.any_parked());
        let is_asking = self.reporter.is_on_its_way() || self.silence.is_status_refused;
        if in_flight == 0 && !any_parked && !is_asking {
            self.silence.since = None;
        } else if self.silence.since.is_none() {
            (self.silence.since, self.silence.told_at) = (Some(now), now);
        }
        let is_silent = self.silence.since.is_some_and(|_| now - self.silence.told_at > SILENCE);
        let complaint = if is_silent && !is_held { link.take_complaint() } else { None };
        if is_silent && !is_held {
            self.silence.told_at = now;
            tracing::warn!(
                in_flight,
                complaint = complaint.as_deref().unwrap_or_default(),
                silent_s = self.silence.since.map_or(0, |since| (now - since).as_secs()),
                "the bus acknowledges nothing; events wait in the spool",
            );
        }
        if now < self.view_at && complaint.is_none() {
            return;
        }
        self.view_at = now + VIEW_INTERVAL;
        // The oldest entries may have been moved elsewhere meanwhile.
        let open = self.track.acks.first_open();
        if let Some(retired) = self.driver.spool.stat().retired
            && open.is_some_and(|open| open <= retired)
        {
            self.track.retired_through(retired);
        }
        let stalled = self.stalled(now);
        if stalled != std::mem::replace(&mut self.stalled_told, stalled) {
            tracing::warn!(stalled, "partitions that do not answer; they are passed over");
        }
        let tracks = [&self.track, &self.dead];
        self.driver.renew_view(tracks, &self.silence, is_held, complaint, now);
    }
}

/// Waits for `delay`, in short pieces, unless the gateway shuts down.
fn wait_unless(shutdown: &CancellationToken, delay: Duration) {
    let until = Instant::now() + delay;
    while !shutdown.is_cancelled() && Instant::now() < until {
        thread::sleep(WAIT.min(until - Instant::now().min(until)));
    }
}
