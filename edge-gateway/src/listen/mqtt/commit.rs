//! Makes messages durable, in the order of their arrival, and only then acknowledges them (I5).
//!
//! What arrives while a submission is being synced is the next submission: as many messages share
//! a sync as the broker may send unacknowledged. The spool joins it with what came by HTTP.
//!
//! While the spool takes nothing, nothing is acknowledged and nothing is dropped: the messages
//! wait here, what follows them waits in the inbox, and the rest waits at the broker.

use std::fmt::Display;
use std::time::{Duration, Instant};

use penstock_common::retry::Backoff;
use penstock_common::telemetry::traces::{Begun, Span, SpanKind, Traces};
use tokio::sync::{mpsc, watch};

use super::answer;
use super::inbox::{Item, Message};
use super::judge::{Judge, Judgement, context};
use super::metrics::MqttMetrics;
use crate::admit::budget::Budget;
use crate::listen::Durable;
use crate::listen::http::note_admission;
use crate::listen::metrics::ListenMetrics;
use crate::pressure::gate::Gate;
use crate::spool::SpoolError;
use crate::spool::entry::Entry;

/// Most that is submitted at once: bytes, as sent or as unpacked, and messages.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCH_MESSAGES_MAX: usize = 4_096;

/// Between two tries while the spool takes nothing.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Takes messages out of the inbox.
pub(super) struct Committer<D> {
    pub(super) spool: D,
    /// Says when the spool should take nothing.
    pub(super) gate: Option<Gate>,
    pub(super) judge: Judge,
    /// How many dead letters are kept; none: all.
    pub(super) budget: Option<Budget>,
    pub(super) traces: Traces,
    pub(super) listen_metrics: ListenMetrics,
    pub(super) metrics: MqttMetrics,
    /// Whether the spool takes nothing at present.
    pub(super) held: watch::Sender<bool>,
}

/// A message on its way to the disk.
struct Judged {
    message: Message,
    judgement: Judgement,
    span: Option<Span>,
}

impl<D: Durable> Committer<D> {
    /// Runs until the inbox ends, or the spool is closed.
    pub(super) async fn run(mut self, mut items: mpsc::UnboundedReceiver<Item>) {
        let mut batch = Vec::new();
        while let Some(first) = items.recv().await {
            let mut next = Some(first);
            let mut bytes = 0;
            let flush = loop {
                match next {
                    // The broker sends those of a broken connection again.
                    Some(Item::Message(message)) if !message.link.is_open() => {}
                    Some(Item::Message(message)) => {
                        let judged = self.judge(*message);
                        bytes += judged.bytes();
                        batch.push(judged);
                    }
                    Some(Item::Flush(done)) => break Some(done),
                    None => break None,
                }
                if bytes >= BATCH_BYTES_MAX || batch.len() >= BATCH_MESSAGES_MAX {
                    break None;
                }
                next = items.try_recv().ok();
            };
            if self.commit(&mut batch).await.is_err() {
                // Closed: nothing is acknowledged any more, and the broker has it all.
                return;
            }
            if let Some(done) = flush {
                // Whoever asked may have run out of patience.
                let _ = done.send(());
            }
        }
    }

    fn judge(&self, message: Message) -> Judged {
        let (publish, received) = (&message.publish, message.received);
        let trace = self.traces.begin(context(publish), "receive MQTT message", SpanKind::Consumer);
        let Begun { mut span, traceparent } = trace;
        let mut judgement = self.judge.judge(publish, received, traceparent);
        if let Some(budget) = &self.budget {
            budget.apply(&mut judgement.admission, Instant::now());
        }
        if let Some(span) = &mut span {
            note_admission(span, &judgement.admission);
        }
        Judged { message, judgement, span }
    }

    /// Leaves the batch empty, durable and acknowledged. What does not fit whole goes in parts.
    async fn commit(&mut self, batch: &mut Vec<Judged>) -> Result<(), SpoolError> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut messages = batch.len();
        while !batch.is_empty() {
            if let Some(Err(refused)) = self.gate.as_ref().map(Gate::ask_to_wait) {
                self.hold(&refused.why.label());
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
            // Copied, but for their payloads: they may be needed once more.
            let entries = batch[..messages].iter().flat_map(Judged::entries).cloned().collect();
            match self.spool.submit(entries).await {
                Ok(()) => {
                    self.release();
                    for judged in batch.drain(..messages) {
                        self.acknowledge(judged);
                    }
                    backoff.reset();
                    messages = batch.len().min(2 * messages);
                }
                Err(SpoolError::Closed) => {
                    batch.clear();
                    return Err(SpoolError::Closed);
                }
                Err(SpoolError::Full { .. }) if messages > 1 => messages /= 2,
                // Kept even if its connection ends: what can be written again is seen by trying.
                Err(error) => {
                    self.hold(&error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
        Ok(())
    }

    /// Answers what was rejected, then acknowledges: the broker reads them in this order, so that
    /// a message is answered at least once.
    fn acknowledge(&self, Judged { message, judgement, span }: Judged) {
        let admission = &judgement.admission;
        self.listen_metrics.receive(admission).settle(admission, true);
        if let Some(budget) = &self.budget {
            budget.count(&admission.not_kept);
        }
        if judgement.is_rejection() {
            self.metrics.rejected.inc();
            let outcome = if self.answer(&message, &judgement) { "sent" } else { "skipped" };
            self.metrics.answers.with_label_values(&[outcome]).inc();
        }
        let Message { publish, link, arrived, share, .. } = message;
        link.acknowledge(&publish);
        self.metrics.ack_latency.observe(arrived.elapsed().as_secs_f64());
        drop((publish, share, span));
    }

    fn answer(&self, message: &Message, judgement: &Judgement) -> bool {
        let Some(topic) = &judgement.error_topic else { return false };
        let Message { publish, link, .. } = message;
        let bytes_max = link.packet_bytes_max();
        let refusal = judgement.refusal.as_ref();
        let Some(answer) = answer::build(topic, publish, &judgement.admission, refusal, bytes_max)
        else {
            tracing::debug!(topic, "the answer is larger than the broker takes");
            return false;
        };
        let is_promised = publish.pkid != 0;
        link.answer(topic, answer.payload, answer.properties, is_promised)
    }

    fn hold(&self, why: &dyn Display) {
        if !self.held.send_replace(true) {
            self.metrics.held.set(1);
            tracing::warn!(%why, "MQTT messages are not acknowledged until the spool takes them");
        }
    }

    fn release(&self) {
        if self.held.send_replace(false) {
            self.metrics.held.set(0);
            tracing::info!("the spool takes MQTT messages again");
        }
    }
}

impl Judged {
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.judgement.admission.entries.iter()
    }

    fn bytes(&self) -> usize {
        let unpacked: usize = self.entries().map(Entry::encoded_bytes_max).sum();
        unpacked.max(self.message.publish.payload.len())
    }
}
