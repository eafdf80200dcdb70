//! Where connections come from: no source may open too many, or too many a second, whatever
//! `connections_max` leaves room for. Time is an argument.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Sources remembered at most, beside those that have connections open.
const REMEMBERED_MAX: usize = 65_536;

/// All sources of connections.
pub(super) struct Sources {
    open_max: usize,
    per_second: f64,
    known: Mutex<HashMap<IpAddr, Source>>,
}

struct Source {
    open: usize,
    /// New connections that it may open at once.
    left: f64,
    at: Instant,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its source has too many open.
    TooMany,
    /// Its source opens too many a second.
    TooFast,
}

/// A connection's place among those of its source, until it is dropped.
pub(super) struct Place {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Refused {
    /// A stable name.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "source-too-many",
            Self::TooFast => "source-too-fast",
        }
    }
}

impl Sources {
    /// At most `open_max` at once and, when these have been opened at once, `per_second`.
    pub(super) fn new(open_max: usize, per_second: u32) -> Arc<Self> {
        Arc::new(Self { open_max, per_second: f64::from(per_second), known: Mutex::default() })
    }

    /// A new connection from there.
    ///
    /// # Errors
    /// When it is not to be taken.
    pub(super) fn admit(self: &Arc<Self>, source: IpAddr, now: Instant) -> Result<Place, Refused> {
        let source = counted_as(source);
        let mut known = self.lock();
        if known.len() >= REMEMBERED_MAX && !known.contains_key(&source) {
            self.forget(&mut known, now);
        }
        let burst = self.open_max as f64;
        let found = known.entry(source).or_insert(Source { open: 0, left: burst, at: now });
        found.left = self.filled(found, now);
        found.at = now;
        if found.open >= self.open_max {
            return Err(Refused::TooMany);
        }
        if found.left < 1.0 {
            return Err(Refused::TooFast);
        }
        found.left -= 1.0;
        found.open += 1;
        drop(known);
        Ok(Place { sources: Arc::clone(self), source })
    }

    /// Drops those that mean nothing any more; if they all do, at least those that are not here.
    fn forget(&self, known: &mut HashMap<IpAddr, Source>, now: Instant) {
        let burst = self.open_max as f64;
        known.retain(|_, source| source.open > 0 || self.filled(source, now) < burst);
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, source| source.open > 0);
        }
    }

    fn filled(&self, source: &Source, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(source.at).as_secs_f64();
        (source.left + seconds * self.per_second).min(self.open_max as f64)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Source>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(source) = self.sources.lock().get_mut(&self.source) {
            source.open = source.open.saturating_sub(1);
        }
    }
}

/// Who has one IPv6 address has a network of 2^64.
fn counted_as(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_its_share_and_gets_it_back() {
        let (sources, now) = (Sources::new(2, 1_000), Instant::now());
        let first = sources.admit(ip("10.0.0.1"), now).unwrap();
        let _second = sources.admit(ip("::ffff:10.0.0.1"), now).unwrap();
        let later = now + Duration::from_secs(1);
        assert_eq!(sources.admit(ip("10.0.0.1"), later).err(), Some(Refused::TooMany));
        assert!(sources.admit(ip("10.0.0.2"), later).is_ok());
        drop(first);
        assert!(sources.admit(ip("10.0.0.1"), later).is_ok());
    }

    #[test]
    fn a_source_that_opens_and_closes_waits_for_the_rate() {
        let (sources, now) = (Sources::new(3, 10), Instant::now());
        for _ in 0..3 {
            drop(sources.admit(ip("2001:db8::1"), now).unwrap());
        }
        // Another address of the same network.
        assert_eq!(sources.admit(ip("2001:db8::2"), now).err(), Some(Refused::TooFast));
        assert!(sources.admit(ip("2001:db8:0:1::1"), now).is_ok());
        let later = now + Duration::from_millis(150);
        assert!(sources.admit(ip("2001:db8::1"), later).is_ok());
        assert!(sources.admit(ip("2001:db8::1"), later).is_err());
    }

    #[test]
    fn a_flood_of_sources_takes_bounded_memory() {
        let (sources, now) = (Sources::new(10, 1), Instant::now());
        let open = sources.admit(ip("10.0.0.1"), now).unwrap();
        for number in 0..200_000_u32 {
            drop(sources.admit(IpAddr::V4(number.into()), now).unwrap());
        }
        assert!(sources.lock().len() <= REMEMBERED_MAX);
        assert_eq!(sources.lock()[&ip("10.0.0.1")].open, 1, "who is here is not forgotten");
        drop(open);
    }
}
