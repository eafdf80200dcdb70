//! Dead letters over HTTP: the list, a single one with its bytes, and replays.
//!
//! - `list.rs`: `GET /v1/dead-letters`
//! - `one.rs`: `GET /v1/dead-letters/{id}`
//! - `replay.rs`: `POST /v1/dead-letters/replay`

mod cursor;
pub(super) mod list;
pub(super) mod one;
pub(super) mod replay;

use penstock_common::event::{Epoch, UnixMicros};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::dead_letters::IndexedLetter;
use crate::store::dead_letters::find::Filter;

/// The filter's parameters.
const FILTERS: [&str; 8] = ["reason", "stage", "gateway", "fleet", "device", "state", "from", "to"];

/// What cursors and replays belong to: everything but the limit.
fn identify(filter: &Filter, order: &str) -> String {
    format!("dead-letters {order} {filter:?}")
}

/// Reads one parameter of a filter into it.
fn set(filter: &mut Filter, name: &str, value: &str) -> Result<(), String> {
    use crate::store::dead_letters::State;
    let text = || {
        if value.contains('\0') {
            return Err(format!("{name}: must not contain NUL"));
        }
        Ok(Some(value.to_owned()))
    };
    let time = || match UnixMicros::parse_rfc3339(value) {
        Ok(time) => Ok(Some(time.0)),
        Err(error) => Err(format!(
            "{name}: not an RFC 3339 time ({error}); e.g. {name}=2026-01-31T08:00:00Z, and a + of \
             an offset is written %2B in a URL"
        )),
    };
    match name {
        "reason" => filter.reason = text()?,
        "stage" => filter.stage = text()?,
        "gateway" => filter.gateway = text()?,
        "fleet" => filter.fleet = text()?,
        "device" => filter.device = text()?,
        "from" => filter.from = time()?,
        "to" => filter.to = time()?,
        "state" => {
            let known = State::ALL.map(State::name).join(", ");
            let state = State::from_name(value);
            filter.state = Some(state.ok_or(format!("state: want one of {known}"))?);
        }
        _ => return Err(format!("{name}: unknown; known are {}", FILTERS.join(", "))),
    }
    Ok(())
}

/// What only the whole filter shows.
fn check(filter: &Filter) -> Result<(), String> {
    match (filter.from, filter.to) {
        (Some(from), Some(to)) if from >= to => {
            Err("from: must be before to, which is not included".into())
        }
        _ => Ok(()),
    }
}

/// A letter as the index knows it.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterSummary)]
struct Summary<'a> {
    id: String,
    state: &'static str,
    stage: &'a str,
    reason: &'a str,
    fleet: &'a str,
    gateway: &'a str,
    epoch: String,
    seq: i64,
    device_id: Option<&'a str>,
    event_id: Option<Uuid>,
    timestamp: Option<String>,
    schema_version: Option<i32>,
    attempts: i64,
    first_seen: String,
    appended_at: String,
    payload_bytes: i64,
    replays: i32,
    replayed_at: Option<String>,
    resolved_at: Option<String>,
    refused_at: Option<String>,
    /// Why the last replay refused it.
    #[schema(value_type = Option<Object>)]
    refusal: Option<Value>,
}

fn time(micros: i64) -> String {
    UnixMicros(micros).to_rfc3339()
}

fn summary(letter: &IndexedLetter) -> Summary<'_> {
    let entry = &letter.entry;
    Summary {
        id: letter.place.to_string(),
        state: letter.state.name(),
        stage: &entry.stage,
        reason: &entry.reason,
        fleet: &entry.fleet,
        gateway: &entry.gateway,
        epoch: Epoch(entry.epoch.cast_unsigned()).to_string(),
        seq: entry.seq,
        device_id: entry.device_id.as_deref(),
        event_id: entry.event_id,
        timestamp: entry.event_time.map(time),
        schema_version: entry.schema_version,
        attempts: entry.attempts,
        first_seen: time(entry.first_seen),
        appended_at: time(entry.append_time),
        payload_bytes: entry.payload_bytes,
        replays: letter.replays,
        replayed_at: letter.replayed_at.map(time),
        resolved_at: letter.resolved_at.map(time),
        refused_at: letter.refused_at.map(time),
        refusal: letter.refusal.as_deref().and_then(|json| serde_json::from_str(json).ok()),
    }
}
