use proptest::prelude::*;

use super::*;
use crate::rollup::window::{HOUR, MINUTE};

const LATENESS: i64 = 10 * MINUTE;

/// Without sets, by the words of the rule.
fn naive(copies: &[StoredCopy]) -> BTreeMap<(i64, Metric), Aggregate> {
    let suppresses = |other: &StoredCopy, copy: &StoredCopy| {
        let later = copy.effective_time() - other.effective_time();
        let alike = copy.is_ahead() || copy.event_time == other.event_time;
        other.event_id == copy.event_id
            && other.precedence < copy.precedence
            && (later.abs() <= LATENESS
                || (other.is_ahead() && alike && (0..=AHEAD_REACH).contains(&later)))
    };
    let mut minutes: BTreeMap<(i64, Metric), Aggregate> = BTreeMap::new();
    for (at, copy) in copies.iter().enumerate() {
        let again = copies[..at]
            .iter()
            .any(|o| o.event_id == copy.event_id && o.precedence == copy.precedence);
        if again || copies.iter().any(|other| suppresses(other, copy)) {
            continue;
        }
        for (metric, value) in &copy.metrics {
            let minute = copy.effective_time().div_euclid(MINUTE) * MINUTE;
            minutes.entry((minute, *metric)).or_default().add(*value);
        }
    }
    minutes
}

fn copy(event_id: u128, received_at: i64, event_time: i64, value: f64) -> StoredCopy {
    let gateway = Arc::from("g");
    let precedence = Precedence { received_at, gateway, epoch: 1, seq: received_at };
    let flags = Flags::of_times(UnixMicros(event_time), UnixMicros(received_at));
    StoredCopy { event_id, precedence, event_time, flags, metrics: vec![(0, value)] }
}

fn counted(copies: &[StoredCopy]) -> Vec<(i64, f64)> {
    let rows = minutes(copies.to_vec(), LATENESS);
    rows.iter().map(|((minute, _), row)| (*minute, row.sum())).collect()
}

#[test]
fn the_same_record_and_its_copies_count_once() {
    let first = copy(1, HOUR, HOUR - 1, 5.0);
    let retry = copy(1, HOUR + 3, HOUR - 1, 5.0);
    let other = copy(2, HOUR + 3, HOUR - 1, 7.0);
    let copies = [retry, first.clone(), other, first];
    assert_eq!(counted(&copies), [(HOUR - MINUTE, 12.0)]);
}

#[test]
fn of_conflicting_copies_the_least_counts_unless_they_are_far_apart() {
    let first = copy(1, HOUR, HOUR, 5.0);
    let near = copy(1, HOUR + 1, HOUR - LATENESS, 7.0);
    let far = copy(1, HOUR + LATENESS, HOUR + LATENESS + 1, 9.0);
    assert_eq!(counted(&[near.clone(), first.clone()]), [(HOUR, 5.0)]);
    assert_eq!(counted(&[far.clone(), first]), [(HOUR, 5.0), (HOUR + LATENESS, 9.0)]);
    assert_eq!(counted(&[near, far]), [(HOUR - LATENESS, 7.0), (HOUR + LATENESS, 9.0)]);
}

#[test]
fn retries_of_a_clock_that_is_ahead_count_where_it_was_received_first() {
    let timestamp = 5 * HOUR;
    let first = copy(1, HOUR, timestamp, 5.0);
    let still_ahead = copy(1, 2 * HOUR, timestamp, 5.0);
    let in_time = copy(1, timestamp + 1, timestamp, 5.0);
    let all = [in_time.clone(), still_ahead.clone(), first.clone()];
    assert_eq!(counted(&all), [(HOUR, 5.0)]);
    assert_eq!(counted(&[in_time.clone(), still_ahead]), [(2 * HOUR, 5.0)]);
    assert_eq!(counted(&[in_time]), [(timestamp, 5.0)]);
    let too_late = copy(1, HOUR + AHEAD_REACH + 1, HOUR + 2 * AHEAD_REACH, 5.0);
    assert_eq!(counted(&[first, too_late]).len(), 2);
}

fn copies() -> impl Strategy<Value = Vec<StoredCopy>> {
    let one = (0..4_u128, 0..40_i64, -30..30_i64, 0..3_u32, 0..3_i64).prop_map(
        |(event_id, received, ahead, metric, seq)| {
            let unit = 7 * MINUTE;
            let mut copy = copy(event_id, received * unit, (received + ahead) * unit, 1.5);
            copy.precedence.seq = seq;
            copy.metrics = vec![(metric, (event_id as f64) + received as f64), (7, 0.1)];
            copy
        },
    );
    // One precedence is one record.
    prop::collection::vec(one, 0..12).prop_map(|mut copies| {
        copies.sort_by(|a, b| (a.event_id, &a.precedence).cmp(&(b.event_id, &b.precedence)));
        copies.dedup_by(|a, b| a.event_id == b.event_id && a.precedence == b.precedence);
        copies
    })
}

proptest! {
    #[test]
    fn it_is_what_the_rule_says(copies in copies()) {
        let expected = naive(&copies);
        prop_assert_eq!(&minutes(copies.clone(), LATENESS), &expected);
        let mut twice = [&copies[..], &copies[..]].concat();
        twice.reverse();
        prop_assert_eq!(&minutes(twice, LATENESS), &expected);
    }

    #[test]
    fn an_hour_needs_only_what_lies_near_it(copies in copies(), hour in 0..5_i64) {
        let hour = hour * HOUR;
        let of_hour = |rows: BTreeMap<(i64, Metric), Aggregate>| -> Vec<_> {
            rows.into_iter().filter(|((minute, _), _)| (hour..hour + HOUR).contains(minute)).collect()
        };
        let mut near = copies.clone();
        near.retain(|copy| {
            let at = copy.effective_time();
            let reach = if copy.is_ahead() { AHEAD_REACH } else { LATENESS };
            (hour - reach..hour + HOUR + LATENESS).contains(&at)
        });
        prop_assert_eq!(of_hour(minutes(near, LATENESS)), of_hour(minutes(copies, LATENESS)));
    }
}
