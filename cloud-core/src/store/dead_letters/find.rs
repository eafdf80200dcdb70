//! Looking for dead letters.

use std::fmt::Write;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{IndexEntry, IndexedLetter, Place, RowPlace, State};
use crate::store::catalog::Catalog;
use crate::store::in_time;
use crate::store::postgres::StoreError;

/// What letters must be like; whatever is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The reason's code.
    pub reason: Option<String>,
    /// The stage.
    pub stage: Option<String>,
    /// The gateway.
    pub gateway: Option<String>,
    /// The fleet.
    pub fleet: Option<String>,
    /// The device.
    pub device: Option<String>,
    /// The state.
    pub state: Option<State>,
    /// From this append time on, µs.
    pub from: Option<i64>,
    /// Before this append time, µs.
    pub to: Option<i64>,
}

/// The order of pages, by append time and then by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// For people.
    NewestFirst,
    /// For replays.
    OldestFirst,
}

/// A page to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// Which letters.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// After the letter with this append time (µs) and number.
    pub after: Option<(i64, i64)>,
    /// As the catalog was at this sequence.
    pub as_of: i64,
    /// So many at most.
    pub limit: usize,
}

const COLUMNS: &str = "d.letter_id, d.topic, d.\"partition\", d.\"offset\", f.path, f.bytes, \
    d.row_number, d.append_time, d.first_seen, d.stage, d.reason, d.detail_preview, d.fleet, \
    d.gateway, d.epoch, d.seq, d.schema_version, d.attempts, d.device_id, d.event_id, \
    d.event_time, d.payload_bytes, d.state, d.replays, \
    (extract(epoch FROM d.replayed_at) * 1000000)::int8, \
    (extract(epoch FROM d.resolved_at) * 1000000)::int8, d.refusal, \
    (extract(epoch FROM d.refused_at) * 1000000)::int8, d.look_at IS NOT NULL";

impl Catalog {
    /// A page of letters.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn find_dead_letters(&self, find: &Find) -> Result<Vec<IndexedLetter>, StoreError> {
        let Filter { reason, stage, gateway, fleet, device, state, from, to } = &find.filter;
        let state = state.map(State::name);
        let limit = i64::try_from(find.limit).unwrap_or(i64::MAX);
        let mut sql = format!(
            "SELECT {COLUMNS} FROM dead_letter d JOIN raw_file f USING (file_id) \
             WHERE f.catalog_seq <= $1"
        );
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&find.as_of];
        let mut and = |condition: &str, value| {
            values.push(value);
            // Writing to a string can't fail.
            let _ = write!(sql, " AND {condition} ${}", values.len());
        };
        let names = [
            ("d.reason =", reason),
            ("d.stage =", stage),
            ("d.gateway =", gateway),
            ("d.fleet =", fleet),
            ("d.device_id =", device),
        ];
        for (condition, value) in names {
            if let Some(value) = value {
                and(condition, value);
            }
        }
        if let Some(state) = &state {
            and("d.state =", state);
        }
        if let Some(from) = from {
            and("d.append_time >=", from);
        }
        if let Some(to) = to {
            and("d.append_time <", to);
        }
        let (sign, direction) = match find.order {
            Order::NewestFirst => ("<", "DESC"),
            Order::OldestFirst => (">", "ASC"),
        };
        if let Some((time, letter_id)) = &find.after {
            values.push(time);
            values.push(letter_id);
            let (time, id) = (values.len() - 1, values.len());
            let _ = write!(sql, " AND (d.append_time, d.letter_id) {sign} (${time}, ${id})");
        }
        values.push(&limit);
        let _ = write!(
            sql,
            " ORDER BY d.append_time {direction}, d.letter_id {direction} LIMIT ${}",
            values.len()
        );
        in_time(async {
            let rows = self.client().await?.query(&sql, &values).await?;
            Ok(rows.iter().map(letter).collect())
        })
        .await
    }

    /// The letters at these places, in no order; those that are not there are left out.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn dead_letters_at(
        &self,
        places: &[Place],
    ) -> Result<Vec<IndexedLetter>, StoreError> {
        let topics: Vec<&str> = places.iter().map(|place| place.topic.as_str()).collect();
        let partitions: Vec<i32> = places.iter().map(|place| place.partition).collect();
        let offsets: Vec<i64> = places.iter().map(|place| place.offset).collect();
        in_time(async {
            let sql = format!(
                "SELECT {COLUMNS} FROM unnest($1::text[], $2::int4[], $3::int8[]) AS w (t, p, o) \
                 JOIN dead_letter d ON (d.topic, d.\"partition\", d.\"offset\") = (w.t, w.p, w.o) \
                 JOIN raw_file f USING (file_id)"
            );
            let rows = self.client().await?.query(&sql, &[&topics, &partitions, &offsets]).await?;
            Ok(rows.iter().map(letter).collect())
        })
        .await
    }
}

fn letter(row: &Row) -> IndexedLetter {
    let (partition, offset) = (row.get(2), row.get(3));
    let entry = IndexEntry {
        partition,
        offset,
        append_time: row.get(7),
        first_seen: row.get(8),
        stage: row.get(9),
        reason: row.get(10),
        detail_preview: row.get(11),
        fleet: row.get(12),
        gateway: row.get(13),
        epoch: row.get(14),
        seq: row.get(15),
        schema_version: row.get(16),
        attempts: row.get(17),
        device_id: row.get(18),
        event_id: row.get(19),
        event_time: row.get(20),
        payload_bytes: row.get(21),
        resolvable: row.get(28),
    };
    IndexedLetter {
        letter_id: row.get(0),
        place: Place { topic: row.get(1), partition, offset },
        at: RowPlace { path: row.get(4), bytes: row.get(5), row: row.get(6) },
        entry,
        // The table checks the names.
        state: State::from_name(row.get(22)).unwrap_or(State::Open),
        replays: row.get(23),
        replayed_at: row.get(24),
        resolved_at: row.get(25),
        refusal: row.get(26),
        refused_at: row.get(27),
    }
}
