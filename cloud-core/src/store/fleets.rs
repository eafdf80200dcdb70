//! Fleets, the keys of their devices and their limits, in the catalog's database (spec I4).

use std::collections::BTreeMap;

use deadpool_postgres::Pool;
use penstock_common::snapshot::{KEYS_MAX, Limits, Rate};
use tokio_postgres::Row;
use uuid::Uuid;

use super::access::{Action, micros, note};
use super::in_time;
use super::postgres::StoreError;
use crate::access::secret::Hash;

/// A key as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its number.
    pub key_id: Uuid,
    /// Whose it is.
    pub fleet: String,
    /// Its hash.
    pub hash: Hash,
    /// When it was made, µs since the Unix epoch.
    pub created_at: i64,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

impl KeyEntry {
    /// Whether it is good at that time.
    pub fn is_valid(&self, now: i64) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Why a key was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The fleet has as many as it can have.
    #[error("the fleet {0} has {KEYS_MAX} keys that are good: revoke some first")]
    TooMany(String),
    /// Postgres did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Clones share the pool.
#[derive(Clone)]
pub struct FleetStore {
    pool: Pool,
}

impl FleetStore {
    /// In the catalog behind `pool`.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Makes a key, and its fleet where there is none yet, and notes who did.
    ///
    /// # Errors
    /// When the fleet has too many, or Postgres is away.
    pub async fn create_key(&self, key: &KeyEntry, who: &str) -> Result<(), CreateError> {
        in_time(async {
            let mut client = self.pool.get().await.map_err(StoreError::from)?;
            let transaction = client.transaction().await.map_err(StoreError::from)?;
            let KeyEntry { key_id, fleet, hash, expires_at, .. } = key;
            // The update locks the fleet: two makers at once count one after the other.
            let sql = "INSERT INTO fleet (name) VALUES ($1) \
                       ON CONFLICT (name) DO UPDATE SET name = excluded.name";
            transaction.execute(sql, &[fleet]).await.map_err(StoreError::from)?;
            let sql = "SELECT count(*) FROM fleet_key WHERE fleet = $1 AND revoked_at IS NULL \
                       AND (expires_at IS NULL OR expires_at > now())";
            let row = transaction.query_one(sql, &[fleet]).await.map_err(StoreError::from)?;
            if row.get::<_, i64>(0) >= KEYS_MAX as i64 {
                return Err(CreateError::TooMany(fleet.clone()));
            }
            let sql = "INSERT INTO fleet_key (key_id, fleet, hash, expires_at) \
                       VALUES ($1, $2, $3, to_timestamp($4::bigint / 1000000.0))";
            let hash = hash.as_slice();
            let inserted = transaction.execute(sql, &[key_id, fleet, &hash, expires_at]).await;
            inserted.map_err(StoreError::from)?;
            let detail = serde_json::json!({
                "key_id": key_id, "fleet": fleet, "expires_at": expires_at,
            });
            let detail = detail.to_string();
            let action = Action { who, token_id: None, action: "keys.create", detail: &detail };
            note(&transaction, &action).await?;
            transaction.commit().await.map_err(StoreError::from)?;
            Ok(())
        })
        .await
    }

    /// Revokes a key, and notes who did; whose it was, if it was good.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn revoke_key(&self, key_id: Uuid, who: &str) -> Result<Option<String>, StoreError> {
        in_time(async {
            let mut client = self.pool.get().await?;
            let transaction = client.transaction().await?;
            let sql = "UPDATE fleet_key SET revoked_at = now() \
                       WHERE key_id = $1 AND revoked_at IS NULL RETURNING fleet";
            let revoked = transaction.query_opt(sql, &[&key_id]).await?;
            let fleet: Option<String> = revoked.map(|row| row.get(0));
            if let Some(fleet) = &fleet {
                let detail = serde_json::json!({ "key_id": key_id, "fleet": fleet }).to_string();
                let action = Action { who, token_id: None, action: "keys.revoke", detail: &detail };
                note(&transaction, &action).await?;
            }
            transaction.commit().await?;
            Ok(fleet)
        })
        .await
    }

    /// The keys of one fleet or of all: by fleet, newest first.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn keys(&self, fleet: Option<&str>) -> Result<Vec<KeyEntry>, StoreError> {
        in_time(async {
            let sql = format!(
                "SELECT key_id, fleet, hash, {}, {}, {} FROM fleet_key \
                 WHERE $1::text IS NULL OR fleet = $1 ORDER BY fleet, created_at DESC, key_id",
                micros("created_at"),
                micros("expires_at"),
                micros("revoked_at")
            );
            let rows = self.pool.get().await?.query(&sql, &[&fleet]).await?;
            rows.iter().map(key).collect()
        })
        .await
    }

    /// Sets the limits of a fleet, which is made where there is none yet, and notes who did.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn set_limits(
        &self,
        fleet: &str,
        limits: &Limits,
        who: &str,
    ) -> Result<(), StoreError> {
        in_time(async {
            let mut client = self.pool.get().await?;
            let transaction = client.transaction().await?;
            let sql = "INSERT INTO fleet (name, requests_per_second, requests_burst, \
                                          events_per_second, events_burst) \
                       VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET \
                       requests_per_second = excluded.requests_per_second, \
                       requests_burst = excluded.requests_burst, \
                       events_per_second = excluded.events_per_second, \
                       events_burst = excluded.events_burst";
            let parts = |rate: Option<Rate>| {
                (rate.map(|rate| rate.per_second), rate.map(|rate| i64::from(rate.burst)))
            };
            let (requests, requests_burst) = parts(limits.requests);
            let (events, events_burst) = parts(limits.events);
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&fleet, &requests, &requests_burst, &events, &events_burst];
            transaction.execute(sql, &values).await?;
            let detail = serde_json::json!({ "fleet": fleet, "limits": limits }).to_string();
            let action = Action { who, token_id: None, action: "fleets.limit", detail: &detail };
            note(&transaction, &action).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// All fleets with their limits.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn fleets(&self) -> Result<BTreeMap<String, Limits>, StoreError> {
        in_time(async {
            let sql = "SELECT name, requests_per_second, requests_burst, events_per_second, \
                              events_burst FROM fleet";
            let rows = self.pool.get().await?.query(sql, &[]).await?;
            let fleet = |row: &Row| {
                let limits = Limits { requests: rate(row, 1), events: rate(row, 3) };
                (row.get(0), limits)
            };
            Ok(rows.iter().map(fleet).collect())
        })
        .await
    }
}

fn rate(row: &Row, at: usize) -> Option<Rate> {
    let (per_second, burst): (Option<f64>, Option<i64>) = (row.get(at), row.get(at + 1));
    // The table keeps it within the type.
    Some(Rate { per_second: per_second?, burst: u32::try_from(burst?).unwrap_or(u32::MAX) })
}

fn key(row: &Row) -> Result<KeyEntry, StoreError> {
    let hash: &[u8] = row.get(2);
    let hash = hash.try_into().map_err(|_| StoreError::Damaged("the hash of a key".into()))?;
    Ok(KeyEntry {
        key_id: row.get(0),
        fleet: row.get(1),
        hash,
        created_at: row.get(3),
        expires_at: row.get(4),
        revoked_at: row.get(5),
    })
}
