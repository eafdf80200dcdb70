//! What the overview shows of the catalog beyond what others ask: gateways and dead letters.

use tokio_postgres::Row;

use super::catalog::Catalog;
use super::in_time;
use super::postgres::StoreError;

/// What a gateway last said. Times in µs since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayStand {
    /// Its name.
    pub gateway: String,
    /// When its status reached the bus.
    pub status_at: i64,
    /// Entries in its spool.
    pub pending: i64,
    /// Their bytes on its disk.
    pub spool_bytes: i64,
    /// And at most.
    pub spool_bytes_max: i64,
    /// How old the oldest of them was, by its own clock.
    pub oldest_age: Option<i64>,
}

impl Catalog {
    /// The last status of every gateway.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn gateways(&self, limit: i64) -> Result<Vec<GatewayStand>, StoreError> {
        in_time(async {
            let sql = "SELECT gateway, status_at, pending, spool_bytes, spool_bytes_max, \
                              sent_at - oldest_received_at FROM ledger_gateway \
                       ORDER BY pending DESC, gateway LIMIT $1";
            let rows = self.client().await?.query(sql, &[&limit]).await?;
            let stand = |row: &Row| GatewayStand {
                gateway: row.get(0),
                status_at: row.get(1),
                pending: row.get(2),
                spool_bytes: row.get(3),
                spool_bytes_max: row.get(4),
                oldest_age: row.get(5),
            };
            Ok(rows.iter().map(stand).collect())
        })
        .await
    }

    /// Open dead letters by reason, most frequent first.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn open_dead_letters(&self, limit: i64) -> Result<Vec<(String, i64)>, StoreError> {
        in_time(async {
            let sql = "SELECT reason, count(*) FROM dead_letter WHERE state = 'open' \
                       GROUP BY reason ORDER BY count(*) DESC, reason LIMIT $1";
            let rows = self.client().await?.query(sql, &[&limit]).await?;
            Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        })
        .await
    }
}
