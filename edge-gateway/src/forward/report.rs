//! What the gateway says about its spool on `gateway-status` (`penstock_common::status`): built
//! from the spool's own numbers, sent by the forwarder's producer, one at a time.
//!
//! It is best effort and at least once: a status that is refused or lost is followed by the next.
//! But the spool keeps the last segment of an ended epoch, and damaged segments, until a status
//! that told of them was acknowledged. So however often a gateway is killed, even before its first
//! status got through, the next start finds those segments and tells it again:
//!
//! | the gateway dies | what the next start says of the old epoch |
//! |---|---|
//! | before anything was spooled | nothing: it has no number |
//! | before a status told of its last entries | its end, from its last segment, which is never removed before it is told |
//! | after its entries were retired, before the index was written | retired as far as the index knows; the rest is forwarded again and retired again |
//! | after damage was passed over, before a status told of it | the index was not written since, so the place is read again and found again |
//! | after a status told that it is complete | nothing, or the same again |
//!
//! Numbers count from the moment they are synced, so what a failed sync took with it is no gap.

use std::time::{Duration, Instant};

use penstock_common::clock::Reading;
use penstock_common::log::{DamagedRange, EpochStat};
use penstock_common::status::{
    DAMAGED_MAX, DamagedNumbers, EPOCHS_MAX, EpochStatus, GatewayStatus, SpoolStatus,
};
use penstock_common::topic::Topic;
use serde::{Deserialize, Serialize};

use super::OutboundRecord;
use crate::spool::SpoolStat;

/// How the gateway tells how it is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusConfig {
    /// How often a status is sent, in milliseconds.
    pub interval_ms: u64,
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self { interval_ms: 10_000 }
    }
}

impl StatusConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let got = self.interval_ms;
        if !(10..=600_000).contains(&got) {
            problems.push(format!("status.interval_ms = {got}: 10 to 600000"));
        }
    }
}

/// What a status lists of the spool; the spool may forget it once the bus has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The epochs, the last of which is being written.
    pub epochs: Vec<EpochStat>,
    /// The damaged ranges.
    pub damaged: Vec<DamagedRange>,
}

/// When a status is due, and what the one on its way lists.
pub struct Reporter {
    interval: Duration,
    due_at: Instant,
    on_its_way: Option<Listed>,
}

impl Reporter {
    /// A reporter whose first status is due now.
    pub fn new(config: StatusConfig, now: Instant) -> Self {
        let interval = Duration::from_millis(config.interval_ms);
        Self { interval, due_at: now, on_its_way: None }
    }

    /// Whether one should be sent now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.on_its_way.is_none() && now >= self.due_at
    }

    /// Whether one is sent and not answered.
    pub const fn is_on_its_way(&self) -> bool {
        self.on_its_way.is_some()
    }

    /// One was handed to the producer.
    pub fn sent(&mut self, listed: Listed, now: Instant) {
        self.on_its_way = Some(listed);
        self.due_at = now + self.interval;
    }

    /// The one on its way was answered, or given up with its producer: what it listed.
    pub fn answered(&mut self) -> Option<Listed> {
        self.on_its_way.take()
    }
}

/// The status of a spool, and what of it is listed.
pub fn status(gateway: &str, stat: &SpoolStat, now: Reading) -> (GatewayStatus, Listed) {
    let mut epochs = stat.epochs.clone();
    // The newest always has its place; of the others the oldest come first, as they are the ones
    // that the spool waits for to be told.
    let newest = epochs.pop();
    let more = epochs.len().saturating_sub(EPOCHS_MAX - 1);
    epochs.truncate(EPOCHS_MAX - 1);
    epochs.extend(newest);
    let damaged: Vec<DamagedRange> = stat.damaged.iter().take(DAMAGED_MAX).copied().collect();
    let listed: u64 = damaged.iter().map(DamagedRange::entries).sum();
    let status = GatewayStatus {
        epochs: epochs.iter().map(epoch_status).collect(),
        epochs_more: more as u64,
        damaged: damaged.iter().map(damaged_numbers).collect(),
        damaged_more: stat.damaged_entries.saturating_sub(listed),
        spool: SpoolStatus {
            bytes: stat.disk_bytes,
            bytes_max: stat.bytes_max,
            pending: stat.pending_entries,
            oldest_received_at: stat.oldest_received_at,
        },
        clock_unset: !now.is_set,
        ..GatewayStatus::new(gateway.to_owned(), now.at, stat.epoch)
    };
    (status, Listed { epochs, damaged })
}

const fn epoch_status(stat: &EpochStat) -> EpochStatus {
    EpochStatus { epoch: stat.epoch, next: stat.next_seq, retired: stat.retired_seq, not_kept: 0 }
}

const fn damaged_numbers(range: &DamagedRange) -> DamagedNumbers {
    DamagedNumbers { epoch: range.epoch, from: range.first_seq, to: range.next_seq }
}

/// The message of a status.
///
/// # Errors
/// When it has no form in JSON.
pub fn outbound(status: &GatewayStatus) -> anyhow::Result<OutboundRecord> {
    Ok(OutboundRecord {
        topic: Topic::GatewayStatus,
        key: Some(status.gateway.clone()),
        headers: Vec::new(),
        payload: status.encode()?.into(),
    })
}
