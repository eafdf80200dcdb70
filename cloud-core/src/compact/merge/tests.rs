use std::collections::BTreeMap;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use penstock_common::codec::encode_event;
use penstock_common::event::{Epoch, EventMeta, Flags, Provenance, UnixMicros};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::bus::Record;
use crate::query::row::{Rows, StoredEvent};
use crate::raw::batch::Batch;
use crate::raw::encode::encode;

#[derive(Clone, Debug)]
struct Given {
    id: u128,
    device: u8,
    second: i64,
    delay_s: i64,
    gateway: &'static str,
    seq: u64,
    value: u8,
}

impl Given {
    fn record(&self) -> Record {
        let time = UnixMicros(self.second * 1_000_000);
        let received_at = UnixMicros(time.0 + self.delay_s * 1_000_000);
        let payload = format!(
            r#"{{"event_id":"{}","device_id":"d{}","timestamp":"{}","metrics":{{"m":{}}},"device_firmware_version":"1.0.0"}}"#,
            Uuid::from_u128(self.id),
            self.device,
            time.to_rfc3339(),
            self.value,
        );
        let headers = encode_event(&EventMeta {
            schema_version: 1,
            fleet: "f".into(),
            provenance: Provenance { gateway: self.gateway.into(), epoch: Epoch(7), seq: self.seq },
            received_at,
            flags: Flags::of_times(time, received_at),
            traceparent: None,
        });
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        Record::new((0, 0), UnixMicros(9_000), None, payload.as_bytes(), headers)
    }
}

fn given() -> impl Strategy<Value = Given> {
    let gateway = prop_oneof![Just("g1"), Just("g2")];
    (0..12_u128, 0..3_u8, 0..5_i64, prop_oneof![0..5_i64, Just(-100)], gateway, 0..3_u64, 0..2_u8)
        .prop_map(|(id, device, second, delay_s, gateway, seq, value)| Given {
            id,
            device,
            second,
            delay_s,
            gateway,
            seq,
            value,
        })
}

/// The batches of a file, small ones.
fn batches(rows: &[Given], batch_rows: usize) -> Vec<RecordBatch> {
    let mut batch = Batch::default();
    for row in rows {
        batch.push(&row.record(), 88).unwrap();
    }
    let Some(file) = encode(&batch).unwrap().pop() else { return Vec::new() };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.bytes).unwrap();
    builder.with_batch_size(batch_rows).build().unwrap().collect::<Result<_, _>>().unwrap()
}

fn merged(files: &[Vec<Given>], batch_rows: usize) -> (Vec<StoredEvent>, Vec<Dropped>) {
    let mut inputs: Vec<_> =
        files.iter().map(|rows| batches(rows, batch_rows).into_iter()).collect();
    let mut merger = Merger::new(inputs.len());
    let (mut events, mut dropped) = (Vec::new(), Vec::new());
    loop {
        match merger.step().unwrap() {
            Step::Need(input) => merger.feed(input, inputs[input].next()).unwrap(),
            Step::Rows(batch) => {
                let rows = Rows(&batch);
                events.extend((0..rows.len()).map(|row| rows.event(row).unwrap()));
            }
            Step::Done => break,
        }
        dropped.extend(merger.take_dropped());
    }
    dropped.extend(merger.take_dropped());
    (events, dropped)
}

/// The same by sorting everything.
fn naive(files: &[Vec<Given>]) -> (Vec<StoredEvent>, usize, usize) {
    let (mut all, _) = merged_one_by_one(files);
    all.sort_by_key(|e| (e.device_id.clone(), e.event_id, e.precedence()));
    let mut kept: BTreeMap<(String, Uuid), StoredEvent> = BTreeMap::new();
    let (mut dropped, mut conflicts) = (0, 0);
    for event in all {
        let identity = (event.device_id.clone(), event.event_id);
        match kept.get(&identity) {
            None => drop(kept.insert(identity, event)),
            Some(first) => {
                dropped += 1;
                conflicts += usize::from(first.payload != event.payload);
            }
        }
    }
    let mut events: Vec<StoredEvent> = kept.into_values().collect();
    events.sort_by_key(|e| (e.device_id.clone(), e.effective_time, e.event_id));
    (events, dropped, conflicts)
}

/// Every row of every file, without any merging.
fn merged_one_by_one(files: &[Vec<Given>]) -> (Vec<StoredEvent>, usize) {
    let all = files.iter().flat_map(|file| batches(file, 1_000));
    let events: Vec<StoredEvent> = all
        .flat_map(|batch| {
            let rows = Rows(&batch);
            (0..rows.len()).map(|row| rows.event(row).unwrap()).collect::<Vec<_>>()
        })
        .collect();
    let count = events.len();
    (events, count)
}

proptest! {
    #[test]
    fn merging_keeps_the_canonical_copies_in_order(
        files in prop::collection::vec(prop::collection::vec(given(), 0..20), 0..6),
        batch_rows in 1..7_usize,
    ) {
        // No gateway uses a number twice.
        let mut files = files;
        (0..).zip(files.iter_mut().flatten()).for_each(|(seq, row)| row.seq = seq);
        let (events, dropped) = merged(&files, batch_rows);
        let (expected, dropped_count, conflicts) = naive(&files);
        prop_assert_eq!(events, expected);
        prop_assert_eq!(dropped.len(), dropped_count);
        prop_assert_eq!(dropped.iter().filter(|d| d.conflict.is_some()).count(), conflicts);
    }
}

#[test]
fn many_rows_are_given_out_in_parts_and_none_is_lost() {
    let files: Vec<Vec<Given>> = (0..3_u128)
        .map(|file| {
            (0..9_000_u128)
                .map(|n| Given {
                    id: file * 100_000 + n,
                    device: (n % 200) as u8,
                    second: (n / 200) as i64,
                    delay_s: 1,
                    gateway: "g1",
                    seq: n as u64,
                    value: 1,
                })
                .collect()
        })
        .collect();
    let (events, dropped) = merged(&files, 512);
    assert_eq!((events.len(), dropped.len()), (27_000, 0));
    let place = |e: &StoredEvent| (e.device_id.clone(), e.effective_time, e.event_id);
    assert!(events.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])));
}

#[test]
fn a_copy_with_other_bytes_says_what_counts_instead() {
    let one = Given { id: 1, device: 1, second: 1, delay_s: 1, gateway: "g1", seq: 4, value: 0 };
    let other = Given { delay_s: 3, gateway: "g2", seq: 9, value: 1, ..one.clone() };
    let (events, dropped) = merged(&[vec![other.clone()], vec![one.clone()]], 10);
    assert_eq!(events.len(), 1);
    assert_eq!((&*events[0].gateway, events[0].seq), ("g1", 4));
    let [copy] = &dropped[..] else { panic!("{dropped:?}") };
    let conflict = copy.conflict.as_ref().unwrap();
    assert_eq!((copy.gateway.as_str(), copy.epoch, copy.seq), ("g2", 7, 9));
    assert_eq!(conflict.kept, ("g1".to_owned(), 7, 4));
    assert_eq!(conflict.payload.as_bytes(), other.record().payload());
    assert_eq!((conflict.device.as_str(), conflict.fleet.as_str()), ("d1", "f"));
}
