use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { soft_bytes: 700, hard_bytes: 900, disk_free_bytes_min: 100 };

fn quiet() -> Signals {
    Signals {
        core_hold: false,
        spool_bytes: 0,
        disk_free_bytes: Some(10_000),
        disk_failing: false,
        eviction_blocked: false,
    }
}

fn signals() -> impl Strategy<Value = Signals> {
    let free = prop_oneof![Just(None), (0..300u64).prop_map(Some)];
    (any::<bool>(), 0..1_200u64, free, 0..10u8, any::<bool>()).prop_map(
        |(core_hold, spool_bytes, disk_free_bytes, failing, eviction_blocked)| Signals {
            core_hold,
            spool_bytes,
            disk_free_bytes,
            disk_failing: failing == 0,
            eviction_blocked,
        },
    )
}

/// The same world with more pressure in every respect, or as much.
fn more(signals: &Signals, by: (bool, u64, u64, bool, bool)) -> Signals {
    Signals {
        core_hold: signals.core_hold || by.0,
        spool_bytes: signals.spool_bytes + by.1,
        disk_free_bytes: signals.disk_free_bytes.map(|free| free.saturating_sub(by.2)),
        disk_failing: signals.disk_failing || by.3,
        eviction_blocked: signals.eviction_blocked || by.4,
    }
}

proptest! {
    /// More pressure never leads to less being done about it, whatever came before.
    #[test]
    fn it_is_monotone(
        past in prop::collection::vec(signals(), 0..20),
        now in signals(),
        by in (any::<bool>(), 0..500u64, 0..300u64, any::<bool>(), any::<bool>()),
    ) {
        let mut less = Pressure::new(LIMITS);
        past.iter().for_each(|signals| _ = less.step(signals));
        let mut greater = less.clone();
        let (a, b) = (less.step(&now), greater.step(&more(&now, by)));
        prop_assert!(a.state <= b.state, "{a:?} {b:?}");
        prop_assert!(a.hold <= b.hold);
        prop_assert!(a.shed_per_mille <= b.shed_per_mille, "{a:?} {b:?}");
        prop_assert!(a.excess_bytes <= b.excess_bytes);
        // And more pressure in the past does not make it less careful now.
        prop_assert!(less.step(&now).state <= greater.step(&now).state);
    }

    /// A figure that trembles by less than the distance between entering and leaving changes
    /// nothing after the first change.
    #[test]
    fn it_does_not_flap(
        past in prop::collection::vec(signals(), 0..20),
        centre in 0..1_200u64,
        free in 0..400u64,
        tremble in prop::collection::vec((-19..=19i64, -24..=24i64), 2..100),
    ) {
        let mut machine = Pressure::new(LIMITS);
        past.iter().for_each(|signals| _ = machine.step(signals));
        let mut states = Vec::new();
        for (bytes, disk) in tremble {
            let signals = Signals {
                spool_bytes: centre.saturating_add_signed(bytes),
                disk_free_bytes: Some(free.saturating_add_signed(disk)),
                ..quiet()
            };
            states.push(machine.step(&signals).state);
        }
        states.dedup();
        // At most one limit of each kind is near: each is crossed once in each direction.
        prop_assert!(states.len() <= 4, "{states:?}");
        let distinct: HashSet<State> = states.iter().copied().collect();
        prop_assert_eq!(distinct.len(), states.len(), "back and forth: {:?}", states);
    }

    /// The same world again changes nothing.
    #[test]
    fn it_settles_at_once(past in prop::collection::vec(signals(), 1..20)) {
        let mut machine = Pressure::new(LIMITS);
        let mut last = None;
        for signals in &past {
            last = Some(machine.step(signals));
        }
        let again = machine.clone();
        prop_assert_eq!(last, Some(machine.step(&past[past.len() - 1])));
        prop_assert_eq!(machine, again);
    }

    /// What is said holds together.
    #[test]
    fn its_verdicts_are_consistent(past in prop::collection::vec(signals(), 1..40)) {
        let mut machine = Pressure::new(LIMITS);
        for signals in past {
            let verdict = machine.step(&signals);
            prop_assert_eq!(verdict.hold, signals.core_hold);
            let shed = match verdict.state {
                State::Open | State::Hold => 0..=0,
                State::Shed | State::Evict => 1..=SHED_PER_MILLE_MAX,
                State::Refuse => 1_000..=1_000,
            };
            prop_assert!(shed.contains(&verdict.shed_per_mille), "{:?}", verdict);
            prop_assert_eq!(verdict.state == State::Open && signals.core_hold, false);
        }
    }
}

#[test]
fn limits_are_left_below_where_they_are_entered() {
    let mut machine = Pressure::new(LIMITS);
    let mut at = |spool_bytes| machine.step(&Signals { spool_bytes, ..quiet() }).state;
    use State::{Evict, Open, Shed};
    let steps = [
        (699, Open),
        (700, Shed),
        (661, Shed),
        (660, Open),
        (699, Open),
        (899, Shed),
        (900, Evict),
        (861, Evict),
        (860, Shed),
        (899, Shed),
        (1_000, Evict),
        (0, Open),
    ];
    for (bytes, state) in steps {
        assert_eq!(at(bytes), state, "{bytes}");
    }
    let mut machine = Pressure::new(LIMITS);
    let mut free = |free| machine.step(&Signals { disk_free_bytes: Some(free), ..quiet() }).state;
    for (bytes, state) in
        [(100, Open), (99, State::Refuse), (149, State::Refuse), (150, Open), (100, Open)]
    {
        assert_eq!(free(bytes), state, "{bytes} free");
    }
}

#[test]
fn the_share_that_is_shed_grows_from_the_soft_limit_to_the_hard_one() {
    let mut machine = Pressure::new(LIMITS);
    let mut shed = |spool_bytes| machine.step(&Signals { spool_bytes, ..quiet() }).shed_per_mille;
    assert_eq!([600, 700, 780, 900, 2_000].map(&mut shed), [0, 158, 475, 950, 950]);
}

#[test]
fn every_transition_can_happen() {
    let worlds = [
        quiet(),
        Signals { core_hold: true, ..quiet() },
        Signals { spool_bytes: 800, ..quiet() },
        Signals { spool_bytes: 800, core_hold: true, ..quiet() },
        Signals { spool_bytes: 950, ..quiet() },
        Signals { spool_bytes: 950, eviction_blocked: true, ..quiet() },
        Signals { disk_free_bytes: Some(0), ..quiet() },
        Signals { disk_failing: true, ..quiet() },
    ];
    let mut seen = HashSet::new();
    for from in worlds {
        for to in worlds {
            let mut machine = Pressure::new(LIMITS);
            let (before, after) = (machine.step(&from).state, machine.step(&to).state);
            seen.insert((before, after));
        }
    }
    for from in State::ALL {
        for to in State::ALL {
            assert!(seen.contains(&(from, to)), "{from:?} → {to:?}");
        }
    }
}

#[test]
fn it_says_why() {
    let why = |signals: Signals| Pressure::new(LIMITS).step(&signals).why;
    assert_eq!(why(Signals { disk_failing: true, ..quiet() }), Why::DiskFailing);
    assert_eq!(why(Signals { disk_free_bytes: Some(1), ..quiet() }), Why::DiskFull);
    assert_eq!(why(Signals { spool_bytes: 950, ..quiet() }), Why::SpoolFull);
}
