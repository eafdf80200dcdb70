//! When a verdict may be given: once everything that was on the bus has been read. Pure.

use std::collections::BTreeMap;

/// A partition of a topic.
pub type Partition = (String, i32);

/// The ends that the positions have to pass: asked for *after* what is to be judged was known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Barrier {
    ends: BTreeMap<Partition, Bounds>,
}

/// Where a partition's log began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its start.
    pub low: i64,
    /// Its end.
    pub high: i64,
}

impl Barrier {
    /// A barrier at these ends.
    pub const fn new(ends: BTreeMap<Partition, Bounds>) -> Self {
        Self { ends }
    }

    /// The first partition whose position has not passed, if any. A partition that nobody has a
    /// position on has passed only while it is empty.
    pub fn stands(&self, positions: &BTreeMap<Partition, i64>) -> Option<&Partition> {
        let is_passed = |(partition, bounds): &(&Partition, &Bounds)| {
            let empty = bounds.low == bounds.high && bounds.high == 0;
            positions.get(*partition).map_or(empty, |position| *position >= bounds.high)
        };
        self.ends.iter().find(|end| !is_passed(end)).map(|(partition, _)| partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: i32) -> Partition {
        (topic.to_owned(), partition)
    }

    #[test]
    fn every_partition_has_to_be_passed() {
        let bounds = |low, high| Bounds { low, high };
        let ends = [
            (at("raw", 0), bounds(0, 10)),
            (at("raw", 1), bounds(0, 0)),
            (at("dead", 0), bounds(5, 5)),
        ];
        let barrier = Barrier::new(ends.into());
        let mut positions = BTreeMap::new();
        assert!(barrier.stands(&positions).is_some());
        positions.insert(at("raw", 0), 10);
        // Empty now, but it had records that nobody read.
        assert_eq!(barrier.stands(&positions), Some(&at("dead", 0)));
        positions.insert(at("dead", 0), 5);
        assert_eq!(barrier.stands(&positions), None);
        positions.insert(at("raw", 0), 9);
        assert_eq!(barrier.stands(&positions), Some(&at("raw", 0)));
        positions.insert(at("raw", 0), 11);
        assert_eq!(barrier.stands(&positions), None);
        assert_eq!(Barrier::default().stands(&positions), None);
    }
}
