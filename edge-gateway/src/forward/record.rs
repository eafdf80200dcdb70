//! A spool entry as a message on the bus.

use std::sync::Arc;

use penstock_common::codec;
use penstock_common::event::{DeadLetterMeta, EventMeta, Provenance};
use penstock_common::topic::Topic;

use super::OutboundRecord;
use crate::spool::SpooledEntry;
use crate::spool::entry::Entry;

/// Names the entry by (gateway, epoch, seq) and puts what is known of it into headers. The
/// payload is moved, never touched.
pub fn outbound(gateway: &Arc<str>, spooled: SpooledEntry) -> OutboundRecord {
    let provenance =
        Provenance { gateway: gateway.clone(), epoch: spooled.epoch, seq: spooled.seq };
    match spooled.entry {
        Entry::Event(event) => OutboundRecord {
            topic: Topic::RawEvents,
            headers: codec::encode_event(&EventMeta {
                schema_version: event.schema_version,
                fleet: event.fleet,
                provenance,
                received_at: event.received_at,
                flags: event.flags,
                traceparent: event.traceparent,
            }),
            key: Some(event.device_id),
            payload: event.payload,
        },
        Entry::DeadLetter(letter) => OutboundRecord {
            topic: Topic::DeadLetter,
            headers: codec::encode_dead_letter(&DeadLetterMeta {
                stage: letter.stage,
                reason: letter.reason,
                detail: letter.detail,
                schema_version: letter.schema_version,
                fleet: letter.fleet,
                provenance,
                first_seen: letter.first_seen,
                attempts: 1,
                source: None,
                traceparent: letter.traceparent,
            }),
            key: letter.device_id,
            payload: letter.payload,
        },
    }
}
