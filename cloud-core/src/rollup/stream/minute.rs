//! One open minute of a device: the values of its events, packed.
//!
//! Devices send the same metrics again and again, so events are kept in runs: a header word that
//! names a shape (a list of metrics) and counts events, then their values. An event of five
//! metrics takes 40 bytes and no allocation of its own.

use super::shapes::{Shape, Shapes};
use crate::rollup::aggregate::Aggregate;
use crate::rollup::counted::Metric;

/// An open minute.
pub(super) struct Minute {
    /// Its start, µs.
    pub start: i64,
    /// The greatest offset that was counted; −1 when none was.
    pub last_offset: i64,
    /// Runs: a header (shape << 32 | events), then the values as bits, event by event.
    words: Vec<u64>,
    /// Where the last run begins.
    run: u32,
    /// Its size when it was last written; none when it never was.
    written: Option<u32>,
}

impl Minute {
    /// Without any event.
    pub(super) const fn new(start: i64) -> Self {
        Self { start, last_offset: -1, words: Vec::new(), run: 0, written: None }
    }

    /// Adds an event's values, in the order of the shape's metrics.
    pub(super) fn add(&mut self, offset: i64, shape: Shape, values: impl Iterator<Item = f64>) {
        self.last_offset = self.last_offset.max(offset);
        match self.words.get_mut(self.run as usize) {
            Some(header) if *header >> 32 == u64::from(shape) && *header as u32 != u32::MAX => {
                *header += 1;
            }
            _ => {
                self.run = self.words.len() as u32;
                self.words.push(u64::from(shape) << 32 | 1);
            }
        }
        self.words.extend(values.map(f64::to_bits));
    }

    /// Whether it holds what was not written yet.
    pub(super) fn is_changed(&self) -> bool {
        !self.words.is_empty() && self.written != Some(self.words.len() as u32)
    }

    /// Notes that it has been written as it is.
    pub(super) fn set_written(&mut self) {
        self.written = Some(self.words.len() as u32);
    }

    /// About how many rows it makes.
    pub(super) fn rows(&self, shapes: &Shapes) -> usize {
        self.words.first().map_or(0, |header| shapes.metrics((*header >> 32) as Shape).len())
    }

    /// Hands over each metric's values. `scratch` has a place for every metric, all empty before
    /// and after.
    pub(super) fn aggregates(
        &self,
        shapes: &Shapes,
        scratch: &mut [Aggregate],
        mut take: impl FnMut(Metric, Aggregate),
    ) {
        let mut seen: Vec<Metric> = Vec::new();
        let mut rest = &self.words[..];
        while let Some((header, words)) = rest.split_first() {
            let metrics = shapes.metrics((*header >> 32) as Shape);
            let events = *header as u32 as usize;
            let (values, after) = words.split_at(events * metrics.len());
            for event in values.chunks_exact(metrics.len().max(1)) {
                for (metric, value) in metrics.iter().zip(event) {
                    let aggregate = &mut scratch[*metric as usize];
                    if aggregate.is_empty() {
                        seen.push(*metric);
                        *aggregate = Aggregate::with_capacity(events);
                    }
                    aggregate.add(f64::from_bits(*value));
                }
            }
            rest = after;
        }
        for metric in seen {
            take(metric, std::mem::take(&mut scratch[metric as usize]));
        }
    }

    /// The memory behind it.
    pub(super) fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_by_metric_whatever_the_shapes() {
        let mut shapes = Shapes::default();
        let mut minute = Minute::new(0);
        assert!(!minute.is_changed());
        let events: [&[(Metric, f64)]; 5] = [
            &[(0, 1.0), (2, 2.0)],
            &[(0, 3.0), (2, 4.0)],
            &[],
            &[(2, 5.0)],
            &[(0, -1.0), (2, 0.5)],
        ];
        for (offset, event) in (0..).zip(events) {
            let shape = shapes.of(event).unwrap();
            minute.add(offset, shape, event.iter().map(|(_, value)| *value));
        }
        assert!(minute.is_changed() && minute.last_offset == 4);
        minute.set_written();
        assert!(!minute.is_changed());
        let mut scratch = vec![Aggregate::new(); 3];
        let mut got = Vec::new();
        minute.aggregates(&shapes, &mut scratch, |metric, aggregate| got.push((metric, aggregate)));
        let expected = [(0, vec![1.0, 3.0, -1.0]), (2, vec![2.0, 4.0, 5.0, 0.5])];
        assert_eq!(got, expected.map(|(metric, values)| (metric, values.into_iter().collect())));
        assert!(scratch.iter().all(Aggregate::is_empty));
    }
}
