//! The dead letters' budget (spec I6): so that a device that only sends what is rejected can't
//! fill the disk and the topic.
//!
//! A rejected event is always answered in full. Within the budget it is kept as a dead letter;
//! beyond it, it is counted by device and reason for the ledger. What a bucket regains by the hour
//! is the sample that is still kept of a device that goes on.
//!
//! | bound | value |
//! |---|---|
//! | devices with a bucket of their own | [`DEVICES_MAX`]; one more takes the place of one that is full again, or shares one bucket with all others |
//! | counters by device and reason | `REJECTED_MAX` of the status format; beyond it, by reason only |

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_common::admit::is_key;
use penstock_common::event::Epoch;
use penstock_common::status::{GatewayStatus, REJECTED_MAX, RejectedCount};
use serde::{Deserialize, Serialize};

use super::{Admission, Reason};
use crate::spool::entry::{DeadLetterEntry, Entry};

/// The most devices whose budgets are kept apart.
pub const DEVICES_MAX: usize = 4_096;
/// How often room is made for others, when that many are known.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Room in the list for the reasons of what has no counter of its own.
const DEVICE_COUNTERS_MAX: usize = REJECTED_MAX - Reason::ALL.len();
/// What a dead letter costs beside its payload, in bytes.
pub const LETTER_BYTES: usize = 512;

/// `[dead_letters]`: how many rejections are kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Dead letters of one device that are kept at once.
    pub device_burst: u32,
    /// How many more an hour: the sample of a device that goes on.
    pub device_per_hour: u32,
    /// Bytes of all dead letters that are kept at once.
    pub total_burst_bytes: u64,
    /// How many more bytes an hour.
    pub total_bytes_per_hour: u64,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            device_burst: 200,
            device_per_hour: 60,
            total_burst_bytes: 128 << 20,
            total_bytes_per_hour: 64 << 20,
        }
    }
}

impl BudgetConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut range = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("dead_letters.{key}: {value}; expected {least} to {most}"));
            }
        };
        range("device_burst", self.device_burst.into(), 1, 1_000_000);
        range("device_per_hour", self.device_per_hour.into(), 1, 1_000_000);
        // Room for the largest dead letter.
        range("total_burst_bytes", self.total_burst_bytes, 2 << 20, 1 << 40);
        range("total_bytes_per_hour", self.total_bytes_per_hour, 1 << 20, 1 << 40);
    }
}

/// Decides which dead letters are kept, and counts the others; cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    config: BudgetConfig,
    buckets: Mutex<Buckets>,
    counts: Mutex<Counts>,
}

struct Buckets {
    total: Bucket,
    /// When buckets that are full again were last removed.
    swept_at: Instant,
    devices: HashMap<String, Bucket>,
}

/// Refills evenly with time.
#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// What was not kept of a request, by place in [`Admission::outcomes`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotKept(Vec<(usize, String, Reason)>);

impl NotKept {
    /// Whether the event at this place in the outcomes was not kept.
    pub fn contains(&self, place: usize) -> bool {
        self.0.iter().any(|(dropped, ..)| *dropped == place)
    }
}

#[derive(Default)]
struct Counts {
    /// The epoch that the rest belongs to; none before the first status.
    epoch: Option<Epoch>,
    total: u64,
    by_device: BTreeMap<(String, Reason), u64>,
    by_reason: BTreeMap<Reason, u64>,
    /// What was not kept in epochs of this process that have ended.
    ended: HashMap<Epoch, u64>,
}

impl Budget {
    /// Full buckets.
    pub fn new(config: BudgetConfig, now: Instant) -> Self {
        let total = Bucket { left: config.total_burst_bytes as f64, at: now };
        let buckets = Mutex::new(Buckets { total, swept_at: now, devices: HashMap::new() });
        Self(Arc::new(Inner { config, buckets, counts: Mutex::default() }))
    }

    /// Takes the dead letters that are beyond the budget out of the entries, and notes it.
    pub fn apply(&self, admission: &mut Admission, now: Instant) {
        if admission.accepted() == admission.outcomes.len() {
            return;
        }
        let not_kept = &mut admission.not_kept;
        let Inner { config, buckets, .. } = &*self.0;
        let mut buckets = lock(buckets);
        let mut place = 0;
        let outcomes = &admission.outcomes;
        admission.entries.retain(|entry| {
            // One entry for each outcome, in the same order.
            let rejection = outcomes.get(place).and_then(|outcome| outcome.rejection());
            let kept = match (entry, rejection) {
                (Entry::DeadLetter(letter), Some(rejection)) => {
                    let device = device(letter);
                    let kept = buckets.take(config, device, letter, now);
                    if !kept {
                        not_kept.0.push((place, device.to_owned(), rejection.reason));
                    }
                    kept
                }
                _ => true,
            };
            place += 1;
            kept
        });
    }

    /// Counts what was not kept, once the rest of its request is durable.
    pub fn count(&self, not_kept: &NotKept) {
        if not_kept.0.is_empty() {
            return;
        }
        let mut counts = lock(&self.0.counts);
        for (_, device, reason) in &not_kept.0 {
            counts.total += 1;
            let key = (device.clone(), *reason);
            let has_room = counts.by_device.len() < DEVICE_COUNTERS_MAX;
            match counts.by_device.get_mut(&key) {
                Some(count) => *count += 1,
                None if has_room => {
                    counts.by_device.insert(key, 1);
                }
                None => *counts.by_reason.entry(*reason).or_default() += 1,
            }
        }
    }

    /// Tells the ledger. What was counted since the epoch changed goes to the old one, and to the
    /// new one if the status does not list the old one any more.
    pub fn complete(&self, status: &mut GatewayStatus) {
        let mut counts = lock(&self.0.counts);
        let is_listed = |epoch| status.epochs.iter().any(|listed: &_| Some(listed.epoch) == epoch);
        if counts.epoch != Some(status.epoch) {
            if let Some(epoch) = counts.epoch.filter(|epoch| is_listed(Some(*epoch))) {
                let total = std::mem::take(&mut counts.total);
                counts.ended.insert(epoch, total);
                counts.by_device.clear();
                counts.by_reason.clear();
            }
            counts.epoch = Some(status.epoch);
        }
        counts.ended.retain(|epoch, _| is_listed(Some(*epoch)));
        for listed in &mut status.epochs {
            if listed.epoch == status.epoch {
                listed.not_kept = counts.total;
            } else if let Some(total) = counts.ended.get(&listed.epoch) {
                listed.not_kept = *total;
            }
        }
        let counted = |device: &str, reason: &Reason, count: &u64| RejectedCount {
            device: device.to_owned(),
            reason: reason.as_str().to_owned(),
            count: *count,
        };
        let by_device =
            counts.by_device.iter().map(|((device, reason), n)| counted(device, reason, n));
        let by_reason = counts.by_reason.iter().map(|(reason, n)| counted("", reason, n));
        status.rejected_not_kept = by_device.chain(by_reason).collect();
    }
}

impl Buckets {
    fn take(
        &mut self,
        config: &BudgetConfig,
        device: &str,
        letter: &DeadLetterEntry,
        now: Instant,
    ) -> bool {
        let bytes = (letter.payload.len() + letter.detail.len() + LETTER_BYTES) as f64;
        let (burst, per_hour) = (f64::from(config.device_burst), f64::from(config.device_per_hour));
        if self.devices.len() >= DEVICES_MAX
            && now.saturating_duration_since(self.swept_at) >= SWEEP_INTERVAL
        {
            self.swept_at = now;
            self.devices.retain(|_, bucket| bucket.refilled(burst, per_hour, now) < burst);
        }
        let name = match self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(device) {
            true => "",
            false => device,
        };
        let full = Bucket { left: burst, at: now };
        let bucket = self.devices.entry(name.to_owned()).or_insert(full);
        let total_burst = config.total_burst_bytes as f64;
        let left = self.total.refilled(total_burst, config.total_bytes_per_hour as f64, now);
        if bucket.refilled(burst, per_hour, now) < 1.0 || left < bytes {
            return false;
        }
        bucket.left -= 1.0;
        self.total.left -= bytes;
        true
    }
}

impl Bucket {
    fn refilled(&mut self, burst: f64, per_hour: f64, now: Instant) -> f64 {
        let hours = now.saturating_duration_since(self.at).as_secs_f64() / 3_600.0;
        self.left = (self.left + hours * per_hour).min(burst);
        self.at = now.max(self.at);
        self.left
    }
}

/// The device as the ledger may list it: nothing where its id could not be a device's.
fn device(letter: &DeadLetterEntry) -> &str {
    letter.device_id.as_deref().filter(|device| is_key(device)).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
