//! How much each fleet may send: buckets that fill steadily. Time is an argument.
//!
//! A request passes while its fleet has a request left and at least one event. How many events it
//! has is known only when it is read; they are then taken from the bucket even if it goes below
//! zero, and the next request waits until that is filled up again. So a batch is never refused
//! for its size, and the rate holds all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use penstock_common::snapshot::Rate;

use crate::snapshot::FleetEntry;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The buckets of all fleets that the gateway serves.
#[derive(Default)]
pub(super) struct Buckets(Mutex<HashMap<Arc<str>, FleetBuckets>>);

#[derive(Default)]
struct FleetBuckets {
    requests: Option<Bucket>,
    events: Option<Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// How a fleet stands with the limit that it is nearest to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    /// `requests` or `events`.
    pub(super) what: &'static str,
    /// What fits into the bucket.
    pub(super) limit: u32,
    /// What is left.
    pub(super) remaining: u32,
    /// Until all is there again; or, where the limit is reached, until something is. At least 1.
    pub(super) reset_s: u32,
}

impl Standing {
    /// As the headers that the core's API has too.
    pub(super) fn show(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, self.limit.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, self.reset_s.into());
    }
}

impl Buckets {
    /// A request of that fleet begins.
    ///
    /// # Errors
    /// When it has to wait.
    pub(super) fn begin(
        &self,
        fleet: &FleetEntry,
        now: Instant,
    ) -> Result<Option<Standing>, Standing> {
        if fleet.is_unlimited() {
            return Ok(None);
        }
        self.with(fleet, now, |requests, events| {
            for (what, bucket) in [("requests", &requests), ("events", &events)] {
                if let Some((rate, bucket)) = bucket
                    && bucket.left < 1.0
                {
                    return Err(standing(what, *rate, bucket));
                }
            }
            let requests = requests.map(|(rate, bucket)| {
                bucket.left -= 1.0;
                standing("requests", rate, bucket)
            });
            let events = events.map(|(rate, bucket)| standing("events", rate, bucket));
            Ok(requests.into_iter().chain(events).min_by(nearest))
        })
    }

    /// That many events of a request are about to be kept.
    ///
    /// # Errors
    /// When others have used up what was there when it began.
    pub(super) fn take(
        &self,
        fleet: &FleetEntry,
        events: usize,
        now: Instant,
    ) -> Result<Option<Standing>, Standing> {
        if fleet.limits.events.is_none() {
            return Ok(None);
        }
        self.with(fleet, now, |_, bucket| {
            let Some((rate, bucket)) = bucket else { return Ok(None) };
            if bucket.left < 1.0 {
                return Err(standing("events", rate, bucket));
            }
            bucket.left -= events as f64;
            Ok(Some(standing("events", rate, bucket)))
        })
    }

    fn with<T>(
        &self,
        fleet: &FleetEntry,
        now: Instant,
        work: impl FnOnce(Option<(Rate, &mut Bucket)>, Option<(Rate, &mut Bucket)>) -> T,
    ) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = all.entry(fleet.name.clone()).or_default();
        let requests = filled(&mut buckets.requests, fleet.limits.requests, now);
        let events = filled(&mut buckets.events, fleet.limits.events, now);
        work(requests, events)
    }
}

/// The nearer to its end, the less.
fn nearest(one: &Standing, other: &Standing) -> std::cmp::Ordering {
    let share = |s: &Standing| f64::from(s.remaining) / f64::from(s.limit);
    share(one).total_cmp(&share(other))
}

/// What has flowed in since; a limit that is new begins with a full bucket.
fn filled(
    bucket: &mut Option<Bucket>,
    rate: Option<Rate>,
    now: Instant,
) -> Option<(Rate, &mut Bucket)> {
    let Some(rate) = rate else {
        *bucket = None;
        return None;
    };
    let burst = f64::from(rate.burst);
    let bucket = bucket.get_or_insert(Bucket { left: burst, at: now });
    let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
    bucket.left = (bucket.left + seconds * rate.per_second).min(burst);
    bucket.at = bucket.at.max(now);
    Some((rate, bucket))
}

fn standing(what: &'static str, rate: Rate, bucket: &Bucket) -> Standing {
    let missing =
        if bucket.left < 1.0 { 1.0 - bucket.left } else { f64::from(rate.burst) - bucket.left };
    Standing {
        what,
        limit: rate.burst,
        remaining: bucket.left.max(0.0) as u32,
        reset_s: ((missing / rate.per_second).ceil() as u32).max(1),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use penstock_common::snapshot::Limits;

    use super::*;

    fn fleet(requests: Option<(f64, u32)>, events: Option<(f64, u32)>) -> FleetEntry {
        let rate = |(per_second, burst)| Rate { per_second, burst };
        let limits = Limits { requests: requests.map(rate), events: events.map(rate) };
        FleetEntry { name: "f".into(), limits }
    }

    #[test]
    fn a_burst_of_requests_passes_and_then_the_rate() {
        let (buckets, start, fleet) =
            (Buckets::default(), Instant::now(), fleet(Some((2.0, 3)), None));
        for remaining in [2, 1, 0] {
            let standing = buckets.begin(&fleet, start).unwrap().unwrap();
            assert_eq!((standing.limit, standing.remaining), (3, remaining));
        }
        let refused = buckets.begin(&fleet, start).unwrap_err();
        assert_eq!((refused.what, refused.remaining, refused.reset_s), ("requests", 0, 1));
        assert!(buckets.begin(&fleet, start + Duration::from_millis(400)).is_err());
        assert!(buckets.begin(&fleet, start + Duration::from_millis(600)).is_ok());
        let all = buckets.begin(&fleet, start + Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(all.remaining, 2, "no more than the burst is saved up");
    }

    #[test]
    fn a_batch_may_overdraw_the_events_and_the_next_waits() {
        let (buckets, start, fleet) =
            (Buckets::default(), Instant::now(), fleet(None, Some((10.0, 50))));
        assert_eq!(buckets.begin(&fleet, start).unwrap().unwrap().what, "events");
        assert_eq!(buckets.take(&fleet, 100, start).unwrap().unwrap().remaining, 0);
        let refused = buckets.begin(&fleet, start).unwrap_err();
        assert_eq!((refused.what, refused.reset_s), ("events", 6), "51 events at 10 a second");
        assert!(buckets.take(&fleet, 1, start).is_err(), "one that had begun before");
        assert!(buckets.begin(&fleet, start + Duration::from_millis(5_000)).is_err());
        assert!(buckets.begin(&fleet, start + Duration::from_millis(5_200)).is_ok());
    }

    #[test]
    fn over_a_long_time_the_rate_holds_exactly() {
        let (buckets, start, fleet) =
            (Buckets::default(), Instant::now(), fleet(None, Some((100.0, 200))));
        let mut taken = 0;
        for millis in (0..100_000).step_by(7) {
            let now = start + Duration::from_millis(millis);
            if buckets.begin(&fleet, now).is_ok() && buckets.take(&fleet, 37, now).is_ok() {
                taken += 37;
            }
        }
        assert!((10_200 - 37..=10_200 + 37).contains(&taken), "{taken}");
    }

    #[test]
    fn limits_change_and_go() {
        let (buckets, start) = (Buckets::default(), Instant::now());
        let strict = fleet(Some((0.001, 1)), None);
        assert!(buckets.begin(&strict, start).is_ok() && buckets.begin(&strict, start).is_err());
        assert_eq!(buckets.begin(&fleet(None, None), start), Ok(None));
        let wider = fleet(Some((1_000.0, 10)), None);
        assert!(buckets.begin(&wider, start + Duration::from_millis(10)).is_ok());
    }

    #[test]
    fn the_nearest_limit_is_told() {
        let (buckets, start) = (Buckets::default(), Instant::now());
        let fleet = fleet(Some((1.0, 10)), Some((1.0, 100)));
        assert_eq!(buckets.begin(&fleet, start).unwrap().unwrap().what, "requests");
        buckets.take(&fleet, 95, start).unwrap();
        assert_eq!(buckets.begin(&fleet, start).unwrap().unwrap().what, "events");
    }
}
