//! Entries that follow from their id.

use std::sync::Arc;

use bytes::Bytes;
use penstock_common::event::{Flags, UnixMicros};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::spool::entry::{DeadLetterEntry, Entry, EventEntry};
use crate::spool::evicted;

pub(super) fn entry(id: u64) -> Entry {
    let mut rng = ChaCha8Rng::seed_from_u64(id);
    let length = match rng.random_range(0..20) {
        0 => 0,
        1 => rng.random_range(0..2_000),
        _ => rng.random_range(0..150),
    };
    let mut payload = id.to_le_bytes().to_vec();
    // Compressible, but different for each id.
    payload.extend((0..length).map(|i| (id as u8).wrapping_add((i / 7) as u8)));
    let (fleet, first_seen): (Arc<str>, _) = ("f".into(), UnixMicros(id as i64));
    let payload = Bytes::from(payload);
    if rng.random_bool(0.1) {
        return Entry::DeadLetter(DeadLetterEntry {
            device_id: None,
            stage: "gateway.admit".into(),
            reason: "schema_violation".into(),
            detail: "{}".into(),
            schema_version: None,
            fleet,
            first_seen,
            traceparent: None,
            payload,
        });
    }
    Entry::Event(EventEntry {
        device_id: format!("device-{}", id % 3),
        schema_version: 2,
        fleet,
        received_at: first_seen,
        flags: Flags::NONE,
        traceparent: None,
        payload,
    })
}

/// What was handed out: the id, and whether it came as one that gave way. Everything else must be
/// as it was submitted.
pub(super) fn identify(given: &Entry) -> Result<(u64, bool), String> {
    let payload = match given {
        Entry::Event(event) => &event.payload,
        Entry::DeadLetter(letter) => &letter.payload,
    };
    let id = payload.first_chunk().map(|id| u64::from_le_bytes(*id));
    let id = id.ok_or_else(|| format!("a spurious entry: {given:?}"))?;
    let submitted = entry(id);
    if *given == submitted {
        return Ok((id, false));
    }
    let is_evicted = match (given, &submitted) {
        (Entry::DeadLetter(letter), Entry::Event(event)) => {
            let expected = DeadLetterEntry {
                device_id: Some(event.device_id.clone()),
                stage: evicted::STAGE.into(),
                reason: evicted::SPOOL_FULL.into(),
                detail: letter.detail.clone(),
                schema_version: Some(event.schema_version),
                fleet: event.fleet.clone(),
                first_seen: event.received_at,
                traceparent: None,
                payload: event.payload.clone(),
            };
            *letter == expected && letter.detail.contains("hard limit")
        }
        _ => false,
    };
    if is_evicted { Ok((id, true)) } else { Err(format!("altered: {given:?}, was {submitted:?}")) }
}
