//! From secrets to identities, with a short memory: a request costs no look-up, a revoked token
//! ends within [`FRESH`], and while the catalog is away those who were known stay known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_common::clock::{Clock, SystemClock};

use super::Identity;
use super::secret::{Hash, Kind, Secret};
use crate::store::access::AccessStore;
use crate::store::postgres::StoreError;

/// An answer of the catalog is good for so long.
const FRESH: Duration = Duration::from_secs(10);
/// And for so long while the catalog does not answer.
const STALE_MAX: Duration = Duration::from_secs(900);
/// Answers remembered at most; beyond it all are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// Knows identities; clones share the memory.
#[derive(Clone)]
pub struct Identities {
    store: AccessStore,
    known: Arc<Mutex<HashMap<Hash, Known>>>,
}

#[derive(Clone)]
struct Known {
    identity: Identity,
    asked: Instant,
}

impl Identities {
    /// Those of the store.
    pub fn new(store: AccessStore) -> Self {
        Self { store, known: Arc::default() }
    }

    /// The store behind it.
    pub const fn store(&self) -> &AccessStore {
        &self.store
    }

    /// Whose a secret is; none when it is unknown, expired or revoked.
    ///
    /// # Errors
    /// When the catalog is away and the secret was not known before.
    pub async fn of(&self, secret: &Secret) -> Result<Option<Identity>, StoreError> {
        let hash = secret.hash();
        let known = self.lock().get(&hash).cloned();
        if let Some(known) = &known
            && known.asked.elapsed() < FRESH
        {
            return Ok(still_valid(known));
        }
        let asked = match secret.kind() {
            Kind::Token => self.store.token(&hash).await,
            Kind::Session => self.store.session(&hash).await,
            // Devices have no business here.
            Kind::FleetKey => Ok(None),
        };
        match (asked, known) {
            (Ok(Some(identity)), _) => {
                let mut remembered = self.lock();
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.clear();
                }
                let known = Known { identity: identity.clone(), asked: Instant::now() };
                remembered.insert(hash, known);
                Ok(Some(identity))
            }
            (Ok(None), _) => {
                self.lock().remove(&hash);
                Ok(None)
            }
            (Err(_), Some(known)) if known.asked.elapsed() < STALE_MAX => Ok(still_valid(&known)),
            (Err(error), _) => Err(error),
        }
    }

    /// Forgets a secret at once, as at the end of a session.
    pub fn forget(&self, secret: &Secret) {
        self.lock().remove(&secret.hash());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn still_valid(known: &Known) -> Option<Identity> {
    let now = SystemClock.now().0;
    known.identity.expires_at.is_none_or(|end| now < end).then(|| known.identity.clone())
}
