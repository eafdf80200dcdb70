use super::*;
use crate::fleet::Fault;
use crate::oracle::record::{NewRecord, Told, ToldDevice};

const DEVICE: &str = "sim-00001";

fn id(n: u8) -> String {
    Uuid::from_bytes([n; 16]).to_string()
}

fn bytes(n: u8) -> Vec<u8> {
    format!(r#"{{"event_id":"{}","device_id":"{DEVICE}","n":{n}}}"#, id(n)).into_bytes()
}

fn new(n: u8, fault: Option<Fault>) -> NewRecord {
    NewRecord { event_id: [n; 16], fingerprint: Fingerprint::of(&bytes(n)), fault }
}

/// Events 0, 1, 2 accepted, 3 rejected, 4 unknown.
fn told() -> ToldFleet {
    let mut device = ToldDevice::new(DEVICE);
    for n in 0..3 {
        let index = device.sending(&new(n, None));
        device.told(index, &Told::Accepted);
    }
    let index = device.sending(&new(3, Some(Fault::WrongType)));
    device.told(index, &Told::Rejected("/metrics/cpu_temp type".into()));
    device.sending(&new(4, None));
    ToldFleet { fleet: "sim".into(), devices: vec![device] }
}

/// What a correct pipeline shows, apart from what `change` does.
fn verdict_after(change: impl FnOnce(&mut Vec<(u8, Vec<u8>)>, &mut Vec<Vec<u8>>)) -> Verdict {
    let told = told();
    let mut stored: Vec<_> = (0..3).map(|n| (n, bytes(n))).collect();
    let mut dead = vec![bytes(3)];
    change(&mut stored, &mut dead);
    let mut checker = Checker::new(&told, Tolerance::default());
    for n in 0..3 {
        checker.on_topic(DEVICE, "gw", &bytes(n));
    }
    for (n, payload) in stored {
        checker.stored(DEVICE, &id(n), &payload);
    }
    for payload in dead {
        checker.dead_letter("schema_violation", &payload);
    }
    checker.finish()
}

#[test]
fn a_correct_pipeline_passes_with_exact_counts() {
    let verdict = verdict_after(|_, _| {});
    assert!(verdict.holds(), "{verdict}");
    let expected = Verdict {
        sent: 5,
        accepted: 3,
        rejected: 1,
        unknown: 1,
        stored: 3,
        dead_lettered: 1,
        ..Verdict::default()
    };
    assert_eq!(verdict, expected);
}

#[test]
fn an_unknown_outcome_may_be_stored_once_but_not_twice() {
    let once = verdict_after(|stored, _| stored.push((4, bytes(4))));
    assert!(once.holds(), "{once}");
    let twice = verdict_after(|stored, _| stored.extend([(4, bytes(4)), (4, bytes(4))]));
    assert_eq!(twice.duplicated, 1);
    assert!(!twice.holds());
}

#[test]
fn a_missing_event_is_detected() {
    let verdict = verdict_after(|stored, _| drop(stored.remove(1)));
    assert_eq!((verdict.missing, verdict.holds()), (1, false));
    assert!(verdict.to_string().contains(&id(1)), "{verdict}");
}

#[test]
fn a_doubled_event_is_detected() {
    let verdict = verdict_after(|stored, _| stored.push((2, bytes(2))));
    assert_eq!((verdict.duplicated, verdict.holds()), (1, false));
}

#[test]
fn an_altered_event_is_detected_even_by_white_space() {
    let verdict = verdict_after(|stored, _| stored[0].1.insert(1, b' '));
    assert_eq!((verdict.altered, verdict.holds()), (1, false));
}

#[test]
fn a_spurious_event_is_detected_never_sent_or_rejected() {
    let never_sent = verdict_after(|stored, _| stored.push((9, bytes(9))));
    assert_eq!((never_sent.spurious, never_sent.holds()), (1, false));
    let rejected = verdict_after(|stored, _| stored.push((3, bytes(3))));
    assert_eq!((rejected.spurious, rejected.holds()), (1, false));
}

#[test]
fn dead_letters_are_checked_both_ways() {
    let gone = verdict_after(|_, dead| dead.clear());
    assert_eq!((gone.dead_letters_missing, gone.holds()), (1, false));
    let altered = verdict_after(|_, dead| dead[0].push(b' '));
    assert_eq!((altered.dead_letters_missing, altered.dead_letters_spurious), (1, 1));
    let accepted = verdict_after(|_, dead| dead.push(bytes(0)));
    assert_eq!((accepted.dead_letters_spurious, accepted.holds()), (1, false));
    let again = verdict_after(|_, dead| dead.push(bytes(3)));
    assert_eq!((again.dead_letter_copies, again.holds()), (1, true));
}

#[test]
fn wrong_judgements_and_contradictions_are_detected() {
    let mut told = told();
    let device = &mut told.devices[0];
    let index = device.sending(&new(5, Some(Fault::BadEventId)));
    device.told(index, &Told::Accepted);
    device.told(0, &Told::Rejected("/".into()));
    let verdict = Checker::new(&told, Tolerance::default()).finish();
    assert_eq!((verdict.misjudged, verdict.contradicted), (1, 1));
}

#[test]
fn order_counts_first_copies_per_gateway() {
    let told = told();
    let order = |seen: &[(u8, &str)]| {
        let mut checker = Checker::new(&told, Tolerance::default());
        for (n, gateway) in seen {
            checker.on_topic(DEVICE, gateway, &bytes(*n));
        }
        let verdict = checker.finish();
        (verdict.out_of_order, verdict.transport_duplicates)
    };
    assert_eq!(order(&[(0, "a"), (1, "a"), (0, "a"), (2, "a")]), (0, 1));
    assert_eq!(order(&[(0, "a"), (2, "a"), (1, "a")]), (1, 0));
    assert_eq!(order(&[(2, "a"), (0, "b"), (1, "b")]), (0, 0));
}

#[test]
fn a_key_that_is_not_the_device_is_malformed() {
    let told = told();
    let mut checker = Checker::new(&told, Tolerance::default());
    checker.on_topic("sim-00002", "a", &bytes(0));
    checker.on_topic(DEVICE, "a", b"{");
    assert_eq!(checker.finish().malformed, 2);
}

#[test]
fn devices_of_others_are_tolerated_only_where_allowed() {
    let told = told();
    let other = br#"{"event_id":"x","device_id":"curl"}"#;
    let run = |foreign_devices| {
        let mut checker =
            Checker::new(&told, Tolerance { foreign_devices, ..Tolerance::default() });
        checker.stored("curl", &id(9), other);
        checker.on_topic("curl", "a", other);
        checker.dead_letter("schema_violation", other);
        checker.finish()
    };
    let allowed = run(true);
    assert_eq!((allowed.foreign, allowed.spurious, allowed.dead_letters_spurious), (3, 0, 0));
    let refused = run(false);
    assert_eq!((refused.foreign, refused.spurious, refused.dead_letters_spurious), (0, 2, 1));
}

#[test]
fn an_accepted_event_may_give_way_only_where_that_is_expected() {
    let told = told();
    for gives_way in [true, false] {
        let mut checker = Checker::new(&told, Tolerance { gives_way, ..Tolerance::default() });
        for n in 1..3 {
            checker.on_topic(DEVICE, "gw", &bytes(n));
            checker.stored(DEVICE, &id(n), &bytes(n));
        }
        checker.dead_letter("schema_violation", &bytes(3));
        // One that never arrived, one whose outcome is unknown, and one that arrived as well.
        for n in [0, 4, 2] {
            checker.dead_letter("spool_full", &bytes(n));
        }
        let verdict = checker.finish();
        assert_eq!(verdict.holds(), gives_way, "{verdict}");
        if gives_way {
            assert_eq!((verdict.gave_way, verdict.arrived_twice, verdict.missing), (3, 1, 0));
        } else {
            assert_eq!((verdict.missing, verdict.dead_letters_spurious), (1, 2));
        }
    }
}
