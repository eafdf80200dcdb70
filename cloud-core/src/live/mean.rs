//! Many devices as one line: the mean of all values of each second. Pure.

use std::collections::BTreeMap;

use super::window::Points;
use crate::rollup::counted::Metric;

/// A second is told once it is over for so long, ms: what comes later than that is left out of
/// the line on the screen (and never out of the rollups).
pub const SETTLE_MS: i64 = 2_000;
const SECOND_MS: i64 = 1_000;

/// Sums by metric and second.
#[derive(Clone, Debug, Default)]
pub struct Means {
    seconds: BTreeMap<(Metric, i64), (f64, u32)>,
    /// Seconds before this have been told.
    told_ms: i64,
}

impl Means {
    /// None told yet.
    pub fn new() -> Self {
        Self { seconds: BTreeMap::new(), told_ms: i64::MIN }
    }

    /// Adds a value.
    pub fn add(&mut self, metric: Metric, at_ms: i64, value: f64) {
        let second = at_ms.div_euclid(SECOND_MS) * SECOND_MS;
        if second >= self.told_ms {
            let (sum, count) = self.seconds.entry((metric, second)).or_default();
            *sum += value;
            *count += 1;
        }
    }

    /// The means of the seconds that are over at `now_ms`, by metric; each is told once.
    pub fn take(&mut self, now_ms: i64) -> BTreeMap<Metric, Points> {
        let until = (now_ms - SETTLE_MS).div_euclid(SECOND_MS) * SECOND_MS;
        let mut means: BTreeMap<Metric, Points> = BTreeMap::new();
        self.seconds.retain(|(metric, second), (sum, count)| {
            let is_over = *second < until;
            if is_over {
                means.entry(*metric).or_default().push((*second, *sum / f64::from(*count)));
            }
            !is_over
        });
        self.told_ms = self.told_ms.max(until);
        means
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_told_once_and_when_it_is_over() {
        let mut means = Means::new();
        for (at_ms, value) in [(10_100, 1.0), (10_900, 3.0), (11_000, 7.0)] {
            means.add(0, at_ms, value);
        }
        assert!(means.take(12_900).is_empty());
        assert_eq!(means.take(13_000)[&0], [(10_000, 2.0)]);
        means.add(0, 10_500, 100.0);
        means.add(1, 11_500, 5.0);
        let rest = means.take(14_000);
        assert_eq!((&rest[&0][..], &rest[&1][..]), (&[(11_000, 7.0)][..], &[(11_000, 5.0)][..]));
        assert!(means.take(99_000).is_empty());
    }
}
