//! The dead letters' budget as pure logic: time is an argument (spec I6).

use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_gateway::admit::budget::{Budget, BudgetConfig, DEVICES_MAX, LETTER_BYTES};
use edge_gateway::admit::{Admission, Outcome, Reason, Rejection, Verdict};
use edge_gateway::spool::entry::{DeadLetterEntry, Entry};
use penstock_common::event::{Epoch, UnixMicros};
use penstock_common::status::{BYTES_MAX, EpochStatus, GatewayStatus, REJECTED_MAX, RejectedCount};

const CONFIG: BudgetConfig = BudgetConfig {
    device_burst: 3,
    device_per_hour: 2,
    total_burst_bytes: 1 << 20,
    total_bytes_per_hour: 1 << 20,
};

fn rejected(device: &str, payload_bytes: usize, count: usize) -> Admission {
    let mut admission = Admission::default();
    for index in 0..count {
        admission.entries.push(Entry::DeadLetter(DeadLetterEntry {
            device_id: Some(device.to_owned()),
            stage: "gateway.admit".into(),
            reason: Reason::SchemaViolation.as_str().into(),
            detail: String::new(),
            schema_version: None,
            fleet: "f".into(),
            first_seen: UnixMicros(0),
            traceparent: None,
            payload: Bytes::from(vec![b'x'; payload_bytes]),
        }));
        let reason = Reason::SchemaViolation;
        let rejection = Rejection { event_id: None, reason, errors: Vec::new() };
        admission.outcomes.push(Outcome { index, verdict: Verdict::Rejected(rejection) });
    }
    admission
}

/// Applies and counts; returns how many were kept.
fn kept(budget: &Budget, mut admission: Admission, now: Instant) -> usize {
    budget.apply(&mut admission, now);
    budget.count(&admission.not_kept);
    let dropped = (0..admission.outcomes.len()).filter(|place| admission.not_kept.contains(*place));
    assert_eq!(admission.entries.len() + dropped.count(), admission.outcomes.len());
    admission.entries.len()
}

fn told(budget: &Budget, epochs: &[u64]) -> GatewayStatus {
    let current = Epoch(*epochs.last().unwrap());
    let mut status = GatewayStatus::new("g".into(), UnixMicros(0), current);
    let epoch =
        |epoch: &u64| EpochStatus { epoch: Epoch(*epoch), next: 9, retired: 9, not_kept: 0 };
    status.epochs = epochs.iter().map(epoch).collect();
    budget.complete(&mut status);
    status
}

#[test]
fn a_device_that_goes_on_keeps_a_sample() {
    let now = Instant::now();
    let budget = Budget::new(CONFIG, now);
    assert_eq!(kept(&budget, rejected("bad", 10, 10), now), 3);
    assert_eq!(kept(&budget, rejected("bad", 10, 10), now), 0);
    assert_eq!(kept(&budget, rejected("other", 10, 2), now), 2);
    let later = now + Duration::from_secs(3_600);
    assert_eq!(kept(&budget, rejected("bad", 10, 10), later), 2);
    let status = told(&budget, &[1]);
    assert_eq!(status.epochs[0].not_kept, 25);
    let count =
        RejectedCount { device: "bad".into(), reason: "schema_violation".into(), count: 25 };
    assert_eq!(status.rejected_not_kept, [count]);
}

#[test]
fn all_devices_together_are_bounded_by_bytes() {
    let now = Instant::now();
    let budget = Budget::new(CONFIG, now);
    let names = 0..100;
    let kept: usize =
        names.map(|name| kept(&budget, rejected(&format!("d{name}"), 100_000, 1), now)).sum();
    assert_eq!(kept, (1 << 20) / (100_000 + LETTER_BYTES));
}

#[test]
fn memory_is_bounded_however_many_names_there_are() {
    let now = Instant::now();
    let config = BudgetConfig { total_burst_bytes: 1 << 40, ..CONFIG };
    let budget = Budget::new(config, now);
    let devices = DEVICES_MAX * 3;
    for name in 0..devices {
        kept(&budget, rejected(&format!("d{name}"), 1, 4), now);
    }
    let status = told(&budget, &[1]);
    assert!(status.rejected_not_kept.len() <= REJECTED_MAX);
    let listed: u64 = status.rejected_not_kept.iter().map(|counted| counted.count).sum();
    assert_eq!(listed, status.epochs[0].not_kept);
    assert!(listed > devices as u64);
    assert!(status.encode().unwrap().len() < BYTES_MAX);
}

#[test]
fn an_epoch_that_ends_keeps_its_count() {
    let now = Instant::now();
    let budget = Budget::new(CONFIG, now);
    kept(&budget, rejected("bad", 1, 5), now);
    assert_eq!(told(&budget, &[1]).epochs[0].not_kept, 2);
    let counts = |status: GatewayStatus| -> Vec<u64> {
        status.epochs.iter().map(|epoch| epoch.not_kept).collect()
    };
    assert_eq!(counts(told(&budget, &[1, 2])), [2, 0]);
    kept(&budget, rejected("bad", 1, 1), now);
    assert_eq!(counts(told(&budget, &[1, 2])), [2, 1]);
    // An epoch without entries is never listed: nothing of it is forgotten all the same.
    assert_eq!(counts(told(&budget, &[1, 3])), [2, 1]);
}
