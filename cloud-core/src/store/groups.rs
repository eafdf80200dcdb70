//! The copy of the device groups, in the catalog's database (spec S4).

use std::collections::BTreeMap;

use deadpool_postgres::{Pool, Transaction};
use tokio_postgres::Row;

use super::access::{Action, note};
use super::in_time;
use super::postgres::StoreError;

/// A device by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    /// Its fleet.
    pub fleet: String,
    /// Its id.
    pub device: String,
}

/// The devices of each group.
pub type Groups = BTreeMap<String, Vec<DeviceName>>;

/// How an import treats what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// All groups are replaced.
    Replace,
    /// Only the groups that are named; those without devices are removed.
    Patch,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Groups there now.
    pub groups: i64,
    /// Memberships there now.
    pub members: i64,
    /// Memberships that are new.
    pub added: u64,
    /// Memberships that are gone.
    pub removed: u64,
}

/// Clones share the pool.
#[derive(Clone)]
pub struct GroupStore {
    pool: Pool,
}

impl GroupStore {
    /// In the catalog behind `pool`.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Imports groups, all or nothing, and notes who did.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn import(
        &self,
        groups: &Groups,
        how: Import,
        who: (&str, Option<uuid::Uuid>),
    ) -> Result<Imported, StoreError> {
        in_time(async {
            let mut client = self.pool.get().await?;
            let transaction = client.transaction().await?;
            // One import after the other: two at once would mix.
            transaction.execute("LOCK TABLE device_group IN SHARE ROW EXCLUSIVE MODE", &[]).await?;
            let mut imported = write(&transaction, groups, how).await?;
            let sql = "SELECT (SELECT count(*) FROM device_group), \
                              (SELECT count(*) FROM device_group_member)";
            let row = transaction.query_one(sql, &[]).await?;
            (imported.groups, imported.members) = (row.get(0), row.get(1));
            let detail = serde_json::json!({
                "groups_named": groups.len(), "groups": imported.groups,
                "members": imported.members, "added": imported.added,
                "removed": imported.removed,
            });
            let action = Action {
                who: who.0,
                token_id: who.1,
                action: match how {
                    Import::Replace => "groups.replace",
                    Import::Patch => "groups.patch",
                },
                detail: &detail.to_string(),
            };
            note(&transaction, &action).await?;
            transaction.commit().await?;
            Ok(imported)
        })
        .await
    }

    /// Groups after that name, with the number of their devices.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn list(
        &self,
        contains: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        in_time(async {
            let sql = "SELECT name, (SELECT count(*) FROM device_group_member m \
                                     WHERE m.group_id = g.group_id) \
                       FROM device_group g WHERE name > $1 \
                       AND strpos(lower(name), lower($2)) > 0 ORDER BY name LIMIT $3";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = self.pool.get().await?.query(sql, &[&after, &contains, &limit]).await?;
            Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        })
        .await
    }

    /// Devices of a group after that one; none when there is no such group.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn members(
        &self,
        name: &str,
        after: &DeviceName,
        limit: usize,
    ) -> Result<Option<Vec<DeviceName>>, StoreError> {
        in_time(async {
            let client = self.pool.get().await?;
            let sql = "SELECT group_id FROM device_group WHERE name = $1";
            let Some(group) = client.query_opt(sql, &[&name]).await? else { return Ok(None) };
            let group: i32 = group.get(0);
            let sql = "SELECT fleet, device FROM device_group_member WHERE group_id = $1 \
                       AND (fleet, device) > ($2, $3) ORDER BY fleet, device LIMIT $4";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = client.query(sql, &[&group, &after.fleet, &after.device, &limit]).await?;
            let device = |row: &Row| DeviceName { fleet: row.get(0), device: row.get(1) };
            Ok(Some(rows.iter().map(device).collect()))
        })
        .await
    }
}

async fn write(
    transaction: &Transaction<'_>,
    groups: &Groups,
    how: Import,
) -> Result<Imported, StoreError> {
    transaction
        .batch_execute(
            "CREATE TEMPORARY TABLE wanted (name text, fleet text, device text) ON COMMIT DROP; \
             CREATE TEMPORARY TABLE named (name text) ON COMMIT DROP",
        )
        .await?;
    let names: Vec<&str> = groups.keys().map(String::as_str).collect();
    transaction.execute("INSERT INTO named SELECT unnest($1::text[])", &[&names]).await?;
    let flat = || {
        groups.iter().flat_map(|(name, devices)| devices.iter().map(move |device| (name, device)))
    };
    let (of, fleets, devices): (Vec<&str>, Vec<&str>, Vec<&str>) = (
        flat().map(|(name, _)| name.as_str()).collect(),
        flat().map(|(_, device)| device.fleet.as_str()).collect(),
        flat().map(|(_, device)| device.device.as_str()).collect(),
    );
    let sql = "INSERT INTO wanted SELECT DISTINCT * \
               FROM unnest($1::text[], $2::text[], $3::text[])";
    transaction.execute(sql, &[&of, &fleets, &devices]).await?;
    transaction
        .batch_execute(
            "INSERT INTO device_group (name) SELECT DISTINCT name FROM wanted \
             ON CONFLICT (name) DO NOTHING",
        )
        .await?;
    let scope = match how {
        Import::Replace => "true",
        Import::Patch => "g.name IN (SELECT name FROM named)",
    };
    let removed = transaction
        .execute(
            &format!(
                "DELETE FROM device_group_member m USING device_group g \
                 WHERE g.group_id = m.group_id AND {scope} AND NOT EXISTS (\
                   SELECT FROM wanted w WHERE w.name = g.name AND w.fleet = m.fleet \
                   AND w.device = m.device)"
            ),
            &[],
        )
        .await?;
    let added = transaction
        .execute(
            "INSERT INTO device_group_member SELECT g.group_id, w.fleet, w.device \
             FROM wanted w JOIN device_group g USING (name) ON CONFLICT DO NOTHING",
            &[],
        )
        .await?;
    transaction
        .execute(
            &format!(
                "DELETE FROM device_group g WHERE {scope} \
                 AND NOT EXISTS (SELECT FROM wanted w WHERE w.name = g.name)"
            ),
            &[],
        )
        .await?;
    Ok(Imported { added, removed, ..Imported::default() })
}
