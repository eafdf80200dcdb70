//! What people are told of the forwarder: its view and its gauges.

use std::time::Instant;

use super::driver::Driver;
use super::lanes::STALL;
use super::track::Track;

/// For how long the bus has been waited for in vain.
pub(super) struct Silence {
    pub(super) since: Option<Instant>,
    pub(super) told_at: Instant,
    /// The last status did not arrive.
    pub(super) is_status_refused: bool,
}

impl<C> Driver<C> {
    /// Renews them.
    pub(super) fn renew_view(
        &self,
        tracks: [&Track; 2],
        silence: &Silence,
        is_held: bool,
        complaint: Option<String>,
        now: Instant,
    ) {
        let sum =
            |of: &dyn Fn(&Track) -> usize| tracks.iter().map(|track| of(track)).sum::<usize>();
        let in_flight = sum(&|track| track.flight.len());
        let parked = tracks.map(|track| track.acks.open()).iter().sum::<u64>();
        let parked = parked.saturating_sub(in_flight as u64);
        let stalled = stalled(tracks, now);
        let mut blocked = tracks.map(|track| track.lanes.blocked()).concat();
        blocked.dedup();
        let metrics = &self.metrics;
        metrics.in_flight_records.set(in_flight as i64);
        metrics.in_flight_bytes.set(sum(&|track| track.flight.bytes()) as i64);
        metrics.parked_entries.set(parked as i64);
        metrics.stalled_partitions.set(stalled as i64);
        metrics.blocked_topics.set(blocked.len() as i64);
        self.view.update(|view| {
            view.silent_since = silence.since.filter(|since| now - *since > STALL);
            if silence.since.is_none() {
                view.complaint = None;
            } else if complaint.is_some() {
                view.complaint = complaint;
            }
            view.acknowledged_total = metrics.acknowledged.get();
            view.in_flight_records = in_flight;
            view.parked_entries = parked;
            view.stalled_partitions = stalled;
            view.blocked_topics = blocked;
            view.redirected_total = metrics.redirected.get();
            view.is_held = is_held;
        });
    }
}

/// Partitions that do not answer. The dead letters' are in both tracks, and count once.
pub(super) fn stalled(tracks: [&Track; 2], now: Instant) -> usize {
    tracks.map(|track| track.lanes.stalled(now)).into_iter().max().unwrap_or_default()
}
