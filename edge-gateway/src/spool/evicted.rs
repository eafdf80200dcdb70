//! What had to give way, as dead letters (spec I9, N4): the original bytes under their own number,
//! with the reason.

use penstock_common::log::segment::Moved;

use super::entry::{DeadLetterEntry, Entry};

/// Who gave up on it.
pub const STAGE: &str = "gateway.spool";
/// The oldest events gave way because the spool was at its hard limit.
pub const SPOOL_FULL: &str = "spool_full";

/// An event becomes a dead letter; what was one already keeps its own reason, which tells more.
pub(super) fn dead_letter(entry: Entry, moved: Option<Moved>) -> Entry {
    let Entry::Event(event) = entry else { return entry };
    let moved_at = moved.filter(|moved| *moved != Moved::UNKNOWN).map(|moved| moved.at);
    let detail = serde_json::json!({
        "error": "the gateway's spool was at its hard limit (spool.bytes_max), and the oldest \
                  events gave way to newer ones; the event is valid and can be replayed",
        "moved_at": moved_at.map(|at| at.to_rfc3339()),
        "flags": event.flags.names().collect::<Vec<_>>(),
    });
    Entry::DeadLetter(DeadLetterEntry {
        device_id: Some(event.device_id),
        stage: STAGE.into(),
        reason: SPOOL_FULL.into(),
        detail: detail.to_string(),
        schema_version: Some(event.schema_version),
        fleet: event.fleet,
        first_seen: event.received_at,
        traceparent: event.traceparent,
        payload: event.payload,
    })
}
