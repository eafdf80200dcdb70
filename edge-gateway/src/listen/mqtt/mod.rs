//! Events from the facility's MQTT broker (spec I12; docs/contracts/mqtt.md).
//!
//! ```text
//! broker ─▶ connection ─▶ inbox (bounded) ─▶ commit: judge, spool, sync ─▶ link ─▶ answer, PUBACK
//! ```
//!
//! - A message is acknowledged after the sync of everything in it, on the connection that it came
//!   on, in the order in which it came. The session outlives connections and the gateway: what was
//!   not acknowledged the broker sends again, and a copy of an event changes nothing.
//! - What is bounded: messages without an acknowledgement (`receive_max`), their bytes
//!   (`waiting_bytes_max`, and up to ten packets that rumqttc has read ahead), a packet.
//! - While the spool takes nothing, nothing is acknowledged and soon nothing is read. A connection
//!   that ends meanwhile is made again once the spool takes something.
//!
//! What is done about rumqttc 0.25:
//!
//! | it would | so |
//! |---|---|
//! | carry requests over to the next connection | an event loop for each connection |
//! | lose a request when a poll is dropped | a task that only polls, to its end |
//! | hand out messages with a topic alias without their topic | aliases are not offered |
//! | read at most 10 KiB unless a maximum is announced | one is announced |
//! | wait for ever while the broker reads nothing | a time limit around every poll |
//! | send nothing while its request queue is full and nobody polls | room for all that can come |
//! | set up a place for each of 65,535 outgoing messages | a limit of [`ANSWERS_OPEN_MAX`] |
//! | pass over a DISCONNECT without properties | only the end of the connection is known then |
//! | treat an answer larger than the broker takes as the connection's end | it is made shorter |

mod answer;
mod commit;
mod config;
mod connection;
mod explain;
mod inbox;
mod judge;
mod link;
mod metrics;
mod options;
pub mod probe;
mod state;
mod tls;
mod topic;

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use penstock_common::clock::Clock;
use penstock_common::retry::Backoff;
use prometheus::Registry;
use rumqttc::v5::MqttOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::commit::Committer;
use self::connection::{Connection, End, Setup};
use self::inbox::{Inbox, Item};
use self::judge::Judge;
use self::link::Link;
use self::metrics::MqttMetrics;
use self::options::Session;
use super::{Durable, Ingest};

pub use self::config::MqttConfig;
pub use self::state::{MqttState, Standing};

/// Answers that the broker has not taken yet.
const ANSWERS_OPEN_MAX: u16 = 64;

/// A connection that lasted so long was a good one: the next try comes soon again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Takes events from a broker.
pub struct MqttListener<D> {
    config: MqttConfig,
    client_id: String,
    filters: Vec<String>,
    clock: Arc<dyn Clock>,
    metrics: MqttMetrics,
    state: MqttState,
    inbox: Inbox,
    items: mpsc::UnboundedReceiver<Item>,
    committer: Committer<D>,
    held: watch::Receiver<bool>,
}

impl<D: Durable + Clone> MqttListener<D> {
    /// Puts the parts together and registers the metrics. `gateway` and `fleet` are its own.
    ///
    /// # Errors
    /// When the configuration can't be used, or the metrics are registered already.
    pub fn new(
        config: MqttConfig,
        gateway: &str,
        fleet: &str,
        ingest: &Ingest<D>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let templates = config.templates().map_err(|problem| anyhow!(problem))?;
        let filters = templates.events.iter().map(|template| template.filter()).collect();
        let client_id = options::client_id(&config, gateway);
        let metrics = MqttMetrics::new(registry)?;
        let (inbox, items) = inbox::channel(config.waiting_bytes_max);
        let (hold, held) = watch::channel(false);
        let committer = Committer {
            spool: ingest.spool.clone(),
            gate: ingest.gate.clone(),
            traces: ingest.traces.clone(),
            judge: Judge::new(ingest.access.snapshots().clone(), fleet, templates),
            budget: ingest.budget.clone(),
            listen_metrics: ingest.metrics.clone(),
            metrics: metrics.clone(),
            held: hold,
        };
        let state = MqttState::new(&config.broker, metrics.clone());
        let clock = ingest.clock.clone();
        Ok(Self {
            config,
            client_id,
            filters,
            clock,
            metrics,
            state,
            inbox,
            items,
            committer,
            held,
        })
    }

    /// How it stands, for others to look at.
    pub fn state(&self) -> MqttState {
        self.state.clone()
    }

    /// Runs until `stop`; then acknowledges what has arrived, within the drain time. It ends
    /// before that only if the spool is closed.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            config,
            client_id,
            filters,
            clock,
            metrics,
            state,
            inbox,
            items,
            committer,
            held,
        } = self;
        let committing = tokio::spawn(committer.run(items));
        let supervisor =
            Supervisor { config, client_id, filters, clock, metrics, state, inbox, held, stop };
        let drain_timeout = supervisor.config.drain_timeout();
        tokio::select! {
            () = supervisor.run() => {}
            () = async { while !committing.is_finished() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            } } => {}
        }
        // The inbox is gone: what is in it is finished, or waits for a spool that takes nothing.
        let abort = committing.abort_handle();
        if tokio::time::timeout(drain_timeout, committing).await.is_err() {
            abort.abort();
        }
    }
}

/// Makes one connection after the other.
struct Supervisor {
    config: MqttConfig,
    client_id: String,
    filters: Vec<String>,
    clock: Arc<dyn Clock>,
    metrics: MqttMetrics,
    state: MqttState,
    inbox: Inbox,
    held: watch::Receiver<bool>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(mut self) {
        let first = Duration::from_millis(self.config.reconnect_first_ms);
        let most = Duration::from_millis(self.config.reconnect_max_ms);
        let mut backoff = Backoff::new(first, most);
        while !self.stop.is_cancelled() {
            let since = Instant::now();
            let end = match options::read(&self.config, &self.client_id, Session::Kept) {
                Ok(options) => self.connect(options).await,
                Err(error) => End::Lost(format!("{error:#}")),
            };
            self.metrics.connected.set(0);
            let End::Lost(why) = end else { break };
            if self.stop.is_cancelled() {
                break;
            }
            if since.elapsed() > GOOD_AFTER {
                backoff.reset();
            }
            let delay = backoff.next_delay();
            self.metrics.failures.inc();
            self.state.failed(&why);
            tracing::warn!(again_in_ms = delay.as_millis() as u64, "MQTT: {why}");
            self.pause(delay).await;
        }
        self.state.closed();
    }

    /// Waits, and then for a spool that takes something: a new connection would only bring what
    /// must wait.
    async fn pause(&mut self, delay: Duration) {
        let waiting = async {
            tokio::time::sleep(delay).await;
            // It ends with the committer, and then so do we.
            let _ = self.held.wait_for(|held| !held).await;
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = waiting => {}
        }
    }

    async fn connect(&self, options: MqttOptions) -> End {
        let connection = Connection::new(Setup {
            options,
            filters: self.filters.clone(),
            receive_max: self.config.receive_max,
            inbox: self.inbox.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            state: self.state.clone(),
            stop: self.stop.clone(),
            had_session: self.metrics.connections.get() > 0,
        });
        let link = connection.link();
        let mut polling = AbortOnDropHandle::new(tokio::spawn(connection.run()));
        let ended = tokio::select! {
            ended = &mut polling => ended,
            () = self.stop.cancelled() => {
                let deadline = Instant::now() + self.config.drain_timeout();
                let _ = tokio::time::timeout_at(deadline, self.flush(&link)).await;
                match tokio::time::timeout_at(deadline, &mut polling).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        tracing::warn!("MQTT messages were not all acknowledged: they come again");
                        polling.abort();
                        return End::Closed;
                    }
                }
            }
        };
        link.close();
        // A panic is rumqttc's: a packet that it did not expect.
        ended.unwrap_or_else(|error| End::Lost(format!("the connection failed: {error}")))
    }

    /// Waits until what has arrived is acknowledged, then says goodbye. The session stays.
    async fn flush(&self, link: &Link) {
        let (done, flushed) = oneshot::channel();
        if self.inbox.put(Item::Flush(done)) {
            // An error means that the committer is gone, and with it all there was to wait for.
            let _ = flushed.await;
        }
        let is_connected = self.state.standing().is_connected;
        if !is_connected || link.disconnect().is_err() {
            link.close();
        }
    }
}
