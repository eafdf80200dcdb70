//! Applies the bus's answers to a track.

use std::collections::HashMap;
use std::time::Instant;

use penstock_common::topic::Topic;

use super::fates::Turn;
use super::flight::Slot;
use super::lanes::LaneId;
use super::metrics::ForwardMetrics;
use super::track::Track;
use super::{Class, Delivery, Refusal};

/// Batches get no smaller than this on account of a topic that takes only small ones.
const BATCH_BYTES_MIN: usize = 16 << 10;

/// What the answers to some records amount to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Records that the bus has.
    pub(super) acknowledged: u64,
    /// Why the stream must be given up: a record of it was refused.
    pub(super) end: Option<String>,
}

impl Settled {
    /// With what the answers to another track's records amount to.
    pub(super) fn and(self, other: Self) -> Self {
        Self { acknowledged: self.acknowledged + other.acknowledged, end: self.end.or(other.end) }
    }
}

impl Track {
    /// Applies the answers to records of this track.
    pub(super) fn settle(
        &mut self,
        deliveries: impl Iterator<Item = Delivery>,
        batch_bytes_max: &mut usize,
        metrics: &ForwardMetrics,
        now: Instant,
    ) -> Settled {
        let mut settled = Settled::default();
        let mut refused: HashMap<LaneId, (Refusal, Vec<Slot>)> = HashMap::new();
        for Delivery { token, result } in deliveries {
            let Some(slot) = self.flight.take(token) else { continue };
            self.sending.answered(token, &result);
            match result {
                Ok(()) => {
                    settled.acknowledged += 1;
                    self.acknowledged(slot, now);
                }
                Err(refusal) => {
                    self.lanes.returned(slot.lane, slot.bytes, slot.is_alone);
                    self.lanes.get_mut(slot.lane).park(slot.position);
                    if slot.is_alone {
                        self.refused_alone(slot, &refusal, metrics, now);
                    } else {
                        let entry = refused.entry(slot.lane);
                        entry.or_insert_with(|| (refusal, Vec::new())).1.push(slot);
                    }
                }
            }
        }
        for (refusal, slots) in refused.into_values() {
            let Refusal { class, reason } = &refusal;
            let said = format!("the bus refused {} records: {reason}", slots.len());
            // What its own end took with it says nothing of why it ended.
            if settled.end.is_none() || *class != Class::GivenUp {
                settled.end = Some(said);
            }
            self.refused_together(&slots, &refusal, batch_bytes_max, metrics, now);
        }
        settled
    }

    fn acknowledged(&mut self, slot: Slot, now: Instant) {
        let Slot { position, lane, bytes, payload_bytes, is_alone, .. } = slot;
        if self.lanes.acknowledged(lane, bytes, now) {
            tracing::info!(topic = lane.topic.base_name(), "the topic can be written to again");
        }
        if is_alone {
            self.lanes.note_fits(lane.topic, bytes);
        }
        if self.fates.acknowledge(position, payload_bytes) {
            self.acks.done(position);
        } else {
            // The next part of it.
            self.lanes.get_mut(lane).park(position);
        }
    }

    /// A batch of the stream was refused.
    fn refused_together(
        &mut self,
        slots: &[Slot],
        refusal: &Refusal,
        batch_bytes_max: &mut usize,
        metrics: &ForwardMetrics,
        now: Instant,
    ) {
        metrics.refused(refusal.class);
        match (refusal.class, slots) {
            (Class::GivenUp, _) => {}
            (Class::Topic, _) => self.block_topic(slots[0].lane.topic, refusal, now),
            // It was the only one in its batch.
            (Class::TooLarge | Class::Unfit, [slot]) => {
                self.refused_alone(*slot, refusal, metrics, now);
            }
            _ => {
                if refusal.class == Class::TooLarge {
                    *batch_bytes_max = (*batch_bytes_max / 2).max(BATCH_BYTES_MIN);
                }
                for slot in slots {
                    self.fates.suspect(slot.position, now);
                }
            }
        }
    }

    fn refused_alone(
        &mut self,
        slot: Slot,
        refusal: &Refusal,
        metrics: &ForwardMetrics,
        now: Instant,
    ) {
        let Slot { position, lane, bytes, .. } = slot;
        let topic = lane.topic.base_name();
        if slot.is_alone {
            metrics.refused(refusal.class);
        }
        match refusal.class {
            Class::Topic => return self.block_topic(lane.topic, refusal, now),
            // It tells nothing of the record, and a blocked topic is still blocked.
            Class::GivenUp => {
                self.lanes.retry_later(lane, now);
                return self.lanes.give_up();
            }
            Class::TooLarge => self.lanes.note_too_large(lane.topic, bytes),
            Class::Unfit | Class::Unclear => {}
        }
        let is_letter = lane.topic != Topic::RawEvents;
        let said = (refusal.class, refusal.reason.as_str());
        match self.fates.refuse(position, said, (is_letter, bytes), now) {
            Turn::Changed => {
                metrics.redirected.inc();
                let (seq, reason) = (position.seq, &refusal.reason);
                tracing::error!(
                    topic,
                    seq,
                    bytes,
                    reason,
                    "the bus will never take this record as it is; it becomes a dead letter, \
                     or smaller ones"
                );
                self.park_as_letter(&slot);
            }
            Turn::Later => {
                self.lanes.retry_later(lane, now);
            }
            Turn::Stuck => {
                let delay = self.lanes.retry_later(lane, now);
                let (seq, reason, delay_ms) = (position.seq, &refusal.reason, delay.as_millis());
                tracing::error!(
                    topic,
                    seq,
                    bytes,
                    reason,
                    delay_ms,
                    "the bus takes this dead letter in no form; it is tried again, and the spool \
                     keeps it: check the topic's settings"
                );
            }
        }
    }

    pub(super) fn block_topic(&mut self, topic: Topic, refusal: &Refusal, now: Instant) {
        let (delay, is_news) = self.lanes.block(topic, refusal, now);
        if !is_news {
            return;
        }
        let (topic, reason, retry_ms) = (topic.base_name(), &refusal.reason, delay.as_millis());
        if refusal.class == Class::Topic {
            tracing::error!(
                topic,
                reason,
                retry_ms,
                "the topic can't be written to; its records wait in the spool"
            );
        } else {
            tracing::warn!(topic, reason, retry_ms, "the bus does not answer for this topic");
        }
    }
}
