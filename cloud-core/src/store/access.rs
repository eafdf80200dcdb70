//! Tokens, sessions and the audit log, in the catalog's database.

use deadpool_postgres::{Pool, Transaction};
use tokio_postgres::Row;
use uuid::Uuid;

use super::in_time;
use super::postgres::StoreError;
use crate::access::secret::Hash;
use crate::access::{Identity, Role};

/// A token as it is listed.
#[derive(Clone, Debug)]
pub struct TokenEntry {
    /// Its number.
    pub token_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// When it was made, µs since the Unix epoch.
    pub created_at: i64,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// An action to be noted.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// The token's name, or who ran the command.
    pub who: &'a str,
    /// The token.
    pub token_id: Option<Uuid>,
    /// A stable code, e.g. `groups.replace`.
    pub action: &'a str,
    /// JSON.
    pub detail: &'a str,
}

/// A noted action.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// Ascending.
    pub audit_id: i64,
    /// When, µs since the Unix epoch.
    pub at: i64,
    /// Who.
    pub who: String,
    /// What.
    pub action: String,
    /// JSON.
    pub detail: String,
}

/// Clones share the pool.
#[derive(Clone)]
pub struct AccessStore {
    pool: Pool,
}

/// A time in µs.
const MICROS: &str = "(extract(epoch FROM {}) * 1000000)::bigint";

pub(super) fn micros(column: &str) -> String {
    MICROS.replace("{}", column)
}

fn identity(row: &Row) -> Result<Identity, StoreError> {
    let role: &str = row.get(2);
    let role: Role = role.parse().map_err(StoreError::Damaged)?;
    let name: &str = row.get(1);
    Ok(Identity { token_id: row.get(0), name: name.into(), role, expires_at: row.get(3) })
}

/// Notes an action in the transaction of its effect.
///
/// # Errors
/// When Postgres is away.
pub(super) async fn note(
    transaction: &Transaction<'_>,
    action: &Action<'_>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_entry (who, token_id, action, detail) VALUES ($1, $2, $3, $4)";
    let Action { who, token_id, action, detail } = action;
    transaction.execute(sql, &[who, token_id, action, detail]).await?;
    Ok(())
}

impl AccessStore {
    /// In the catalog behind `pool`.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Whose token this is, if it is valid.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn token(&self, hash: &Hash) -> Result<Option<Identity>, StoreError> {
        in_time(async {
            let sql = format!(
                "SELECT token_id, name, role, {} FROM access_token WHERE hash = $1 \
                 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
                micros("expires_at")
            );
            let row = self.pool.get().await?.query_opt(&sql, &[&hash.as_slice()]).await?;
            row.as_ref().map(identity).transpose()
        })
        .await
    }

    /// Whose session this is, if it and its token are valid.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn session(&self, hash: &Hash) -> Result<Option<Identity>, StoreError> {
        in_time(async {
            let sql = format!(
                "SELECT t.token_id, t.name, t.role, {} FROM access_session s \
                 JOIN access_token t USING (token_id) WHERE s.hash = $1 AND s.expires_at > now() \
                 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())",
                micros("least(s.expires_at, t.expires_at)")
            );
            let row = self.pool.get().await?.query_opt(&sql, &[&hash.as_slice()]).await?;
            row.as_ref().map(identity).transpose()
        })
        .await
    }

    /// Begins a session of a token; sessions that are over are removed.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn begin_session(
        &self,
        hash: &Hash,
        token_id: Uuid,
        seconds: i64,
    ) -> Result<(), StoreError> {
        in_time(async {
            let client = self.pool.get().await?;
            client.execute("DELETE FROM access_session WHERE expires_at <= now()", &[]).await?;
            let sql = "INSERT INTO access_session (hash, token_id, expires_at) \
                       VALUES ($1, $2, now() + $3::int8 * interval '1 second')";
            client.execute(sql, &[&hash.as_slice(), &token_id, &seconds]).await?;
            Ok(())
        })
        .await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn end_session(&self, hash: &Hash) -> Result<(), StoreError> {
        in_time(async {
            let sql = "DELETE FROM access_session WHERE hash = $1";
            self.pool.get().await?.execute(sql, &[&hash.as_slice()]).await?;
            Ok(())
        })
        .await
    }

    /// Makes a token, and notes who did.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn create_token(
        &self,
        token: &TokenEntry,
        hash: &Hash,
        who: &str,
    ) -> Result<(), StoreError> {
        in_time(async {
            let mut client = self.pool.get().await?;
            let transaction = client.transaction().await?;
            let sql = "INSERT INTO access_token (token_id, name, role, hash, expires_at) \
                       VALUES ($1, $2, $3, $4, to_timestamp($5::bigint / 1000000.0))";
            let TokenEntry { token_id, name, role, expires_at, .. } = token;
            let hash = hash.as_slice();
            transaction.execute(sql, &[token_id, name, role, &hash, expires_at]).await?;
            let detail = serde_json::json!({
                "token_id": token_id, "name": name, "role": role,
            });
            let detail = detail.to_string();
            let action = Action { who, token_id: None, action: "tokens.create", detail: &detail };
            note(&transaction, &action).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// Revokes a token, and notes who did; whether there was a valid one.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn revoke_token(&self, token_id: Uuid, who: &str) -> Result<bool, StoreError> {
        in_time(async {
            let mut client = self.pool.get().await?;
            let transaction = client.transaction().await?;
            let sql = "UPDATE access_token SET revoked_at = now() \
                       WHERE token_id = $1 AND revoked_at IS NULL";
            let revoked = transaction.execute(sql, &[&token_id]).await? > 0;
            if revoked {
                let detail = serde_json::json!({ "token_id": token_id }).to_string();
                let action =
                    Action { who, token_id: None, action: "tokens.revoke", detail: &detail };
                note(&transaction, &action).await?;
            }
            transaction.commit().await?;
            Ok(revoked)
        })
        .await
    }

    /// All tokens, newest first.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn tokens(&self) -> Result<Vec<TokenEntry>, StoreError> {
        in_time(async {
            let sql = format!(
                "SELECT token_id, name, role, {}, {}, {} FROM access_token \
                 ORDER BY created_at DESC, token_id",
                micros("created_at"),
                micros("expires_at"),
                micros("revoked_at")
            );
            let rows = self.pool.get().await?.query(&sql, &[]).await?;
            let entry = |row: &Row| TokenEntry {
                token_id: row.get(0),
                name: row.get(1),
                role: row.get(2),
                created_at: row.get(3),
                expires_at: row.get(4),
                revoked_at: row.get(5),
            };
            Ok(rows.iter().map(entry).collect())
        })
        .await
    }

    /// The audit log before that number, newest first.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn audit(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        in_time(async {
            let sql = format!(
                "SELECT audit_id, {}, who, action, detail FROM audit_entry \
                 WHERE audit_id < $1 ORDER BY audit_id DESC LIMIT $2",
                micros("at")
            );
            let before = before.unwrap_or(i64::MAX);
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = self.pool.get().await?.query(&sql, &[&before, &limit]).await?;
            let entry = |row: &Row| AuditEntry {
                audit_id: row.get(0),
                at: row.get(1),
                who: row.get(2),
                action: row.get(3),
                detail: row.get(4),
            };
            Ok(rows.iter().map(entry).collect())
        })
        .await
    }
}
