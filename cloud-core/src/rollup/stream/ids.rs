//! The event ids of a device that are remembered, in the order of their offsets.
//!
//! A search goes through four-byte tags, a few cache lines for the hundred-odd ids that a device
//! normally has; a device with many gets a hash index.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

/// From so many ids on there is an index.
const INDEXED: usize = 512;

/// An event that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// Its id.
    pub event_id: u128,
    /// A hash of its bytes.
    pub body: u64,
    /// The schema version that it was held against.
    pub schema_version: u32,
    /// Whether there are, or may have been, copies of it that differ in bytes or in their
    /// minute: then which one counts can change with every further copy.
    pub doubtful: bool,
    /// Its offset.
    pub offset: i64,
    /// The start of its minute, µs.
    pub minute: i64,
}

/// As it is kept: halves, so that nothing is padded.
#[derive(Clone, Copy)]
struct Entry {
    id: [u64; 2],
    body: u64,
    offset: i64,
    /// The minute's number.
    minute: i32,
    /// The schema version, and the highest bit for doubt.
    schema: u32,
}

/// In [`Entry::schema`].
const DOUBTFUL: u32 = 1 << 31;

/// Remembered ids. Offsets ascend.
#[derive(Default)]
pub(super) struct Ids {
    entries: VecDeque<Entry>,
    tags: VecDeque<u32>,
    /// How many have been forgotten: the number of the first entry.
    forgotten: u64,
    /// The newest entry's number by id.
    #[allow(clippy::box_collection, reason = "most devices have none: a pointer is smaller")]
    index: Option<Box<HashMap<[u64; 2], u64, RandomState>>>,
}

const fn halves(event_id: u128) -> [u64; 2] {
    [event_id as u64, (event_id >> 64) as u64]
}

const fn tag(id: [u64; 2]) -> u32 {
    (id[0] ^ id[1]) as u32
}

impl Entry {
    const fn remembered(&self) -> Remembered {
        Remembered {
            event_id: (self.id[1] as u128) << 64 | self.id[0] as u128,
            body: self.body,
            schema_version: self.schema & !DOUBTFUL,
            doubtful: self.schema & DOUBTFUL != 0,
            offset: self.offset,
            minute: self.minute as i64 * super::MINUTE,
        }
    }
}

impl Ids {
    /// The newest one with this id.
    pub(super) fn find(&self, event_id: u128) -> Option<Remembered> {
        let id = halves(event_id);
        if let Some(index) = &self.index {
            let at = index.get(&id)?.checked_sub(self.forgotten)?;
            return self.entries.get(usize::try_from(at).ok()?).map(Entry::remembered);
        }
        let tag = tag(id);
        let (front, back) = self.tags.as_slices();
        // From behind: retries come soon, and of several the newest is wanted.
        let found = |tags: &[u32], start: usize| {
            let mut end = tags.len();
            // Whole blocks without a hit are passed over quickly.
            while end > 0 {
                let begin = end.saturating_sub(32);
                let block = &tags[begin..end];
                if block.iter().fold(false, |hit, other| hit | (*other == tag)) {
                    let hits = (begin..end).rev().filter(|at| tags[*at] == tag);
                    for at in hits {
                        if self.entries[start + at].id == id {
                            return Some(start + at);
                        }
                    }
                }
                end = begin;
            }
            None
        };
        let at = found(back, front.len()).or_else(|| found(front, 0))?;
        Some(self.entries[at].remembered())
    }

    /// Remembers one; its offset is greater than all before.
    pub(super) fn push(&mut self, new: &Remembered) {
        let id = halves(new.event_id);
        let entry = Entry {
            id,
            body: new.body,
            offset: new.offset,
            // A minute's number fits for four thousand years around 1970; beyond, ids of far
            // minutes would only be forgotten early or late.
            minute: i32::try_from(new.minute / super::MINUTE).unwrap_or(i32::MAX),
            schema: new.schema_version & !DOUBTFUL | if new.doubtful { DOUBTFUL } else { 0 },
        };
        if self.entries.len() == self.entries.capacity() {
            // Doubling would cost too much: most devices stay near one size.
            let more = self.entries.len() / 4 + 8;
            self.entries.reserve_exact(more);
            self.tags.reserve_exact(more);
        }
        if let Some(index) = &mut self.index {
            index.insert(id, self.forgotten + self.entries.len() as u64);
        }
        self.entries.push_back(entry);
        self.tags.push_back(tag(id));
        if self.index.is_none() && self.entries.len() > INDEXED {
            let numbered = (self.forgotten..).zip(&self.entries);
            self.index =
                Some(Box::new(numbered.map(|(number, entry)| (entry.id, number)).collect()));
        }
    }

    /// Forgets the oldest as long as `done` says so of them; returns how many.
    pub(super) fn forget_while(&mut self, mut done: impl FnMut(&Remembered) -> bool) -> usize {
        let mut count = 0;
        while self.entries.front().is_some_and(|entry| done(&entry.remembered())) {
            self.forget_first();
            count += 1;
        }
        if self.index.is_some() && self.entries.len() < INDEXED / 2 {
            self.index = None;
        }
        if count > 0 && self.entries.len() < self.entries.capacity() / 3 {
            let room = self.entries.len() + self.entries.len() / 4;
            self.entries.shrink_to(room);
            self.tags.shrink_to(room);
        }
        count
    }

    fn forget_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.tags.pop_front();
        if let Some(index) = &mut self.index
            && index.get(&entry.id) == Some(&self.forgotten)
        {
            index.remove(&entry.id);
        }
        self.forgotten += 1;
    }

    /// The oldest one.
    pub(super) fn first(&self) -> Option<Remembered> {
        self.entries.front().map(Entry::remembered)
    }

    /// All, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Remembered> {
        self.entries.iter().map(Entry::remembered)
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory behind it, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |index| index.capacity() * 28);
        self.entries.capacity() * size_of::<Entry>() + self.tags.capacity() * 4 + index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> Remembered {
        // The same tag for all of a hundred.
        let event_id = u128::from(number) << 64 | u128::from(number ^ (number % 7));
        Remembered {
            event_id,
            body: number,
            schema_version: 1,
            doubtful: number.is_multiple_of(3),
            offset: number as i64,
            minute: 0,
        }
    }

    #[test]
    fn what_was_pushed_is_found_until_it_is_forgotten() {
        let mut ids = Ids::default();
        for number in 0..3_000 {
            ids.push(&id(number));
            assert_eq!(ids.find(id(number).event_id), Some(id(number)));
            let oldest = number.saturating_sub(if number < 2_000 { 700 } else { 90 });
            ids.forget_while(|first| first.offset < oldest as i64);
            assert_eq!(ids.first(), Some(id(oldest)));
            for probe in [oldest, (oldest + number) / 2] {
                assert_eq!(ids.find(id(probe).event_id), Some(id(probe)), "{probe} of {number}");
            }
            if oldest > 0 {
                assert_eq!(ids.find(id(oldest - 1).event_id), None);
            }
        }
        assert_eq!(ids.len(), 91);
        assert!(ids.heap_bytes() < 91 * 44 * 3);
    }

    #[test]
    fn of_the_same_id_the_newest_is_found() {
        for others in [0, 600] {
            let mut ids = Ids::default();
            ids.push(&id(1));
            (10..10 + others).for_each(|number| ids.push(&id(number)));
            let again = Remembered { offset: 9_999, body: 5, ..id(1) };
            ids.push(&again);
            assert_eq!(ids.find(id(1).event_id), Some(again));
            ids.forget_while(|first| first.offset < 9_999);
            assert_eq!(ids.find(id(1).event_id), Some(again));
        }
    }
}
