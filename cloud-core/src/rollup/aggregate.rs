//! The distinct values of one series in one window: count, extremes, exact sum, quantiles.
//!
//! An aggregate is a pure function of the *multiset* of its values. Whatever their order, and
//! however they were split and merged, [`Aggregate::encode`] gives the same bytes, so a rebuilt
//! row can be compared with the stored one.
//!
//! - Up to 16 values are kept as they are: all is exact, and adding one is a push.
//! - Beyond that a quantile is the middle of a bucket ([`super::sketch`]): within 1 % of the true
//!   value of that rank, and never outside the extremes. Count, extremes and sum stay exact.

use super::sketch::Sketch;
use super::sum::ExactSum;

pub mod format;

/// So many values are kept as they are.
pub const EXACT_MAX: usize = 16;

/// The distinct values of one series in one window.
#[derive(Clone, Debug)]
pub struct Aggregate(Repr);

#[derive(Clone, Debug)]
enum Repr {
    /// Up to [`EXACT_MAX`], in the order they came.
    Few(Vec<f64>),
    Many(Box<Many>),
}

#[derive(Clone, Debug)]
struct Many {
    count: u64,
    min: f64,
    max: f64,
    sum: ExactSum,
    sketch: Sketch,
}

impl Default for Aggregate {
    fn default() -> Self {
        Self::new()
    }
}

/// Equal when the encodings are.
impl PartialEq for Aggregate {
    fn eq(&self, other: &Self) -> bool {
        self.encode() == other.encode()
    }
}

impl FromIterator<f64> for Aggregate {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut aggregate = Self::new();
        for value in values {
            aggregate.add(value);
        }
        aggregate
    }
}

impl Aggregate {
    /// Without any value.
    pub const fn new() -> Self {
        Self(Repr::Few(Vec::new()))
    }

    /// Without any value, with room for so many.
    pub fn with_capacity(values: usize) -> Self {
        Self(Repr::Few(Vec::with_capacity(values.min(EXACT_MAX))))
    }

    /// Adds a value. One that is not finite is passed over: admission lets none through.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        // −0.0 and 0.0 are one value.
        let value = value + 0.0;
        match &mut self.0 {
            Repr::Few(values) if values.len() < EXACT_MAX => values.push(value),
            Repr::Few(values) => {
                let mut many = Many::from_values(values);
                many.add(value);
                self.0 = Repr::Many(Box::new(many));
            }
            Repr::Many(many) => many.add(value),
        }
    }

    /// Adds the values of another.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, Repr::Few(theirs)) => theirs.iter().for_each(|value| self.add(*value)),
            (Repr::Many(mine), Repr::Many(theirs)) => mine.merge(theirs),
            (Repr::Few(mine), Repr::Many(theirs)) => {
                let mut many = theirs.clone();
                mine.iter().for_each(|value| many.add(*value));
                self.0 = Repr::Many(many);
            }
        }
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        match &self.0 {
            Repr::Few(values) => values.len() as u64,
            Repr::Many(many) => many.count,
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The least value; 0 when there is none.
    pub fn min(&self) -> f64 {
        match &self.0 {
            Repr::Few(values) => values.iter().copied().reduce(f64::min).unwrap_or(0.0),
            Repr::Many(many) => many.min,
        }
    }

    /// The greatest value; 0 when there is none.
    pub fn max(&self) -> f64 {
        match &self.0 {
            Repr::Few(values) => values.iter().copied().reduce(f64::max).unwrap_or(0.0),
            Repr::Many(many) => many.max,
        }
    }

    /// The sum, rounded once: the f64 nearest to the exact one (±[`f64::MAX`] beyond its range).
    pub fn sum(&self) -> f64 {
        match &self.0 {
            Repr::Few(values) => {
                let mut sum = ExactSum::default();
                values.iter().for_each(|value| sum.add(*value));
                sum.value()
            }
            Repr::Many(many) => many.sum.value(),
        }
    }

    /// The value of rank ⌈`q` · count⌉ (at least 1) in ascending order; 0 when there is none.
    /// Exact up to [`EXACT_MAX`] values, and for the first and the last rank; else within 1 %.
    pub fn quantile(&self, q: f64) -> f64 {
        let [value] = self.quantiles([q]);
        value
    }

    /// Several quantiles at once.
    pub fn quantiles<const N: usize>(&self, qs: [f64; N]) -> [f64; N] {
        match &self.0 {
            Repr::Few(values) => {
                let mut sorted = [0.0; EXACT_MAX];
                let sorted = sort_into(&mut sorted, values);
                qs.map(|q| match rank(q, sorted.len() as u64) {
                    0 => 0.0,
                    rank => sorted[rank as usize - 1],
                })
            }
            Repr::Many(many) => qs.map(|q| many.quantile(q)),
        }
    }

    /// The memory behind it.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Few(values) => values.capacity() * size_of::<f64>(),
            Repr::Many(many) => size_of::<Many>() + 48 + many.sketch.heap_bytes(),
        }
    }
}

impl Many {
    fn from_values(values: &[f64]) -> Self {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        let (sum, sketch) = (ExactSum::default(), Sketch::default());
        let mut many = Self { count: 0, min, max, sum, sketch };
        values.iter().for_each(|value| many.add(*value));
        many
    }

    fn add(&mut self, value: f64) {
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum.add(value);
        self.sketch.add(value);
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum.merge(&other.sum);
        self.sketch.merge(&other.sketch);
    }

    fn quantile(&self, q: f64) -> f64 {
        match rank(q, self.count) {
            1 => self.min,
            rank if rank == self.count => self.max,
            rank => self.sketch.at_rank(rank).clamp(self.min, self.max),
        }
    }
}

/// ⌈`q` · `count`⌉ in 1..=`count`; 0 when there is no value. The product is taken a hair smaller,
/// so that one which should be whole is not rounded up by the error of a float.
fn rank(q: f64, count: u64) -> u64 {
    let rank = (q * count as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil();
    (rank as u64).max(1).min(count)
}

fn sort_into<'a>(buffer: &'a mut [f64; EXACT_MAX], values: &[f64]) -> &'a [f64] {
    let sorted = &mut buffer[..values.len()];
    sorted.copy_from_slice(values);
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests;
