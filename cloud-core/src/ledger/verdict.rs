//! The verdict: what became of the numbers of an epoch. Pure.
//!
//! For every number of a range exactly one of these is true, in this order:
//!
//! | it is | when |
//! |---|---|
//! | stored, duplicate, dead-lettered | it was seen ([`super::bits::ChunkSets`]) |
//! | damaged | the gateway says that it can't be read any more |
//! | missing | it lies below what is *judged*: the gateway had given it up, and everything that was on the bus by then has been read |
//! | in flight | otherwise |
//!
//! So received = stored + duplicates + dead-lettered + damaged + missing + in flight, and what the
//! gateway rejected and did not keep on top of both sides.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Range};

use super::bits::{CHUNK_NUMBERS, ChunkSets, Counts};

/// So many ranges are named; beyond, numbers are only counted.
pub const RANGES_MAX: usize = 1_000;

/// What is known of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub enum Chunk {
    /// Every number of it was seen.
    Full(Counts),
    /// These were.
    Sets(ChunkSets),
}

/// What is known of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Below this everything that its gateway gave up must have arrived.
    pub judged: u64,
    /// What can't be read any more: in order, not overlapping.
    pub damaged: &'a [Range<u64>],
    /// What was seen. Chunks at the ends of the range in question must be [`Chunk::Sets`].
    pub chunks: &'a BTreeMap<u64, Chunk>,
}

/// What became of a range of numbers, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// All of them, and what was not kept.
    pub received: u64,
    /// In raw files, once for each event as far as compaction has come.
    pub stored: u64,
    /// Further copies of events that are stored.
    pub duplicates: u64,
    /// Dead letters.
    pub dead_lettered: u64,
    /// On their way.
    pub in_flight: u64,
    /// Rejected, answered, and only counted.
    pub not_kept: u64,
    /// Given up by their gateway and arrived nowhere.
    pub missing: u64,
    /// Unreadable on their gateway's disk.
    pub damaged: u64,
}

impl AddAssign<&Self> for Verdict {
    fn add_assign(&mut self, other: &Self) {
        self.received += other.received;
        self.stored += other.stored;
        self.duplicates += other.duplicates;
        self.dead_lettered += other.dead_lettered;
        self.in_flight += other.in_flight;
        self.not_kept += other.not_kept;
        self.missing += other.missing;
        self.damaged += other.damaged;
    }
}

/// The verdict on a range and the missing numbers in it, as far as they are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The counts.
    pub verdict: Verdict,
    /// The first [`RANGES_MAX`] missing ranges, in order. The last one goes on to the last missing
    /// number when there are more; then not everything in it is missing.
    pub missing: Vec<Missing>,
}

/// A range with missing numbers in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The range.
    pub range: Range<u64>,
    /// How many of its numbers are missing: all, but for a last one that stands for many.
    pub numbers: u64,
}

/// Judges the numbers of `range`.
pub fn judge(range: Range<u64>, facts: &Facts<'_>) -> Judged {
    let mut judging = Judging { facts, judged: Judged::default() };
    if range.is_empty() {
        return judging.judged;
    }
    judging.judged.verdict.received = range.end - range.start;
    let first = range.start / CHUNK_NUMBERS;
    let last = (range.end - 1) / CHUNK_NUMBERS;
    let mut at = range.start;
    for (chunk, known) in facts.chunks.range(first..=last) {
        let begin = chunk * CHUNK_NUMBERS;
        if at < begin {
            judging.unseen(at..begin);
        }
        let from = begin.max(range.start);
        let to = (begin + CHUNK_NUMBERS).min(range.end);
        let counts = match known {
            Chunk::Full(counts) => *counts,
            Chunk::Sets(sets) => {
                // Both are within the chunk.
                let part = (from - begin) as u32..(to - begin) as u32;
                sets.unseen(&part, |gap| {
                    judging.unseen(begin + u64::from(gap.start)..begin + u64::from(gap.end));
                });
                sets.counts_of(&part)
            }
        };
        let verdict = &mut judging.judged.verdict;
        verdict.stored += counts.stored;
        verdict.duplicates += counts.duplicates;
        verdict.dead_lettered += counts.dead;
        at = to;
    }
    if at < range.end {
        judging.unseen(at..range.end);
    }
    judging.judged
}

struct Judging<'a> {
    facts: &'a Facts<'a>,
    judged: Judged,
}

impl Judging<'_> {
    /// Numbers that were not seen.
    fn unseen(&mut self, range: Range<u64>) {
        let damaged = self.facts.damaged;
        let mut at = range.start;
        let next = damaged.partition_point(|damaged| damaged.end <= range.start);
        for damaged in &damaged[next..] {
            if damaged.start >= range.end {
                break;
            }
            self.absent(at..damaged.start.max(at));
            let end = damaged.end.min(range.end);
            self.judged.verdict.damaged += end - damaged.start.max(at);
            at = end;
        }
        self.absent(at..range.end);
    }

    /// Numbers that were not seen and are not damaged.
    fn absent(&mut self, range: Range<u64>) {
        let split = self.facts.judged.clamp(range.start, range.end);
        self.judged.verdict.in_flight += range.end - split;
        let range = range.start..split;
        let numbers = range.end - range.start;
        if numbers == 0 {
            return;
        }
        self.judged.verdict.missing += numbers;
        let is_full = self.judged.missing.len() >= RANGES_MAX;
        match self.judged.missing.last_mut() {
            Some(last) if last.range.end == range.start || is_full => {
                last.range.end = range.end;
                last.numbers += numbers;
            }
            _ => self.judged.missing.push(Missing { range, numbers }),
        }
    }
}

/// Ranges in order and without overlaps, from ranges in any order.
pub fn normalized(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::bits::{Bits, Kind};

    const CHUNKS: u64 = 3;
    const END: u64 = CHUNKS * CHUNK_NUMBERS;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![3 => 0..END, 1 => (0..=CHUNKS).prop_map(|n| n * CHUNK_NUMBERS)]
    }

    fn ranges(n: usize) -> impl Strategy<Value = Vec<Range<u64>>> {
        let length = prop_oneof![1..5u64, 1..5_000u64, 1..100_000u64];
        let range = (number(), length).prop_map(|(from, n)| from..(from + n).min(END));
        prop::collection::vec(range, 0..n)
    }

    fn sets(
        raw: &BTreeSet<u64>,
        dead: &BTreeSet<u64>,
        dup: &BTreeSet<u64>,
    ) -> BTreeMap<u64, Chunk> {
        let mut chunks = BTreeMap::new();
        for chunk in 0..CHUNKS {
            let (begin, mut sets) = (chunk * CHUNK_NUMBERS, ChunkSets::default());
            for (kind, set) in [(Kind::Dead, dead), (Kind::Raw, raw), (Kind::Duplicate, dup)] {
                let numbers = set.range(begin..begin + CHUNK_NUMBERS);
                sets.add(kind, &Bits::of(numbers.map(|n| (n - begin) as u16).collect()));
            }
            if sets != ChunkSets::default() {
                chunks.insert(chunk, Chunk::Sets(sets));
            }
        }
        chunks
    }

    fn set(ranges: &[Range<u64>]) -> BTreeSet<u64> {
        ranges.iter().cloned().flatten().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_number_is_exactly_what_a_naive_look_says(
            raw in ranges(6), dead in ranges(3), duplicate in ranges(2), damaged in ranges(4),
            judged in number(), ends in (number(), number()),
        ) {
            let range = ends.0.min(ends.1)..ends.0.max(ends.1);
            let damaged = normalized(damaged);
            prop_assert_eq!(set(&damaged), damaged.iter().cloned().flatten().collect());
            let (raw, dead, dup) = (set(&raw), set(&dead), set(&duplicate));
            let is_damaged = |n: u64| damaged.iter().any(|range| range.contains(&n));
            let mut expected = Verdict { received: range.end - range.start, ..Verdict::default() };
            let mut missing = BTreeSet::new();
            for n in range.clone() {
                let what = match () {
                    () if raw.contains(&n) && dup.contains(&n) => &mut expected.duplicates,
                    () if raw.contains(&n) => &mut expected.stored,
                    () if dead.contains(&n) => &mut expected.dead_lettered,
                    () if is_damaged(n) => &mut expected.damaged,
                    () if n < judged => {
                        missing.insert(n);
                        &mut expected.missing
                    }
                    () => &mut expected.in_flight,
                };
                *what += 1;
            }
            let mut chunks = sets(&raw, &dead, &dup);
            let result = judge(range.clone(), &Facts { judged, damaged: &damaged, chunks: &chunks });
            prop_assert_eq!(&result.verdict, &expected);
            let named: Vec<Range<u64>> = result.missing.iter().map(|m| m.range.clone()).collect();
            prop_assert_eq!(set(&named), missing);
            prop_assert!(result.missing.iter().all(|m| m.numbers == m.range.end - m.range.start));
            prop_assert!(named.windows(2).all(|pair| pair[0].end < pair[1].start));

            // The identity, and full chunks inside by their counts alone.
            let v = &result.verdict;
            prop_assert_eq!(v.received, v.stored + v.duplicates + v.dead_lettered + v.in_flight
                + v.not_kept + v.missing + v.damaged);
            for (n, chunk) in &mut chunks {
                let inside = range.start <= n * CHUNK_NUMBERS && (n + 1) * CHUNK_NUMBERS <= range.end;
                if let Chunk::Sets(sets) = chunk && inside && sets.counts().seen() == CHUNK_NUMBERS {
                    *chunk = Chunk::Full(sets.counts());
                }
            }
            let again = judge(range, &Facts { judged, damaged: &damaged, chunks: &chunks });
            prop_assert_eq!(again, result);
        }
    }

    #[test]
    fn many_holes_are_counted_and_the_last_range_stands_for_the_rest() {
        let seen: BTreeSet<u64> = (0..10_000).filter(|n| n % 2 == 0).collect();
        let chunks = sets(&seen, &BTreeSet::new(), &BTreeSet::new());
        let facts = Facts { judged: u64::MAX, damaged: &[], chunks: &chunks };
        let result = judge(0..10_000, &facts);
        assert_eq!((result.verdict.missing, result.missing.len()), (5_000, RANGES_MAX));
        let first = Missing { range: 1..2, numbers: 1 };
        let last = Missing { range: 1_999..10_000, numbers: 4_001 };
        assert_eq!((&result.missing[0], result.missing.last()), (&first, Some(&last)));
    }

    #[test]
    fn a_huge_range_of_which_nothing_was_seen_is_no_work() {
        let facts = Facts { judged: 1 << 60, damaged: &[], chunks: &BTreeMap::new() };
        let result = judge(0..1 << 61, &facts);
        assert_eq!((result.verdict.missing, result.verdict.in_flight), (1 << 60, 1 << 60));
        assert_eq!(result.missing, [Missing { range: 0..1 << 60, numbers: 1 << 60 }]);
    }
}
