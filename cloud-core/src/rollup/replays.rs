//! Replayed records: they never enter a window, they mark the hours that they belong to, and a
//! rebuild counts them once raw has them (spec R2).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use penstock_common::codec::decode_event;
use penstock_common::event::{Flags, effective_time};
use penstock_common::retry::Backoff;
use tokio::time::Instant;

use super::canonical::AHEAD_REACH;
use super::stage::RollupParts;
use super::window::{HOUR, MINUTE, hour_of, minute_of};
use super::{ROLE, RollupConfig};
use crate::bus::Record;
use crate::raw::batch::is_too_late;
use crate::raw::parse::parse;
use crate::source::runner::Sink;
use crate::store::positions::Claim;
use crate::store::publish::{Covered, PublishError};
use crate::store::rollup::{Mark, RollupStore, StreamFlush};

/// Marks held at most; more, and a flush comes early.
const MARKS_MAX: usize = 20_000;

/// The sink of `replay-events`.
pub struct ReplaySink {
    store: RollupStore,
    config: RollupConfig,
    late_days_max: u32,
    topic: String,
    /// By fleet, device and hour.
    marks: BTreeMap<(String, String, i64), Mark>,
    due: Option<Instant>,
}

impl ReplaySink {
    /// A sink of this topic.
    pub fn new(parts: &RollupParts, topic: String) -> Self {
        Self {
            store: parts.store.clone(),
            config: parts.config.clone(),
            late_days_max: parts.late_days_max,
            topic,
            marks: BTreeMap::new(),
            due: None,
        }
    }

    fn note(&mut self, record: &Record) {
        let Ok(meta) = decode_event(record.headers()) else { return };
        let Ok(event) = parse(record.payload()) else { return };
        let time = effective_time(event.event_time, meta.received_at, meta.flags);
        if is_too_late(time, record.append_time, self.late_days_max) {
            return;
        }
        let lateness = i64::try_from(self.config.lateness_ms).unwrap_or(i64::MAX / 1_000) * 1_000;
        for time in reach(time.0, lateness, meta.flags.contains(Flags::CLOCK_AHEAD)) {
            self.mark(&meta.fleet, &event.device_id, time, record);
        }
    }

    fn mark(&mut self, fleet: &str, device: &str, time: i64, record: &Record) {
        let hour = hour_of(time);
        let minute_end = minute_of(time) + MINUTE;
        let key = (fleet.to_owned(), device.to_owned(), hour);
        let mark = self.marks.entry(key).or_insert_with(|| Mark {
            fleet: fleet.into(),
            device: device.into(),
            hour,
            partition: record.partition,
            event_offset: None,
            replay_offset: None,
            ready_through: minute_end,
            done_through: minute_end,
            reason: "replay",
        });
        mark.replay_offset = mark.replay_offset.max(Some(record.offset));
        mark.ready_through = mark.ready_through.min(minute_end);
        mark.done_through = mark.done_through.max(minute_end);
    }
}

/// Times whose hours an event may change: its own; those in which a copy with other bytes may have
/// counted that it suppresses now; and, if its device's clock was ahead, those of its later
/// copies (`canonical.rs`).
fn reach(time: i64, lateness: i64, is_ahead: bool) -> impl Iterator<Item = i64> {
    let last_minute = move |hours: i64| hour_of(time) + (hours + 1) * HOUR - MINUTE;
    let ahead = (0..=AHEAD_REACH / HOUR).filter(move |_| is_ahead).map(last_minute);
    [time.saturating_sub(lateness), time, time.saturating_add(lateness)].into_iter().chain(ahead)
}

impl Sink for ReplaySink {
    fn assigned<'a>(&'a mut self, _claims: &'a [Claim]) -> BoxFuture<'a, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn hold(&mut self, record: &Record) -> anyhow::Result<()> {
        let interval = Duration::from_millis(self.config.flush_interval_ms);
        self.due.get_or_insert_with(|| Instant::now() + interval);
        self.note(record);
        Ok(())
    }

    fn poison(&mut self, _record: &Record, _attempts: u32) -> anyhow::Result<()> {
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.marks.len() >= MARKS_MAX
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn flush(&mut self, covered: Vec<Covered>) -> BoxFuture<'static, anyhow::Result<()>> {
        self.due = None;
        let flush = StreamFlush {
            role: ROLE.to_owned(),
            topic: self.topic.clone(),
            covered,
            rewinds: Vec::new(),
            rows: Vec::new(),
            closes: Vec::new(),
            marks: std::mem::take(&mut self.marks).into_values().collect(),
        };
        let store = self.store.clone();
        async move {
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
            loop {
                match store.flush_stream(&flush).await {
                    Ok(_) => return Ok(()),
                    Err(PublishError::Store(error)) => {
                        let delay = backoff.next_delay();
                        tracing::warn!(%error, ?delay, "replayed records wait to be marked");
                        tokio::time::sleep(delay).await;
                    }
                    Err(fenced) => return Err(fenced).context("mark what was replayed"),
                }
            }
        }
        .boxed()
    }

    fn flushed(&mut self) {}

    fn discard(&mut self) {
        self.marks.clear();
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn hours(minute: i64, is_ahead: bool) -> Vec<i64> {
        let times = reach(minute * MINUTE, 10 * MINUTE, is_ahead);
        times.map(|time| time.div_euclid(HOUR)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[test]
    fn an_event_reaches_the_hours_within_the_horizon() {
        assert_eq!(hours(90, false), [1]);
        assert_eq!(hours(65, false), [0, 1]);
        assert_eq!(hours(115, false), [1, 2]);
    }

    #[test]
    fn one_that_was_ahead_reaches_a_day_further() {
        assert_eq!(hours(65, true), (0..=25).collect::<Vec<_>>());
    }
}
