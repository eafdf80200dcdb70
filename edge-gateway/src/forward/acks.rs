//! Which of the entries that were read are done with, and up to where the spool may be retired.
//!
//! Retirement is a prefix, but acknowledgements are not: a partition without a leader holds back
//! its own records only, and everything around them goes on. So what is remembered of each entry
//! between the first that is open and the last that was read is one bit. Entries themselves are
//! read again from the spool when they can be sent.

use std::collections::VecDeque;

use crate::spool::Position;

/// The entries from the first open one on, in the order of the spool.
#[derive(Debug, Default)]
pub struct Acks {
    runs: VecDeque<Run>,
    /// How many entries at the beginning of the front run are retired.
    retired: u64,
    /// Entries that were read and are not done.
    open: u64,
    /// Entries that are remembered.
    len: u64,
}

/// The entries of one segment, from the first that was read.
#[derive(Debug)]
struct Run {
    first: Position,
    len: u64,
    /// One bit an entry: done.
    done: Vec<u64>,
}

impl Run {
    const fn new(first: Position) -> Self {
        Self { first, len: 0, done: Vec::new() }
    }

    const fn next_seq(&self) -> u64 {
        self.first.seq + self.len
    }

    fn push(&mut self, is_done: bool) {
        if self.len.is_multiple_of(64) {
            self.done.push(0);
        }
        if is_done {
            self.done[(self.len / 64) as usize] |= 1 << (self.len % 64);
        }
        self.len += 1;
    }

    fn offset(&self, seq: u64) -> Option<u64> {
        seq.checked_sub(self.first.seq).filter(|offset| *offset < self.len)
    }

    fn is_done(&self, offset: u64) -> bool {
        self.done[(offset / 64) as usize] >> (offset % 64) & 1 == 1
    }

    /// Returns whether it was open.
    fn set_done(&mut self, offset: u64) -> bool {
        let word = &mut self.done[(offset / 64) as usize];
        let bit = 1 << (offset % 64);
        let was_open = *word & bit == 0;
        *word |= bit;
        was_open
    }

    /// The first entry from `offset` on that is open, or the end.
    fn first_open(&self, mut offset: u64) -> u64 {
        while offset < self.len {
            let bit = offset % 64;
            let done = u64::from((self.done[(offset / 64) as usize] >> bit).trailing_ones());
            offset += done;
            if done < 64 - bit {
                break;
            }
        }
        offset.min(self.len)
    }
}

impl Acks {
    /// Remembers the next entry of the spool. What is missing before it in its segment was passed
    /// over as damaged, and nothing is waited for.
    pub fn read(&mut self, position: Position) {
        let is_same = |run: &Run| run.first.segment == position.segment;
        if !self.runs.back().is_some_and(is_same) {
            self.runs.push_back(Run::new(position));
        }
        let Some(run) = self.runs.back_mut() else { return };
        debug_assert!(position.seq >= run.next_seq(), "entries are read in order");
        while run.next_seq() < position.seq {
            run.push(true);
            self.len += 1;
        }
        if run.next_seq() == position.seq {
            run.push(false);
            self.open += 1;
            self.len += 1;
        }
    }

    /// An entry is done with: acknowledged, or given up as damaged.
    pub fn done(&mut self, position: Position) {
        if let Some((run, offset)) = self.find(position)
            && self.runs[run].set_done(offset)
        {
            self.open -= 1;
        }
    }

    /// Everything remembered from `from` up to but not including `to` is done with: it can't be
    /// read any more.
    pub fn done_between(&mut self, from: Position, to: Position) {
        for run in &mut self.runs {
            let (first, next) = (run.first.seq, run.next_seq());
            let low = match run.first.segment.cmp(&from.segment) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => from.seq.clamp(first, next),
                std::cmp::Ordering::Greater => first,
            };
            let high = match run.first.segment.cmp(&to.segment) {
                std::cmp::Ordering::Less => next,
                std::cmp::Ordering::Equal => to.seq.clamp(first, next),
                std::cmp::Ordering::Greater => break,
            };
            for seq in low..high {
                self.open -= u64::from(run.set_done(seq - first));
            }
        }
    }

    /// Whether the entry is done with. One that is not remembered is.
    pub fn is_done(&self, position: Position) -> bool {
        self.find(position).is_none_or(|(run, offset)| self.runs[run].is_done(offset))
    }

    /// Forgets the entries at the front that are done; the last one's position, if there are any.
    pub fn retire(&mut self) -> Option<Position> {
        let mut last = None;
        while let Some(run) = self.runs.front() {
            let open = run.first_open(self.retired);
            if open > self.retired {
                last = Some(Position { seq: run.first.seq + open - 1, ..run.first });
                self.retired = open;
            }
            // The newest run may still grow.
            if open < run.len || self.runs.len() == 1 {
                break;
            }
            self.len -= run.len;
            self.retired = 0;
            self.runs.pop_front();
        }
        last
    }

    /// The first entry that is open.
    pub fn first_open(&self) -> Option<Position> {
        let mut retired = self.retired;
        for run in &self.runs {
            let offset = run.first_open(retired);
            if offset < run.len {
                return Some(Position { seq: run.first.seq + offset, ..run.first });
            }
            retired = 0;
        }
        None
    }

    /// Entries that were read and are not done.
    pub const fn open(&self) -> u64 {
        self.open
    }

    /// Entries that take memory: a bit each.
    pub const fn remembered(&self) -> u64 {
        self.len
    }

    fn find(&self, position: Position) -> Option<(usize, u64)> {
        let run = self.runs.partition_point(|run| run.first.segment < position.segment);
        let found = self.runs.get(run).filter(|run| run.first.segment == position.segment)?;
        Some((run, found.offset(position.seq)?))
    }
}

#[cfg(test)]
mod tests {
    use penstock_common::event::Epoch;
    use proptest::prelude::*;

    use super::*;

    fn at(segment: u64, seq: u64) -> Position {
        Position { segment, epoch: Epoch(segment / 3 + 1), seq }
    }

    /// Entries of several segments; in some places numbers are missing.
    fn entries() -> impl Strategy<Value = Vec<Position>> {
        prop::collection::vec((1..4u64, 1..90u64, 0..3u64), 1..6).prop_map(|segments| {
            let (mut all, mut segment, mut seq) = (Vec::new(), 1, 0);
            for (step, count, gap) in segments {
                segment += step;
                for n in 0..count {
                    if n == count / 2 {
                        seq += gap;
                    }
                    all.push(at(segment, seq));
                    seq += 1;
                }
            }
            all
        })
    }

    proptest! {
        /// Whatever the order of acknowledgements, a position is retired only when all before it
        /// are done, and all are retired in the end.
        #[test]
        fn retires_exactly_the_prefix_that_is_done(
            (entries, order) in entries().prop_flat_map(|entries| {
                let order = Just((0..entries.len()).collect::<Vec<_>>()).prop_shuffle();
                (Just(entries), order)
            }),
            batch in 1..8usize,
            read_at_once in 1..50usize,
        ) {
            let mut acks = Acks::default();
            let mut read = 0;
            let mut done = vec![false; entries.len()];
            let mut retired = None;
            for chunk in order.chunks(batch) {
                for &index in chunk {
                    // What is acknowledged was read before, and some more.
                    while read <= index || (read < entries.len() && read % read_at_once != 0) {
                        acks.read(entries[read]);
                        read += 1;
                    }
                    prop_assert!(!acks.is_done(entries[index]));
                    acks.done(entries[index]);
                    acks.done(entries[index]);
                    prop_assert!(acks.is_done(entries[index]));
                    done[index] = true;
                }
                retired = acks.retire().or(retired);
                let prefix = done.iter().take_while(|done| **done).count();
                let last = prefix.checked_sub(1).map(|last| entries[last]);
                // Missing numbers behind the last one are known once what follows them is read.
                let next = entries.get(prefix).filter(|next| {
                    prefix < read && last.is_some_and(|last| last.segment == next.segment)
                });
                let missing = next.map(|next| Position { seq: next.seq - 1, ..*next });
                prop_assert_eq!(retired, missing.or(last));
                let open = done[..read].iter().filter(|done| !**done).count();
                prop_assert_eq!(acks.open(), open as u64);
                let first = done[..read].iter().position(|done| !done).map(|at| entries[at]);
                prop_assert_eq!(acks.first_open(), first);
            }
            prop_assert_eq!(acks.open(), 0);
            prop_assert_eq!(retired, entries.last().copied());
        }

        #[test]
        fn what_cannot_be_read_any_more_is_waited_for_no_longer(
            entries in entries(),
            cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let mut acks = Acks::default();
            entries.iter().for_each(|entry| acks.read(*entry));
            let (a, b) = (cut.0.index(entries.len()), cut.1.index(entries.len()));
            let (from, to) = (a.min(b), a.max(b));
            acks.done_between(entries[from], entries[to]);
            for (index, entry) in entries.iter().enumerate() {
                prop_assert_eq!(acks.is_done(*entry), (from..to).contains(&index));
            }
            prop_assert_eq!(acks.open(), (entries.len() - (to - from)) as u64);
        }
    }

    #[test]
    fn a_segment_that_is_done_is_forgotten_and_the_newest_is_not() {
        let mut acks = Acks::default();
        for seq in 0..200 {
            acks.read(at(1, seq));
            acks.done(at(1, seq));
        }
        assert_eq!((acks.retire(), acks.remembered()), (Some(at(1, 199)), 200));
        assert_eq!(acks.retire(), None);
        acks.read(at(2, 200));
        assert_eq!((acks.retire(), acks.remembered()), (None, 1));
        acks.done(at(2, 200));
        assert_eq!(acks.retire(), Some(at(2, 200)));
        acks.done(at(1, 3));
        assert_eq!(acks.open(), 0);
    }
}
