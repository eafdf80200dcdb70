//! Numbers of series, kept in memory: a row of the database is looked up once a process.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::Object;
use foldhash::fast::RandomState;
use tokio_postgres::GenericClient;

use crate::store::postgres::StoreError;

/// Series kept in memory at most, some 150 bytes each; beyond it the cache begins anew.
const CACHED_MAX: usize = 2_000_000;

/// A series by its names; the device `""` is the whole fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name<'a> {
    pub(super) fleet: &'a str,
    pub(super) device: &'a str,
    pub(super) metric: &'a str,
}

/// The numbers that are known.
#[derive(Debug, Default)]
pub(super) struct SeriesCache {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    count: usize,
    fleets: HashMap<Arc<str>, Devices, RandomState>,
}

/// The metrics of each device and their numbers.
type Devices = HashMap<Arc<str>, Vec<(Arc<str>, i32)>, RandomState>;

impl Known {
    fn get(&self, name: &Name<'_>) -> Option<i32> {
        let metrics = self.fleets.get(name.fleet)?.get(name.device)?;
        metrics.iter().find(|(metric, _)| **metric == *name.metric).map(|(_, id)| *id)
    }

    fn put(&mut self, name: &Name<'_>, id: i32) {
        if self.get(name).is_some() {
            return;
        }
        if self.count >= CACHED_MAX {
            *self = Self::default();
        }
        self.count += 1;
        let fleet = self.fleets.entry(name.fleet.into()).or_default();
        fleet.entry(name.device.into()).or_default().push((name.metric.into(), id));
    }
}

impl SeriesCache {
    /// The numbers of these series, made where there is none yet.
    pub(super) async fn resolve(
        &self,
        client: &Object,
        names: &[Name<'_>],
    ) -> Result<Vec<i32>, StoreError> {
        let missing: BTreeSet<Name<'_>> = {
            let known = self.lock();
            names.iter().filter(|name| known.get(name).is_none()).copied().collect()
        };
        if missing.is_empty() {
            let known = self.lock();
            let ids: Option<Vec<i32>> = names.iter().map(|name| known.get(name)).collect();
            if let Some(ids) = ids {
                return Ok(ids);
            }
        }
        let missing: Vec<Name<'_>> = missing.into_iter().collect();
        let made = make(&***client, &missing).await?;
        let mut known = self.lock();
        for (name, id) in &made {
            known.put(name, *id);
        }
        drop(known);
        let known = self.lock();
        let id = |name: &Name<'_>| made.get(name).copied().or_else(|| known.get(name));
        let ids: Option<Vec<i32>> = names.iter().map(id).collect();
        // Only when the cache began anew in between; the next try asks for all of them.
        ids.ok_or(StoreError::OutOfRange("the cache of series"))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds or makes series. Outside the caller's transaction: a series without rows harms nobody,
/// and nobody waits for another's.
pub(super) async fn make<'a>(
    client: &impl GenericClient,
    names: &[Name<'a>],
) -> Result<HashMap<Name<'a>, i32>, StoreError> {
    let fleets: Vec<&str> = names.iter().map(|name| name.fleet).collect();
    let devices: Vec<&str> = names.iter().map(|name| name.device).collect();
    let metrics: Vec<&str> = names.iter().map(|name| name.metric).collect();
    let of = "unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS new (fleet, device, metric, n)";
    // Looked up first: ON CONFLICT would burn a number of the sequence for each that is there.
    let insert = format!(
        "INSERT INTO series (fleet, device, metric) SELECT fleet, device, metric FROM {of} \
         WHERE NOT EXISTS (SELECT FROM series s WHERE (s.fleet, s.device, s.metric) \
                           = (new.fleet, new.device, new.metric)) \
         ORDER BY fleet, device, metric ON CONFLICT DO NOTHING"
    );
    client.execute(&insert, &[&fleets, &devices, &metrics]).await?;
    let select = format!("SELECT n, series_id FROM {of} JOIN series USING (fleet, device, metric)");
    let rows = client.query(&select, &[&fleets, &devices, &metrics]).await?;
    let found = rows.iter().filter_map(|row| {
        let n = usize::try_from(row.get::<_, i64>(0)).ok()?;
        Some((*names.get(n.checked_sub(1)?)?, row.get(1)))
    });
    Ok(found.collect())
}
