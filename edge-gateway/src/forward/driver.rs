//! The forwarder's thread: spool → window → bus → retirement.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use penstock_common::clock::Clock;
use penstock_common::retry::Backoff;
use penstock_common::status::GatewayStatus;
use tokio_util::sync::CancellationToken;

use super::both::{Both, Place};
use super::metrics::ForwardMetrics;
use super::record::outbound;
use super::report::{self, Reporter, StatusConfig};
use super::window::Window;
use super::{
    Connect, Delivery, KafkaConfig, OutboundRecord, Producer, STATUS_TOKEN, SendError, Token,
};
use crate::spool::{SpoolError, SpoolHandle, SpooledEntry};

/// How long one wait for the spool or the bus may take: the reaction time to everything else.
const WAIT: Duration = Duration::from_millis(20);

/// After how long without an acknowledgement people are told, and again each time.
const SILENCE: Duration = Duration::from_secs(15);

/// How long the last status may take once everything is handed over, and once it could not be.
const LAST_STATUS_WAIT: [Duration; 2] = [Duration::from_secs(2), Duration::from_millis(200)];

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
    /// Where entries come from.
    pub reader: Both,
    /// Where they are retired.
    pub spool: SpoolHandle,
    /// What it counts.
    pub metrics: ForwardMetrics,
    /// Adds to a status what the spool does not know.
    pub complete: Box<dyn Fn(&mut GatewayStatus) + Send>,
}

/// Why the loop over one producer ended.
enum Outcome {
    /// The gateway is shutting down and the drain is over.
    Drained,
    /// The producer failed: go back to the first unacknowledged entry.
    Failed(String),
}

impl<C: Connect> Driver<C> {
    /// Runs on a thread of its own until `shutdown`, then drains for up to `drain_ms_max`.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn spawn(self, shutdown: CancellationToken) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("forward".into()).spawn(move || self.run(&shutdown))
    }

    fn run(mut self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut reporter = Reporter::new(self.status, Instant::now());
        loop {
            let outcome = match self.connect.connect() {
                Ok(producer) => self.session(producer, &mut reporter, &mut backoff, shutdown),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            };
            let Outcome::Failed(reason) = outcome else { return };
            if shutdown.is_cancelled() {
                tracing::info!(reason, "left to the next start: what the bus did not take");
                return;
            }
            let delay = backoff.next_delay();
            self.metrics.rewinds.inc();
            tracing::warn!(
                reason,
                delay_ms = delay.as_millis(),
                "forwarding starts again from the first unacknowledged entry"
            );
            self.reader.rewind();
            wait_unless(shutdown, delay);
        }
    }

    /// Forwards through one producer for as long as it lives.
    fn session(
        &mut self,
        producer: C::Producer,
        reporter: &mut Reporter,
        backoff: &mut Backoff,
        shutdown: &CancellationToken,
    ) -> Outcome {
        let mut session = Session::new(producer);
        // What the producer before had on its way went with it.
        reporter.answered();
        let mut drain_until = None;
        loop {
            if shutdown.is_cancelled() {
                let limit = Duration::from_millis(self.config.drain_ms_max);
                let until = *drain_until.get_or_insert_with(|| Instant::now() + limit);
                if session.window.is_empty() || Instant::now() >= until {
                    let in_flight = session.window.len();
                    self.report_last(&mut session, reporter);
                    tracing::info!(in_flight, "forwarding ends; the rest stays in the spool");
                    return Outcome::Drained;
                }
            }
            let may_read = drain_until.is_none();
            if let Err(reason) = self.step(&mut session, may_read) {
                return Outcome::Failed(reason);
            }
            match self.settle(&mut session, reporter) {
                Ok(true) => backoff.reset(),
                Ok(false) => {}
                Err(reason) => return Outcome::Failed(reason),
            }
            if reporter.is_due(Instant::now())
                && let Err(reason) = self.report(&mut session, reporter)
            {
                return Outcome::Failed(reason);
            }
            session.tell_silence();
            self.metrics.in_flight_records.set(session.window.len() as i64);
        }
    }

    /// Applies the bus's answers; says whether something was retired.
    fn settle(
        &self,
        session: &mut Session<C::Producer>,
        reporter: &mut Reporter,
    ) -> Result<bool, String> {
        let Settled { retired, acknowledged, status } = session.settle()?;
        self.metrics.acknowledged.inc_by(acknowledged);
        if let Some(place) = retired {
            place.retire(&self.spool);
        }
        let listed = status.as_ref().and_then(|_| reporter.answered());
        match (status, listed) {
            (Some(Ok(())), Some(listed)) => {
                self.metrics.statuses.inc();
                self.spool.note_told(&listed.epochs, &listed.damaged);
            }
            (Some(Err(reason)), _) => {
                self.metrics.statuses_refused.inc();
                tracing::warn!(reason, "the bus refused a status; the next one follows");
            }
            _ => {}
        }
        Ok(retired.is_some())
    }

    /// Sends a status, unless the producer has no room for it now.
    fn report(
        &self,
        session: &mut Session<C::Producer>,
        reporter: &mut Reporter,
    ) -> Result<(), String> {
        if session.held.is_some() {
            return Ok(());
        }
        let (mut status, listed) =
            report::status(&self.gateway, &self.spool.stat(), self.clock.now());
        (self.complete)(&mut status);
        let record = report::outbound(&status).map_err(|error| format!("{error:#}"))?;
        match session.producer.send(STATUS_TOKEN, record) {
            Ok(()) => reporter.sent(listed, Instant::now()),
            Err(SendError::Full(_)) => {}
            Err(SendError::Broken(reason)) => return Err(reason),
        }
        Ok(())
    }

    /// Says at the end of a drain how the spool is left; best effort.
    fn report_last(&self, session: &mut Session<C::Producer>, reporter: &mut Reporter) {
        let wait = LAST_STATUS_WAIT[usize::from(!session.window.is_empty())];
        let (until, mut is_sent) = (Instant::now() + wait, false);
        while Instant::now() < until {
            if !reporter.is_on_its_way() {
                if is_sent {
                    return;
                }
                is_sent = self.report(session, reporter).is_ok() && reporter.is_on_its_way();
            }
            session.producer.poll(WAIT, &mut session.deliveries);
            if let Err(reason) = self.settle(session, reporter) {
                tracing::debug!(reason, "the last status");
                return;
            }
        }
    }

    /// Moves entries from the spool to the producer until one of them has to be waited for.
    fn step(&mut self, session: &mut Session<C::Producer>, may_read: bool) -> Result<(), String> {
        if let Some((token, record)) = session.held.take() {
            session.offer(token, record)?;
        }
        let bounded = session.held.is_some()
            || session.read_after.is_some_and(|at| Instant::now() < at)
            || session.window.len() >= self.config.in_flight_records_max
            || session.window.bytes() >= self.config.in_flight_bytes_max;
        if bounded || !may_read {
            session.producer.poll(WAIT, &mut session.deliveries);
            return Ok(());
        }
        // An idle spool is waited for; while entries are in flight the bus has the word.
        let wait = if session.window.is_empty() { 10 * WAIT } else { Duration::ZERO };
        match self.reader.next(wait) {
            Ok(Some((place, entry))) => {
                session.read_after = None;
                session.read_backoff.reset();
                self.forward(session, place, entry)?;
            }
            Ok(None) => session.producer.poll(WAIT, &mut session.deliveries),
            Err(error) => session.read_again_later(&error),
        }
        Ok(())
    }

    fn forward(
        &self,
        session: &mut Session<C::Producer>,
        place: Place,
        entry: SpooledEntry,
    ) -> Result<(), String> {
        let record = outbound(&self.gateway, entry);
        let token = session.window.push(place, record.payload.len());
        session.offer(token, record)?;
        if session.window.len() % 256 == 0 {
            session.producer.poll(Duration::ZERO, &mut session.deliveries);
        }
        Ok(())
    }
}

/// One producer and what is in flight on it.
struct Session<P> {
    producer: P,
    window: Window<Place>,
    deliveries: Vec<Delivery>,
    /// A record that the producer had no room for, with its token.
    held: Option<(Token, OutboundRecord)>,
    /// When the bus last acknowledged something, nothing was in flight, or people were told.
    heard_at: Instant,
    /// The spool could not be read: when it is tried again.
    read_backoff: Backoff,
    read_after: Option<Instant>,
}

struct Settled {
    retired: Option<Place>,
    acknowledged: u64,
    /// The answer to a status.
    status: Option<Result<(), String>>,
}

impl<P: Producer> Session<P> {
    fn new(producer: P) -> Self {
        Self {
            producer,
            window: Window::default(),
            deliveries: Vec::new(),
            held: None,
            heard_at: Instant::now(),
            read_backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            read_after: None,
        }
    }

    /// Says when records are in flight and the bus has been silent for long.
    fn tell_silence(&mut self) {
        if self.window.is_empty() {
            self.heard_at = Instant::now();
        } else if self.heard_at.elapsed() > SILENCE {
            self.heard_at = Instant::now();
            tracing::warn!(
                in_flight = self.window.len(),
                complaint = self.producer.take_complaint().unwrap_or_default(),
                "the bus has acknowledged nothing for {} s; events wait in the spool",
                SILENCE.as_secs()
            );
        }
    }

    fn offer(&mut self, token: Token, record: OutboundRecord) -> Result<(), String> {
        match self.producer.send(token, record) {
            Ok(()) => Ok(()),
            Err(SendError::Full(record)) => {
                self.held = Some((token, record));
                Ok(())
            }
            Err(SendError::Broken(reason)) => Err(reason),
        }
    }

    /// Leaves the reader where it is: going back would try the same place for ever, while a place
    /// that stays unreadable is passed over as damaged after a few tries.
    fn read_again_later(&mut self, error: &SpoolError) {
        let delay = self.read_backoff.next_delay();
        tracing::warn!(%error, delay_ms = delay.as_millis(), "read the spool; trying again");
        self.read_after = Some(Instant::now() + delay);
    }

    /// Applies the deliveries that came. One refusal ends the session: what follows it must not
    /// overtake it.
    fn settle(&mut self) -> Result<Settled, String> {
        let mut acknowledged = 0;
        let mut refused = None;
        let mut status = None;
        for delivery in self.deliveries.drain(..) {
            if delivery.token == STATUS_TOKEN {
                status = Some(delivery.result);
                continue;
            }
            match delivery.result {
                Ok(()) => {
                    acknowledged += 1;
                    self.heard_at = Instant::now();
                    self.window.acknowledge(delivery.token);
                }
                Err(reason) => refused = Some(reason),
            }
        }
        match refused {
            Some(reason) => Err(format!("the bus refused a record: {reason}")),
            None => Ok(Settled { retired: self.window.retire(), acknowledged, status }),
        }
    }
}

/// Waits for `delay`, in short pieces, unless the gateway shuts down.
fn wait_unless(shutdown: &CancellationToken, delay: Duration) {
    let until = Instant::now() + delay;
    while !shutdown.is_cancelled() && Instant::now() < until {
        thread::sleep(WAIT.min(until - Instant::now().min(until)));
    }
}
