//! Whose a request is, decided by its headers alone (spec I4): the key's fleet, or the gateway's
//! own fleet where no keys are asked for.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use penstock_common::event::UnixMicros;
use serde::{Deserialize, Serialize};

use super::problem::{Kind, Problem};
use crate::snapshot::{Current, FleetEntry, KeyFault, Snapshots};

static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A longer one is no key of ours, and not worth hashing.
const KEY_BYTES_MAX: usize = 200;
/// How often people are told that requests are refused.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// `http.auth`: whether devices must show a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Every request shows a key, and its fleet is the key's.
    #[default]
    Required,
    /// Whoever reaches the port is of the gateway's own fleet.
    Off,
}

/// Decides whose a request is.
pub struct Access {
    auth: Auth,
    /// The gateway's own fleet first.
    served: Box<[Arc<str>]>,
    snapshots: Snapshots,
    told: Told,
}

/// What a request is handled with: all of one snapshot.
pub(super) struct Caller {
    pub(super) fleet: Arc<FleetEntry>,
    pub(super) snapshot: Arc<Current>,
}

/// Tells people about what may happen very often, once a minute at most.
#[derive(Default)]
pub(super) struct Told(Mutex<ToldState>);

#[derive(Default)]
struct ToldState {
    at: Option<Instant>,
    since: u64,
}

impl Told {
    /// It has happened again; `say` is called with how often since it was last called.
    pub(super) fn tell(&self, say: impl FnOnce(u64)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since += 1;
        if state.at.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            let count = std::mem::take(&mut state.since);
            state.at = Some(Instant::now());
            drop(state);
            say(count);
        }
    }
}

impl Access {
    /// Lets in the devices of `fleet` and of `others`, by the keys of the snapshot.
    pub fn new(auth: Auth, fleet: &str, others: &[String], snapshots: Snapshots) -> Self {
        let served = std::iter::once(fleet).chain(others.iter().map(String::as_str));
        Self { auth, served: served.map(Arc::from).collect(), snapshots, told: Told::default() }
    }

    /// What it goes by.
    pub(super) const fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Whose a request with these headers is.
    pub(super) fn identify(&self, headers: &HeaderMap, now: UnixMicros) -> Result<Caller, Problem> {
        let snapshot = self.snapshots.current();
        let fleet = match self.auth {
            Auth::Required => self.fleet_of(presented(headers)?, &snapshot, now)?,
            Auth::Off => {
                let name = &self.served[0];
                let known = snapshot.keys.fleet(name).cloned();
                known.unwrap_or_else(|| Arc::new(FleetEntry::unlimited(name.clone())))
            }
        };
        Ok(Caller { fleet, snapshot })
    }

    fn fleet_of(
        &self,
        key: &[u8],
        snapshot: &Current,
        now: UnixMicros,
    ) -> Result<Arc<FleetEntry>, Problem> {
        let found = match key.len() <= KEY_BYTES_MAX {
            true => snapshot.keys.fleet_of(key, now),
            false => Err(KeyFault::Unknown),
        };
        // None of these repeats the key, or says anything to somebody who does not have it.
        match found {
            Err(KeyFault::Unknown) => Err(Problem::new(
                Kind::KeyUnknown,
                "this gateway does not know the key: it is mistyped, revoked, or newer than the \
                 gateway's snapshot",
            )),
            Err(KeyFault::Expired) => Err(Problem::new(
                Kind::KeyExpired,
                "the key is past its end; use the fleet's newer one",
            )),
            Ok(fleet) if !self.served.contains(&fleet.name) => {
                let detail = format!("this gateway does not serve the fleet {}", fleet.name);
                Err(Problem::new(Kind::KeyOtherFleet, detail))
            }
            Ok(fleet) => Ok(fleet.clone()),
        }
    }

    /// Tells people about a refusal, once a minute at most.
    pub(super) fn tell(&self, reason: &'static str, source: IpAddr) {
        self.told.tell(|count| {
            tracing::warn!(count, reason, %source, "requests refused; the last one is shown");
        });
    }
}

/// The key that a request shows: `Authorization: Bearer`, or else `X-API-Key`.
fn presented(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let authorization = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let key = authorization
        .and_then(bearer)
        .or_else(|| headers.get(&API_KEY).map(|value| value.as_bytes().trim_ascii()));
    key.filter(|key| !key.is_empty()).ok_or_else(|| {
        let found = match authorization {
            Some(_) => "the Authorization header is not of this form: ",
            None => "",
        };
        let detail = format!(
            "{found}send the fleet's key as \"Authorization: Bearer <key>\" or \"X-API-Key: <key>\""
        );
        Problem::new(Kind::KeyMissing, detail)
    })
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let rest = rest.strip_prefix(b" ")?;
    scheme.eq_ignore_ascii_case(b"bearer").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_either_header() {
        let shown = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            presented(&map).map(|key| String::from_utf8(key.to_vec()).unwrap()).ok()
        };
        for (headers, expected) in [
            (&[("authorization", "Bearer k")][..], Some("k")),
            (&[("authorization", "bEARER   k ")], Some("k")),
            (&[("x-api-key", " k ")], Some("k")),
            (&[("authorization", "Bearer a"), ("x-api-key", "b")], Some("a")),
            (&[("authorization", "Basic a"), ("x-api-key", "b")], Some("b")),
            (&[("authorization", "Basic a")], None),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("authorization", "Bearerk")], None),
            (&[("x-api-key", "")], None),
            (&[], None),
        ] {
            assert_eq!(shown(headers).as_deref(), expected, "{headers:?}");
        }
    }
}
