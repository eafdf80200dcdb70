//! What becomes of dead letters: replays with their audit, and looks into the raw store.

use uuid::Uuid;

use super::State;
use crate::store::catalog::Catalog;
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// A letter whose event is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its number in the index.
    pub letter_id: i64,
    /// The fleet.
    pub fleet: String,
    /// The device.
    pub device: String,
    /// The event's id.
    pub event_id: Uuid,
    /// The event's time, µs.
    pub event_time: i64,
}

/// How often letters are looked for: ever less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between the first look and the second, ms; doubled from look to look.
    pub first_ms: u64,
    /// At most.
    pub max_ms: u64,
}

/// How many letters are in each state, but for the resolved ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unresolved {
    /// Nothing was done about them.
    pub open: i64,
    /// They were replayed and are not seen in the raw store yet.
    pub replayed: i64,
}

fn ms(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Catalog {
    /// Takes letters whose time for a look has come, some of them at most, longest due first.
    /// Nobody else gets them before `lease_ms` is over.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn take_looks(&self, limit: i64, lease_ms: u64) -> Result<Vec<Look>, StoreError> {
        in_time(async {
            let sql = "UPDATE dead_letter SET look_at = now() + $2::int8 * interval '1 millisecond' \
                       WHERE letter_id IN (SELECT letter_id FROM dead_letter \
                         WHERE look_at <= now() ORDER BY look_at LIMIT $1 FOR UPDATE SKIP LOCKED) \
                       RETURNING letter_id, fleet, device_id, event_id, event_time";
            let rows = self.client().await?.query(sql, &[&limit, &ms(lease_ms)]).await?;
            let look = |row: &tokio_postgres::Row| {
                Some(Look {
                    letter_id: row.get(0),
                    fleet: row.get(1),
                    device: row.get::<_, Option<String>>(2)?,
                    event_id: row.get::<_, Option<Uuid>>(3)?,
                    event_time: row.get::<_, Option<i64>>(4)?,
                })
            };
            Ok(rows.iter().filter_map(look).collect())
        })
        .await
    }

    /// Notes which of the letters taken have been found, and when to look for the others again;
    /// says how many it has resolved.
    ///
    /// # Errors
    /// When Postgres is away; they are taken again when the lease is over.
    pub async fn looked(
        &self,
        found: &[i64],
        not_found: &[i64],
        patience: Patience,
    ) -> Result<u64, StoreError> {
        in_time(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            let sql = "UPDATE dead_letter SET state = 'resolved', resolved_at = now(), \
                         look_at = NULL WHERE letter_id = ANY($1) AND state <> 'resolved'";
            let resolved = transaction.execute(sql, &[&found]).await?;
            let sql = "UPDATE dead_letter SET looks = looks + 1, \
                         look_at = now() + least($2 * power(2, least(looks, 40)), $3::float8) \
                           * interval '1 millisecond' \
                       WHERE letter_id = ANY($1) AND state <> 'resolved'";
            let (first, max) = (ms(patience.first_ms) as f64, ms(patience.max_ms) as f64);
            transaction.execute(sql, &[&not_found, &first, &max]).await?;
            transaction.commit().await?;
            Ok(resolved)
        })
        .await
    }

    /// Notes that somebody asks for a replay.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn begin_replay(
        &self,
        replay_id: Uuid,
        who: &str,
        request: &str,
    ) -> Result<(), StoreError> {
        in_time(async {
            let sql = "INSERT INTO dead_letter_replay (replay_id, who, request) \
                       VALUES ($1, $2, $3)";
            self.client().await?.execute(sql, &[&replay_id, &who, &request]).await?;
            Ok(())
        })
        .await
    }

    /// Notes which letters a replay has sent and which it refused, and why (JSON). A letter that
    /// was resolved meanwhile stays so.
    ///
    /// # Errors
    /// When Postgres is away; what was sent may be sent again then.
    pub async fn replayed(
        &self,
        replay_id: Uuid,
        sent: &[i64],
        refused: &[(i64, String)],
        look_after_ms: u64,
    ) -> Result<(), StoreError> {
        let (ids, refusals): (Vec<i64>, Vec<&str>) =
            refused.iter().map(|(id, why)| (*id, why.as_str())).unzip();
        in_time(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            let sql = "UPDATE dead_letter SET replays = replays + 1, replayed_at = now(), \
                         refusal = NULL, refused_at = NULL, \
                         state = CASE state WHEN 'resolved' THEN state ELSE 'replayed' END, \
                         looks = 0, look_at = CASE WHEN look_at IS NOT NULL \
                           THEN now() + $2::int8 * interval '1 millisecond' END \
                       WHERE letter_id = ANY($1)";
            transaction.execute(sql, &[&sent, &ms(look_after_ms)]).await?;
            let sql = "UPDATE dead_letter d SET refusal = new.why, refused_at = now() \
                       FROM unnest($1::int8[], $2::text[]) AS new (id, why) \
                       WHERE d.letter_id = new.id";
            transaction.execute(sql, &[&ids, &refusals]).await?;
            let sql = "UPDATE dead_letter_replay SET replayed = replayed + $2, \
                         refused = refused + $3 WHERE replay_id = $1";
            let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            transaction.execute(sql, &[&replay_id, &count(sent.len()), &count(ids.len())]).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// Notes that a replay has come to its end.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn end_replay(&self, replay_id: Uuid) -> Result<(), StoreError> {
        in_time(async {
            let sql = "UPDATE dead_letter_replay SET ended_at = now() WHERE replay_id = $1";
            self.client().await?.execute(sql, &[&replay_id]).await?;
            Ok(())
        })
        .await
    }

    /// Counts the letters that are not resolved.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn unresolved(&self) -> Result<Unresolved, StoreError> {
        in_time(async {
            let sql = "SELECT state, count(*) FROM dead_letter WHERE state <> 'resolved' \
                       GROUP BY state";
            let rows = self.client().await?.query(sql, &[]).await?;
            let count = |state: State| {
                let row = rows.iter().find(|row| row.get::<_, &str>(0) == state.name());
                row.map_or(0, |row| row.get(1))
            };
            Ok(Unresolved { open: count(State::Open), replayed: count(State::Replayed) })
        })
        .await
    }
}
