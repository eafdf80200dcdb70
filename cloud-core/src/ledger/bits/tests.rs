use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Raw), Just(Kind::Dead), Just(Kind::Duplicate)]
}

/// Numbers in runs and scattered, some at the ends of the chunk.
fn numbers() -> impl Strategy<Value = Vec<u16>> {
    let run = (any::<u16>(), 0..3_000u16)
        .prop_map(|(from, n)| (from..from.saturating_add(n)).collect::<Vec<_>>());
    let ends = Just(vec![0, u16::MAX]);
    let scattered = prop::collection::vec(any::<u16>(), 0..200);
    let all = Just((0..=u16::MAX).collect::<Vec<_>>());
    let one = prop_oneof![4 => run, 1 => ends, 4 => scattered, 1 => all];
    prop::collection::vec(one, 0..3).prop_map(|runs| runs.concat())
}

type Naive = BTreeMap<Kind, BTreeSet<u16>>;

fn naive_counts(naive: &Naive, part: &Range<u32>) -> Counts {
    let set = |kind| naive.get(&kind).cloned().unwrap_or_default();
    let (raw, dead, duplicate) = (set(Kind::Raw), set(Kind::Dead), set(Kind::Duplicate));
    let count =
        |is: &dyn Fn(&u16) -> bool| part.clone().filter(|n| is(&(*n as u16))).count() as u64;
    Counts {
        stored: count(&|n| raw.contains(n) && !duplicate.contains(n)),
        duplicates: count(&|n| raw.contains(n) && duplicate.contains(n)),
        dead: count(&|n| dead.contains(n) && !raw.contains(n)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is added in whatever order, stored and loaded in between, is what a naive
    /// set says.
    #[test]
    fn chunks_are_what_naive_sets_are(
        added in prop::collection::vec((kinds(), numbers()), 0..6),
        ends in (0..=65_536u32, 0..=65_536u32),
    ) {
        let mut sets = ChunkSets::default();
        let mut naive = Naive::new();
        for (kind, numbers) in added {
            sets.add(kind, &Bits::of(numbers.clone()));
            naive.entry(kind).or_default().extend(numbers);
            let row = sets.store();
            prop_assert_eq!(row.counts, naive_counts(&naive, &(0..65_536)));
            sets = ChunkSets::load(&row).unwrap();
        }
        let part = ends.0.min(ends.1)..ends.0.max(ends.1);
        prop_assert_eq!(sets.counts_of(&part), naive_counts(&naive, &part));
        prop_assert_eq!(sets.counts_of(&(0..65_536)), sets.counts());
        let mut unseen = Vec::new();
        sets.unseen(&part, |range| unseen.extend(range));
        let is_seen = |n: &u32| [Kind::Raw, Kind::Dead].iter().any(|kind| {
            naive.get(kind).is_some_and(|set| set.contains(&(*n as u16)))
        });
        prop_assert_eq!(unseen, part.filter(|n| !is_seen(n)).collect::<Vec<_>>());
    }

    #[test]
    fn a_builder_notes_every_number_under_its_chunk(
        records in prop::collection::vec(
            (kinds(), 0..3usize, 1..4u64, prop_oneof![0..200_000u64, any::<u64>()]), 0..300),
    ) {
        let gateways = ["a", "b", "c"];
        let mut builder = SeenBuilder::default();
        let mut expected: BTreeSet<(Kind, &str, i64, i64)> = BTreeSet::new();
        for (kind, gateway, epoch, seq) in records {
            builder.add(kind, gateways[gateway], Epoch(epoch), seq);
            if let Ok(seq) = i64::try_from(seq) && seq < i64::MAX {
                expected.insert((kind, gateways[gateway], epoch as i64, seq));
            }
        }
        let seen = builder.finish();
        prop_assert!(seen.is_sorted());
        let mut found = BTreeSet::new();
        for one in &seen {
            let gateway = gateways.iter().find(|name| **name == one.gateway).unwrap();
            for number in Bits::decode(&one.bits).unwrap().0 {
                let seq = one.chunk * CHUNK_NUMBERS as i64 + i64::from(number);
                found.insert((one.kind, *gateway, one.epoch, seq));
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn bytes_that_are_no_set_are_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Bits::decode(&bytes);
    }
}

#[test]
fn a_full_chunk_keeps_only_its_counts() {
    let mut sets = ChunkSets::default();
    sets.add(Kind::Raw, &Bits::of((0..=u16::MAX).collect()));
    let row = sets.store();
    assert_eq!((&row.raw, &row.dead, &row.duplicate), (&None, &None, &None));
    assert_eq!(row.counts, Counts { stored: 65_536, duplicates: 0, dead: 0 });
    // A dead letter among them, stored after all later.
    let mut sets = ChunkSets::default();
    sets.add(Kind::Raw, &Bits::of((1..=u16::MAX).collect()));
    sets.add(Kind::Dead, &Bits::of(vec![0]));
    let row = sets.store();
    assert!(row.raw.is_none() && row.dead.as_ref().is_some_and(|dead| dead.len() < 30));
    let mut sets = ChunkSets::load(&row).unwrap();
    sets.add(Kind::Raw, &Bits::of(vec![0]));
    assert_eq!(sets.counts().stored, 65_536);
}

#[test]
fn a_set_beyond_its_chunk_is_refused() {
    let mut bytes = Vec::new();
    RoaringBitmap::from([65_536]).serialize_into(&mut bytes).unwrap();
    assert!(Bits::decode(&bytes).is_err());
}

#[test]
fn what_is_no_gateways_is_passed_over() {
    let mut builder = SeenBuilder::default();
    builder.add(Kind::Dead, "g", Epoch(0), 1);
    builder.add(Kind::Dead, "", Epoch(1), 1);
    builder.add(Kind::Dead, "g", Epoch(u64::MAX), 1);
    builder.add(Kind::Dead, "g", Epoch(1), u64::MAX);
    assert_eq!(builder.finish(), []);
}
