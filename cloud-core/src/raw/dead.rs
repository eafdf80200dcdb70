//! Poison: a record that can never be stored becomes a dead letter with all that is known (N4).

use std::borrow::Cow;
use std::collections::BTreeMap;

use penstock_common::codec::{Headers, decode_event, encode_dead_letter};
use penstock_common::event::{DeadLetterMeta, Epoch, EventMeta, Provenance, SourceOffset};
use serde::Serialize;

use super::batch::Poison;
use crate::bus::Record;

const STAGE: &str = "core.raw";
/// What a header that can't be read is replaced by.
const UNKNOWN: &str = "unknown";
/// Of each original header so many bytes are kept in `detail`.
const HEADER_BYTES_MAX: usize = 1_024;
/// So many original headers are kept.
const HEADERS_MAX: usize = 32;

/// A dead letter on its way.
#[derive(Clone, Debug)]
pub struct Dead {
    /// The original key.
    pub key: Option<Vec<u8>>,
    /// The original bytes.
    pub payload: Vec<u8>,
    /// Its headers.
    pub headers: Headers,
    /// Its reason.
    pub reason: &'static str,
    /// Its number, if that can be read: the ledger then knows it for a dead letter.
    pub number: Option<Provenance>,
}

impl Dead {
    /// The memory it holds.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(_, value)| value.len() + 40).sum();
        size_of::<Self>() + self.payload.len() + self.key.as_ref().map_or(0, Vec::len) + headers
    }
}

#[derive(Serialize)]
struct Detail<'a> {
    error: String,
    headers: BTreeMap<&'a str, Cow<'a, str>>,
}

/// The dead letter of a poison record.
pub fn dead_letter(topic: &str, record: &Record, poison: &Poison) -> Dead {
    let meta = decode_event(record.headers()).ok();
    let is_numbered = meta.is_some()
        || text(record, "epoch").parse::<Epoch>().is_ok()
            && text(record, "seq").parse::<u64>().is_ok();
    let headers = record.headers().take(HEADERS_MAX).map(|(name, value)| {
        (name, String::from_utf8_lossy(&value[..value.len().min(HEADER_BYTES_MAX)]))
    });
    let detail = Detail { error: poison.to_string(), headers: headers.collect() };
    let source = SourceOffset {
        topic: topic.to_owned(),
        partition: record.partition,
        offset: record.offset,
    };
    let meta = DeadLetterMeta {
        stage: STAGE.into(),
        reason: poison.reason().into(),
        detail: serde_json::to_string(&detail).unwrap_or_default(),
        schema_version: meta.as_ref().map(|meta| meta.schema_version),
        fleet: meta.as_ref().map_or_else(|| text(record, "fleet").into(), |m| m.fleet.clone()),
        first_seen: meta.as_ref().map_or(record.append_time, |meta| meta.received_at),
        attempts: poison.attempts(),
        source: Some(source),
        traceparent: meta.as_ref().and_then(|meta| meta.traceparent.clone()),
        provenance: provenance(record, meta),
    };
    Dead {
        key: record.key().map(<[u8]>::to_vec),
        payload: record.payload().to_vec(),
        headers: encode_dead_letter(&meta),
        number: is_numbered.then_some(meta.provenance),
        reason: poison.reason(),
    }
}

/// As much of it as can be read; epoch 0 is no gateway's.
fn provenance(record: &Record, meta: Option<EventMeta>) -> Provenance {
    meta.map_or_else(
        || Provenance {
            gateway: text(record, "gateway").into(),
            epoch: text(record, "epoch").parse().unwrap_or(Epoch(0)),
            seq: text(record, "seq").parse().unwrap_or(0),
        },
        |meta| meta.provenance,
    )
}

fn text<'a>(record: &'a Record, name: &str) -> &'a str {
    let mut found = record.headers().filter(|(known, _)| *known == name);
    found.next().and_then(|(_, value)| std::str::from_utf8(value).ok()).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::batch::Batch;
    use penstock_common::codec::decode_dead_letter;
    use penstock_common::event::UnixMicros;

    fn poison(record: &Record) -> DeadLetterMeta {
        let poison = Batch::default().push(record, 88).unwrap_err();
        let dead = dead_letter("t", record, &poison);
        assert_eq!((&*dead.payload, dead.key.as_deref()), (record.payload(), record.key()));
        decode_dead_letter(dead.headers.iter().map(|(name, value)| (*name, value.as_bytes())))
            .unwrap()
    }

    #[test]
    fn without_any_header_the_source_and_the_bytes_are_there() {
        let meta = poison(&Record::new((3, 9), UnixMicros(5), None, b"\xff", []));
        assert_eq!((meta.stage.as_str(), meta.reason.as_str()), (STAGE, "unreadable_headers"));
        assert_eq!((&*meta.fleet, meta.first_seen), (UNKNOWN, UnixMicros(5)));
        let source = SourceOffset { topic: "t".into(), partition: 3, offset: 9 };
        assert_eq!(meta.source, Some(source));
    }

    #[test]
    fn readable_headers_are_kept_even_when_another_is_broken() {
        let headers = [
            ("format", b"1".as_slice()),
            ("fleet", b"press"),
            ("gateway", b"plant"),
            ("epoch", b"00000000000000ff"),
            ("seq", b"x"),
        ];
        let meta = poison(&Record::new((0, 0), UnixMicros(5), Some(b"d"), b"{}", headers));
        assert_eq!((&*meta.fleet, &*meta.provenance.gateway), ("press", "plant"));
        assert_eq!(meta.provenance.epoch, Epoch(255));
        assert!(meta.detail.contains(r#""seq":"x""#), "{}", meta.detail);
    }
}
