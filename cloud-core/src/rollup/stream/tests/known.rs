use std::collections::BTreeMap;

use super::model::{Record, Store, copy, metrics};
use crate::rollup::stream::{Event, Flushed, Held, Limits, Start, Stream};
use crate::rollup::window::{HOUR, MINUTE, hour_of};

const SECOND: i64 = 1_000_000;
/// The beginning of an hour.
const T: i64 = 1_767_312_000_000_000;

fn limits() -> Limits {
    Limits {
        lateness: 10 * MINUTE,
        provisional_delay: 10 * SECOND,
        flush_rows: 1_000,
        events_max: 1_000_000,
        device_events_max: 1_000_000,
    }
}

fn record(event_id: u128, event_time: i64, received_at: i64) -> Record {
    let copy = copy(event_id, received_at, event_time, 1.0);
    let body = event_id as u64;
    Record { append_time: received_at, fleet: "f", device: "d".into(), copy, body }
}

fn stream_from(position: i64, read_from: i64, incomplete: bool) -> Stream {
    let mut stream = Stream::new(limits(), metrics());
    stream.assign(&[Start { partition: 0, position, read_from, incomplete }], Vec::new());
    stream
}

fn stream() -> Stream {
    stream_from(0, 0, false)
}

fn flush(stream: &mut Stream, now: i64, end: i64) -> Flushed {
    stream.flush(now, &BTreeMap::from([(0, end)]))
}

fn marks(flushed: &Flushed) -> Vec<(i64, i64, &'static str)> {
    flushed.marks.iter().map(|m| ((m.hour - T) / HOUR, m.done_through - T, m.reason)).collect()
}

#[test]
fn a_minute_is_written_soon_after_its_end_and_again_only_when_it_changed() {
    let mut stream = stream();
    let events = [record(1, T, T), record(2, T + 20 * SECOND, T + 20 * SECOND)];
    for (offset, record) in (0..).zip(&events) {
        assert_eq!(stream.hold(&record.event(0, offset)), Held::Counted);
    }
    assert!(flush(&mut stream, T + 69 * SECOND, 2).rows.is_empty());
    let first = flush(&mut stream, T + 75 * SECOND, 2);
    let row = &first.rows[0];
    assert_eq!((row.minute, row.aggregate.count(), row.last_offset), (T, 2, 1));
    assert_eq!(first.rows.len(), 2, "one for each metric");
    assert_eq!(first.rewinds, [(0, 0)]);
    assert!(flush(&mut stream, T + 90 * SECOND, 2).rows.is_empty(), "nothing has changed");
    stream.hold(&record(3, T + 30 * SECOND, T + 91 * SECOND).event(0, 2));
    assert_eq!(flush(&mut stream, T + 100 * SECOND, 3).rows[0].aggregate.count(), 3);
    // A later event closes it: there is nothing new to write but that.
    stream.hold(&record(4, T + 11 * MINUTE, T + 11 * MINUTE).event(0, 3));
    let closing = flush(&mut stream, T + 11 * MINUTE, 4);
    assert!(closing.rows.is_empty());
    assert_eq!(closing.closes[0].closed_through, T + MINUTE);
}

#[test]
fn in_a_hurry_a_minute_is_written_when_it_closes() {
    let mut stream = stream();
    stream.hold(&record(1, T, T).event(0, 0));
    stream.hold(&record(2, T + 20 * MINUTE, T).event(0, 1));
    assert_eq!(flush(&mut stream, T, 9).marks.len(), 1, "the second is ahead");
    stream.hold(&record(3, T + 11 * MINUTE, T + 11 * MINUTE).event(0, 2));
    let flushed = flush(&mut stream, i64::MIN, 9);
    assert_eq!(flushed.rows[0].aggregate.count(), 2, "the one ahead counts where it was received");
    assert_eq!(flushed.rows[0].minute, T);
}

#[test]
fn copies_count_once_and_other_bytes_are_a_conflict() {
    let mut stream = stream();
    stream.hold(&record(1, T, T).event(0, 0));
    assert_eq!(stream.hold(&record(1, T, T + SECOND).event(0, 1)), Held::Duplicate);
    let other = Record { body: 99, ..record(1, T + HOUR, T + HOUR) };
    assert_eq!(stream.hold(&other.event(0, 2)), Held::Conflict);
    let mut newer = other.event(0, 3);
    newer.schema_version = 2;
    assert_eq!(stream.hold(&newer), Held::Duplicate, "of the newest copy");
    let flushed = flush(&mut stream, T + HOUR, 4);
    assert_eq!(flushed.rows[0].aggregate.count(), 1);
    // Wherever another copy may be that the two suppress.
    let expected = [(0, HOUR, "id_conflict"), (1, HOUR + 11 * MINUTE, "id_conflict")];
    assert_eq!(marks(&flushed), expected);
}

#[test]
fn a_late_event_marks_its_hour_and_so_does_its_copy() {
    let mut stream = stream();
    stream.hold(&record(1, T + 30 * MINUTE, T + 30 * MINUTE).event(0, 0));
    let late = record(2, T + 11 * MINUTE, T + 30 * MINUTE);
    assert_eq!(stream.hold(&late.event(0, 1)), Held::Late);
    let flushed = flush(&mut stream, T + 30 * MINUTE, 2);
    assert_eq!(marks(&flushed), [(0, 20 * MINUTE, "late")], "closed: it can be rebuilt at once");
    assert_eq!(flushed.marks[0].event_offset, Some(1));
    // What is in its minute is not known here: its copy may be another one than counted.
    assert_eq!(stream.hold(&late.event(0, 2)), Held::Duplicate);
    assert_eq!(marks(&flush(&mut stream, T + 30 * MINUTE, 3)), [(0, 22 * MINUTE, "copy")]);
}

#[test]
fn an_id_is_known_as_long_as_a_copy_can_be_one_with_it_and_no_longer() {
    for (minutes, expected) in [(11, Held::Conflict), (12, Held::Counted)] {
        let mut stream = stream();
        stream.hold(&record(1, T, T).event(0, 0));
        let now = T + (minutes + 9) * MINUTE;
        stream.hold(&record(2, now, now).event(0, 1));
        let closed = flush(&mut stream, now, 2).closes[0].closed_through;
        assert_eq!(closed, now - 10 * MINUTE);
        // The first open minute.
        let other = Record { body: 99, ..record(1, closed, now) };
        assert_eq!(stream.hold(&other.event(0, 2)), expected, "{minutes}");
    }
}

#[test]
fn a_late_copy_with_a_clock_ahead_marks_all_hours_in_which_a_retry_may_have_counted() {
    let mut stream = stream();
    stream.hold(&record(1, T + 30 * HOUR, T + 30 * HOUR).event(0, 0));
    let mut ahead = record(2, T + 50 * HOUR, T + 10 * MINUTE);
    ahead.append_time = T + 30 * HOUR;
    assert_eq!(stream.hold(&ahead.event(0, 1)), Held::Late);
    let flushed = flush(&mut stream, T + 30 * HOUR, 2);
    let hours: Vec<i64> = flushed.marks.iter().map(|mark| (mark.hour - T) / HOUR).collect();
    assert_eq!(hours, (0..=24).collect::<Vec<_>>());
}

#[test]
fn a_clock_ahead_marks_both_hours_unless_the_other_is_out_of_reach() {
    let mut stream = stream();
    stream.hold(&record(1, T + 2 * HOUR, T).event(0, 0));
    stream.hold(&record(2, T + 48 * HOUR, T).event(0, 1));
    let flushed = flush(&mut stream, T, 2);
    let expected = [(0, MINUTE, "clock_ahead"), (2, 2 * HOUR + MINUTE, "clock_ahead")];
    assert_eq!(marks(&flushed), expected);
    // Such a device alone gets on too, one horizon later.
    stream.hold(&record(3, T + 48 * HOUR, T + 21 * MINUTE).event(0, 2));
    assert_eq!(flush(&mut stream, T + HOUR, 9).closes[0].closed_through, T + MINUTE);
}

#[test]
fn a_gateway_that_is_ahead_of_the_bus_closes_nothing() {
    let mut stream = stream();
    let mut ahead = record(1, T + 50 * HOUR, T + 50 * HOUR);
    ahead.append_time = T;
    assert_eq!(stream.hold(&ahead.event(0, 0)), Held::AheadOfBus);
    assert_eq!(stream.hold(&record(2, T, T).event(0, 1)), Held::Counted);
    let flushed = flush(&mut stream, T + 2 * MINUTE, 2);
    assert_eq!(flushed.rows[0].minute, T);
    assert!(flushed.marks.iter().all(|mark| mark.reason == "ahead_of_bus"));
    assert!(flushed.marks.iter().any(|mark| mark.hour == hour_of(T + 50 * HOUR)));
}

#[test]
fn a_silent_device_closes_what_it_has_by_durations_of_our_clock() {
    let mut stream = stream();
    stream.hold(&record(1, T, T).event(0, 0));
    // Our clock is a day off.
    let now = T + 24 * HOUR;
    assert_eq!(flush(&mut stream, now, 1).closes[0].closed_through, T - 10 * MINUTE);
    assert!(flush(&mut stream, now + 10 * MINUTE, 1).closes.is_empty());
    assert!(flush(&mut stream, now + 50 * MINUTE, 2).closes.is_empty(), "not at the end");
    let silent = flush(&mut stream, now + 61 * MINUTE, 1);
    assert_eq!(silent.closes[0].closed_through, T + MINUTE);
    assert_eq!(silent.rewinds, [(0, 0)], "a copy may still come");
    // What was measured right after it still streams in.
    assert_eq!(stream.hold(&record(2, T + MINUTE, T + HOUR).event(0, 1)), Held::Counted);
    let forgotten = flush(&mut stream, now + 200 * MINUTE, 2);
    assert_eq!(forgotten.rewinds, [(0, 1)]);
}

#[test]
fn other_devices_pull_the_time_of_the_partition_along() {
    let mut stream = stream();
    stream.hold(&record(1, T, T).event(0, 0));
    let other = Record { device: "e".into(), ..record(2, T + 11 * MINUTE, T + 11 * MINUTE) };
    stream.hold(&other.event(0, 1));
    let flushed = flush(&mut stream, 0, 9);
    let closed = flushed.closes.iter().find(|close| &*close.device == "d").unwrap();
    assert_eq!(closed.closed_through, T + MINUTE);
}

#[test]
fn after_a_restart_nothing_is_written_before_the_position_is_reached() {
    let records: Vec<Record> =
        (0..4).map(|i| record(i as u128, T + i * 20 * SECOND, T + i * 20 * SECOND)).collect();
    let mut store = Store::default();
    let (mut stream, mut read) = store.begin(limits(), 1);
    for (offset, record) in (0..3).zip(&records) {
        stream.hold(&record.event(0, offset));
        read.insert(0, offset + 1);
    }
    store.apply(stream.flush(T + 2 * MINUTE, &BTreeMap::new()), &read);
    assert_eq!(store.positions[&0], (3, 0));
    let (mut stream, mut read) = store.begin(limits(), 1);
    stream.hold(&records[0].event(0, 0));
    let early = flush(&mut stream, T + 3 * MINUTE, 4);
    assert_eq!(early, Flushed { rewinds: vec![(0, 0)], ..Flushed::default() });
    for offset in 1..4 {
        stream.hold(&records[offset as usize].event(0, offset));
        read.insert(0, offset + 1);
    }
    let whole = flush(&mut stream, T + 4 * MINUTE, 4);
    assert_eq!(whole.rows[0].aggregate.count(), 3);
    store.apply(whole, &read);
}

#[test]
fn what_was_deleted_before_it_was_read_marks_the_hours_it_may_have_been_in() {
    let mut stream = stream_from(50, 40, true);
    stream.hold(&record(1, T + 5 * MINUTE, T + 5 * MINUTE).event(0, 40));
    stream.hold(&record(2, T + 6 * MINUTE, T + 6 * MINUTE).event(0, 50));
    let expected = [(-1, 0, "log_start"), (0, 16 * MINUTE, "log_start")];
    assert_eq!(marks(&flush(&mut stream, T, 51)), expected);
}

#[test]
fn a_clock_that_stands_still_does_not_hold_the_rewind_point() {
    let mut stream = stream();
    let mut last = Flushed::default();
    for offset in 0..120 {
        let mut event = record(offset as u128, T, T + offset * MINUTE);
        event.append_time = T + offset * MINUTE;
        stream.hold(&event.event(0, offset));
        last = flush(&mut stream, T + offset * MINUTE, offset + 1);
    }
    assert_eq!(last.rewinds, [(0, 69)], "fifty minutes back");
    assert!(last.marks.iter().any(|mark| mark.hour == T));
}

#[test]
fn over_its_limits_it_gives_up_the_oldest_and_says_so() {
    let mut stream = Stream::new(Limits { device_events_max: 10, ..limits() }, metrics());
    let start = Start { partition: 0, position: 0, read_from: 0, incomplete: false };
    stream.assign(&[start], Vec::new());
    for offset in 0..11 {
        stream.hold(&record(offset as u128, T + offset * 20 * SECOND, T + HOUR).event(0, offset));
    }
    assert_eq!(stream.size().events, 6);
    let flushed = flush(&mut stream, T, 11);
    assert_eq!(flushed.closes[0].closed_through, T + 2 * MINUTE);
    assert!(flushed.marks.iter().any(|mark| mark.reason == "overflow"));
    assert_eq!(flushed.rows.len(), 4, "two minutes of two metrics");
}

/// What the README promises of the memory: 50,000 devices that send five metrics every ten
/// seconds need less than a GiB. Here a hundredth of them.
#[test]
fn a_hundredth_of_the_fleet_takes_less_than_a_hundredth_of_a_gib() {
    let metrics: Vec<(u32, f64)> = (0..5).map(|metric| (metric, 0.5)).collect();
    let names = crate::rollup::counted::CountedMetrics::from_versions([(
        1,
        ["m0", "m1", "m2", "m3", "m4"],
    )]);
    let mut stream = Stream::new(Limits { flush_rows: 1_000_000, ..limits() }, names);
    let start = Start { partition: 0, position: 0, read_from: 0, incomplete: false };
    stream.assign(&[start], Vec::new());
    let names: Vec<String> =
        (0..500).map(|device| format!("press-line-7-device-{device}")).collect();
    let (mut offset, mut largest) = (0, 0);
    for second in (0..50 * 60).step_by(10) {
        let time = T + second * SECOND;
        for device in &names {
            let mut record = record(offset as u128, time, time);
            record.copy.metrics.clone_from(&metrics);
            let event = record.event(0, offset);
            stream.hold(&Event { device, ..event });
            offset += 1;
        }
        flush(&mut stream, time, offset);
        largest = largest.max(stream.size().bytes);
    }
    let size = stream.size();
    assert!(size.minutes > 500 * 10 && size.events > 500 * 120, "{size:?}");
    println!("{largest} bytes, {size:?}");
    assert!(largest < (1 << 30) / 100, "{largest} bytes, {size:?}");
}
