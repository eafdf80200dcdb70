//! How far the raw store is behind: its positions against the ends of the log.

use std::collections::BTreeMap;

use anyhow::Context;
use penstock_common::event::UnixMicros;

use super::pressure::{Backlog, PressureConfig};
use crate::bus::{LogEnds, LogTimes, Watermarks};
use crate::raw;
use crate::store::positions::Positions;

/// Asks for the backlog of this moment on the topic of raw events.
///
/// # Errors
/// When the catalog or the bus is away.
pub async fn read<B: LogEnds + LogTimes>(
    positions: &Positions,
    bus: &B,
    topic: &str,
    config: &PressureConfig,
    now: UnixMicros,
) -> anyhow::Result<Backlog> {
    let at = |age_s: u64| UnixMicros(now.0.saturating_sub_unsigned(age_s * 1_000_000));
    // Positions first: what is stored meanwhile makes the backlog look larger, never negative.
    let stored = positions.of_role(raw::ROLE).await.context("read the raw writer's positions")?;
    let stored: BTreeMap<i32, i64> = stored
        .into_iter()
        .filter(|position| position.topic == topic)
        .map(|position| (position.partition, position.next_offset))
        .collect();
    let context = || format!("see how far {topic} goes");
    let ends = bus.ends(topic).await.with_context(context)?;
    let hold = bus.first_since(topic, at(config.hold_s)).await.with_context(context)?;
    let release = bus.first_since(topic, at(config.release_s)).await.with_context(context)?;
    Ok(Backlog {
        records: behind(&stored, &ends, |mark| Some(mark.high)),
        older_than_hold: behind(&stored, &ends, |mark| hold.get(&mark.partition).copied()),
        older_than_release: behind(&stored, &ends, |mark| release.get(&mark.partition).copied()),
    })
}

/// Records between the positions and those offsets. What the bus has deleted can't be stored any
/// more, and a partition that nobody has begun is not stored at all.
fn behind(
    stored: &BTreeMap<i32, i64>,
    ends: &[Watermarks],
    until: impl Fn(&Watermarks) -> Option<i64>,
) -> u64 {
    let of_one = |mark: &Watermarks| {
        let from = stored.get(&mark.partition).copied().unwrap_or(mark.low).max(mark.low);
        let behind = until(mark).unwrap_or(mark.low).saturating_sub(from);
        u64::try_from(behind).unwrap_or(0)
    };
    ends.iter().map(of_one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_is_counted_by_partition() {
        let mark = |partition, low, high| Watermarks { partition, low, high };
        let ends = [mark(0, 0, 100), mark(1, 50, 80), mark(2, 10, 40)];
        // 0 is read to 90, 1 to a place that is deleted, 2 by nobody yet.
        let stored = BTreeMap::from([(0, 90), (1, 20)]);
        assert_eq!(behind(&stored, &ends, |mark| Some(mark.high)), 10 + 30 + 30);
        assert_eq!(behind(&stored, &ends, |mark| Some(mark.low + 5)), 5 + 5);
        assert_eq!(behind(&stored, &ends, |_| None), 0);
        // A position beyond the end, as after a topic was made anew, is not behind.
        assert_eq!(behind(&BTreeMap::from([(0, 500)]), &ends[..1], |mark| Some(mark.high)), 0);
    }
}
