//! How long an event takes from the append on the bus to being visible here. Pure.
//!
//! The bus's clock stamps the append and ours the rest; both are servers' clocks, and a
//! difference that would make it negative counts as none.

use std::collections::VecDeque;

/// What is kept, ms.
const SPAN_MS: i64 = 10_000;
/// Measurements kept at most; beyond it only every n-th would be, so the oldest go.
const KEPT_MAX: usize = 20_000;

/// Delays of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    delays: VecDeque<(i64, u32)>,
}

/// What they are, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// The median.
    pub p50_ms: u32,
    /// The 99th percentile.
    pub p99_ms: u32,
    /// The worst.
    pub max_ms: u32,
}

impl Freshness {
    /// An event appended then is visible now.
    pub fn visible(&mut self, appended_ms: i64, now_ms: i64) {
        let delay = u32::try_from((now_ms - appended_ms).max(0)).unwrap_or(u32::MAX);
        if self.delays.len() >= KEPT_MAX {
            self.delays.pop_front();
        }
        self.delays.push_back((now_ms, delay));
    }

    /// The delays of the last ten seconds; none when nothing came.
    pub fn delays(&mut self, now_ms: i64) -> Option<Delays> {
        while self.delays.front().is_some_and(|(at, _)| *at < now_ms - SPAN_MS) {
            self.delays.pop_front();
        }
        let mut sorted: Vec<u32> = self.delays.iter().map(|(_, delay)| *delay).collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        let max_ms = *sorted.last()?;
        Some(Delays { p50_ms: rank(50), p99_ms: rank(99), max_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_those_of_the_last_seconds() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.delays(0), None);
        freshness.visible(0, 9_000);
        for n in 1..=100 {
            freshness.visible(20_000 - n, 20_000);
        }
        freshness.visible(20_500, 20_400);
        let delays = freshness.delays(20_400).unwrap();
        assert_eq!(delays, Delays { p50_ms: 50, p99_ms: 99, max_ms: 100 });
        assert_eq!(freshness.delays(40_000), None);
    }
}
