//! Coarser rows from finer ones. Pure: an aggregate is a function of the multiset of its values,
//! so neither the order of the finer rows nor how they were merged before shows in the result.

use std::collections::BTreeMap;

use super::aggregate::Aggregate;
use super::aggregate::format::DecodeError;

/// A merged row.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Its values.
    pub aggregate: Aggregate,
    /// The greatest of the offsets that the finer rows cover.
    pub last_offset: i64,
}

/// Rows on their way together, by what they belong to.
#[derive(Clone, Debug)]
pub struct Merging<K>(BTreeMap<K, Merged>);

impl<K> Default for Merging<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Merging<K> {
    /// Adds a finer row by its stored form.
    ///
    /// # Errors
    /// When the bytes are no aggregate.
    pub fn add(&mut self, key: K, sketch: &[u8], last_offset: i64) -> Result<(), DecodeError> {
        let finer = Aggregate::decode(sketch)?;
        match self.0.get_mut(&key) {
            Some(merged) => {
                merged.aggregate.merge(&finer);
                merged.last_offset = merged.last_offset.max(last_offset);
            }
            None => {
                self.0.insert(key, Merged { aggregate: finer, last_offset });
            }
        }
        Ok(())
    }

    /// The merged rows, by key.
    pub fn into_rows(self) -> BTreeMap<K, Merged> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_order_nor_grouping_shows() {
        let finer: Vec<Vec<u8>> = (0..60)
            .map(|n| (0..n).map(|i| f64::from(n * i) * 0.1).collect::<Aggregate>().encode())
            .filter(|bytes| Aggregate::decode(bytes).is_ok_and(|a| !a.is_empty()))
            .collect();
        let merged = |parts: &[Vec<u8>]| {
            let mut merging = Merging::default();
            for (n, part) in (0..).zip(parts) {
                merging.add("cpu", part, n).unwrap();
            }
            let row = &merging.into_rows()["cpu"];
            (row.aggregate.encode(), row.last_offset)
        };
        let all = merged(&finer);
        assert_eq!(all.1, finer.len() as i64 - 1);
        let mut backwards = finer.clone();
        backwards.reverse();
        assert_eq!(merged(&backwards), all);
        let halves = [merged(&finer[..17]).0, merged(&finer[17..]).0];
        assert_eq!(merged(&halves).0, all.0);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        assert!(Merging::default().add(0, b"nonsense", 0).is_err());
    }
}
