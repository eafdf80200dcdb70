//! Makes messages durable, in the order of their arrival, and only then acknowledges them (I5).
//!
//! What arrives while a submission is being synced is the next submission: as many messages share
//! a sync as the broker may send unacknowledged. The spool joins it with what came by HTTP.
//!
//! While the spool takes nothing, nothing is acknowledged and nothing is dropped: the messages
//! wait here, what follows them waits in the inbox, and the rest waits at the broker.

use std::time::Duration;

use penstock_common::retry::Backoff;
use tokio::sync::{mpsc, watch};

use super::answer;
use super::inbox::{Item, Message};
use super::judge::{Judge, Judgement};
use super::metrics::MqttMetrics;
use crate::listen::Durable;
use crate::listen::metrics::ListenMetrics;
use crate::spool::SpoolError;
use crate::spool::entry::Entry;

/// Most that is submitted at once, in bytes of payload and in messages.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCH_MESSAGES_MAX: usize = 4_096;

/// Between two tries while the spool takes nothing.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Takes messages out of the inbox.
pub(super) struct Committer<D> {
    pub(super) spool: D,
    pub(super) judge: Judge,
    pub(super) listen_metrics: ListenMetrics,
    pub(super) metrics: MqttMetrics,
    /// Whether the spool takes nothing at present.
    pub(super) held: watch::Sender<bool>,
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
                    Some(Item::Message(message)) => {
                        bytes += message.publish.payload.len();
                        batch.push(*message);
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

    /// Leaves the batch empty, durable and acknowledged.
    async fn commit(&mut self, batch: &mut Vec<Message>) -> Result<(), SpoolError> {
        // The broker sends those of a broken connection again.
        batch.retain(|message| message.link.is_open());
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let (judgements, entries) = self.judge_all(batch);
            match self.spool.submit(entries).await {
                Ok(()) => {
                    self.release();
                    for (message, judgement) in batch.drain(..).zip(judgements) {
                        self.acknowledge(message, &judgement);
                    }
                    return Ok(());
                }
                Err(SpoolError::Closed) => {
                    batch.clear();
                    return Err(SpoolError::Closed);
                }
                // Kept even if its connection ends: what can be written again is seen by trying.
                Err(error) => {
                    self.hold(&error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    fn judge_all(&mut self, batch: &[Message]) -> (Vec<Judgement>, Vec<Entry>) {
        let mut entries = Vec::new();
        let judgements = batch.iter().map(|message| {
            let mut judgement = self.judge.judge(&message.publish, message.received_at);
            entries.append(&mut judgement.admission.entries);
            judgement
        });
        (judgements.collect(), entries)
    }

    /// Answers what was rejected, then acknowledges: the broker reads them in this order, so that
    /// a message is answered at least once.
    fn acknowledge(&self, message: Message, judgement: &Judgement) {
        self.listen_metrics.count(&judgement.admission);
        if judgement.is_rejection() {
            self.metrics.rejected.inc();
            let outcome = if self.answer(&message, judgement) { "sent" } else { "skipped" };
            self.metrics.answers.with_label_values(&[outcome]).inc();
        }
        let Message { publish, link, arrived, share, .. } = message;
        link.acknowledge(&publish);
        self.metrics.ack_latency.observe(arrived.elapsed().as_secs_f64());
        drop((publish, share));
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

    fn hold(&self, error: &SpoolError) {
        if !self.held.send_replace(true) {
            self.metrics.held.set(1);
            tracing::warn!(%error, "MQTT messages are not acknowledged until the spool takes them");
        }
    }

    fn release(&self) {
        if self.held.send_replace(false) {
            self.metrics.held.set(0);
            tracing::info!("the spool takes MQTT messages again");
        }
    }
}
