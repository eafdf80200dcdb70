use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use penstock_common::codec::encode_event;
use penstock_common::event::{Epoch, EventMeta, Provenance, UnixMicros};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::bus::Record;
use crate::query::prune::{Wanted, selections};
use crate::query::row::{Rows, StoredEvent};
use crate::raw::schema::{PAGE_ROWS, ROW_GROUP_ROWS_MAX};

#[derive(Clone, Debug)]
struct Given {
    id: u128,
    device: String,
    time: i64,
    delay: i64,
    gateway: &'static str,
    seq: u64,
    metrics: Vec<(String, f64)>,
}

impl Given {
    fn record(&self, offset: i64) -> Record {
        let (time, received_at) = (UnixMicros(self.time), UnixMicros(self.time + self.delay));
        let metrics: Vec<String> = self
            .metrics
            .iter()
            .map(|(name, value)| format!("{}:{value:?}", serde_json::to_string(name).unwrap()))
            .collect();
        let payload = format!(
            r#"{{"event_id":"{}","device_id":{},"timestamp":"{}","metrics":{{{}}},"device_firmware_version":"2.0.{}"}}"#,
            Uuid::from_u128(self.id),
            serde_json::to_string(&self.device).unwrap(),
            time.to_rfc3339(),
            metrics.join(","),
            self.seq % 2,
        );
        let gateway = self.gateway.into();
        let headers = encode_event(&EventMeta {
            schema_version: 2,
            fleet: "f".into(),
            provenance: Provenance { gateway, epoch: Epoch(u64::MAX >> 1), seq: self.seq },
            received_at,
            flags: Flags::of_times(time, received_at),
            traceparent: None,
        });
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        Record::new((0, offset), UnixMicros(9_000), None, payload.as_bytes(), headers)
    }
}

fn batch(given: &[Given]) -> Batch {
    let mut batch = Batch::default();
    for (offset, one) in (0..).zip(given) {
        batch.push(&one.record(offset), 88).unwrap();
    }
    batch
}

fn read(encoded: &Encoded) -> Vec<StoredEvent> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(encoded.bytes.clone()).unwrap();
    let mut events = Vec::new();
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let rows = Rows(&batch);
        events.extend((0..rows.len()).map(|row| rows.event(row).unwrap()));
    }
    events
}

fn given() -> impl Strategy<Value = Given> {
    let names = vec!["cpu_temp", "vibration_rms", "a\"é\\"];
    let metrics = prop::collection::btree_map(prop::sample::select(names), any::<f64>(), 0..3);
    let device = prop::sample::select(vec!["d", "d1", "D", "é", "a\"b\\", ""]);
    let gateway = prop::sample::select(vec!["g", "g2"]);
    let delay = -100_000_000i64..100_000_000;
    (0u128..4, device, -5i64..5, delay, gateway, 0u64..3, metrics).prop_map(
        |(id, device, time, delay, gateway, seq, metrics)| Given {
            id,
            device: device.into(),
            time: time * 1_000_001,
            delay,
            gateway,
            seq,
            metrics: metrics
                .into_iter()
                .filter(|(_, value)| value.is_finite())
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        },
    )
}

proptest! {
    #[test]
    fn every_column_comes_back_in_the_order_of_the_file(
        given in prop::collection::vec(given(), 1..60),
    ) {
        let encoded = encode(&batch(&given)).unwrap().remove(0);
        let events = read(&encoded);
        let place = |e: &StoredEvent| {
            (e.device_id.clone(), e.key(), e.precedence())
        };
        prop_assert!(events.windows(2).all(|pair| place(&pair[0]) <= place(&pair[1])));
        prop_assert_eq!(encoded.rows, given.len());
        let effective = events.iter().map(|e| e.effective_time.0);
        prop_assert_eq!(Some(encoded.min_effective), effective.clone().min());
        prop_assert_eq!(Some(encoded.max_effective), effective.max());
        let ahead = events.iter().filter(|e| e.flags.contains(Flags::CLOCK_AHEAD)).count();
        prop_assert_eq!(encoded.clock_ahead_count, ahead);

        let mut payloads: Vec<String> = events.iter().map(|e| e.payload.clone()).collect();
        let mut sent: Vec<String> = (0..)
            .zip(&given)
            .map(|(n, one)| String::from_utf8(one.record(n).payload().to_vec()).unwrap())
            .collect();
        payloads.sort();
        sent.sort();
        prop_assert_eq!(payloads, sent);
        for event in &events {
            let same = given.iter().any(|one| {
                (one.id, &one.device, one.time) == (event.event_id.as_u128(), &event.device_id, event.event_time.0)
                    && event.received_at.0 == one.time + one.delay
                    && (one.gateway, one.seq.cast_signed()) == (&*event.gateway, event.seq)
                    && one.metrics == event.metrics
                    && event.firmware == format!("2.0.{}", one.seq % 2)
            });
            prop_assert!(same, "{event:?}");
            prop_assert_eq!(event.epoch, Epoch(u64::MAX >> 1));
            prop_assert_eq!(event.append_time, UnixMicros(9_000));
        }
    }
}

#[test]
fn an_empty_batch_is_no_file() {
    assert!(encode(&Batch::default()).unwrap().is_empty());
}

/// A minute of 25,000 devices, six events each: more than one row group.
fn minute() -> (Encoded, usize) {
    let devices = 25_000;
    let given = (0..devices * 6).map(|n| Given {
        id: n as u128,
        device: format!("dev-{:05}", n % devices),
        time: 1_000_000 * (n / devices) as i64,
        delay: 1,
        gateway: "g",
        seq: n as u64,
        metrics: vec![("cpu_temp".into(), n as f64)],
    });
    let batch = batch(&given.collect::<Vec<_>>());
    (encode(&batch).unwrap().remove(0), batch.rows().len())
}

#[test]
fn a_device_is_found_by_a_page_of_a_large_file() {
    let (encoded, rows) = minute();
    assert!(rows > ROW_GROUP_ROWS_MAX);
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(encoded.bytes, options).unwrap();
    assert_eq!(builder.metadata().num_row_groups(), 2);
    let count = |device: &str, from: i64, to: i64| {
        let wanted = Wanted { devices: &[device], from, to, ahead_from: None };
        let selected = selections(builder.metadata(), &wanted);
        selected.iter().map(|group| group.selection().unwrap().row_count()).sum::<usize>()
    };
    for device in ["dev-00000", "dev-12345", "dev-24999"] {
        let found = count(device, i64::MIN, i64::MAX);
        assert!((6..=2 * (PAGE_ROWS + 500)).contains(&found), "{device}: {found} rows");
    }
    assert_eq!(count("nobody", i64::MIN, i64::MAX), 0);
    assert_eq!(count("dev-12345", 7_000_000, 8_000_000), 0);
}

#[test]
fn metadata_names_the_format() {
    let (encoded, _) = minute();
    let builder = ParquetRecordBatchReaderBuilder::try_new(encoded.bytes).unwrap();
    let metadata = builder.metadata().file_metadata().key_value_metadata().unwrap();
    let format = metadata.iter().find(|entry| entry.key == "penstock.format").unwrap();
    assert_eq!(format.value.as_deref(), Some("1"));
}

#[test]
fn rows_appended_in_two_hours_are_two_files() {
    let hour = 3_600_000_000;
    let mut batch = Batch::default();
    for (offset, append_time) in [(0, hour - 1_000), (1, hour), (2, 5_000), (3, 2 * hour - 1)] {
        let given = Given {
            id: offset,
            device: "d".into(),
            time: 0,
            delay: 1,
            gateway: "g",
            seq: 0,
            metrics: Vec::new(),
        };
        let mut record = given.record(i64::try_from(offset).unwrap());
        record.append_time = UnixMicros(append_time);
        batch.push(&record, 88).unwrap();
    }
    let files = encode(&batch).unwrap();
    let ids = |file| read(file).iter().map(|e| e.event_id.as_u128()).collect::<Vec<_>>();
    let found: Vec<_> = files.iter().map(|file| (file.append_hour, ids(file))).collect();
    assert_eq!(found, [(0, vec![0, 2]), (1, vec![1, 3])]);
    assert!(files.iter().all(|file| file.fleets.iter().map(|(_, rows)| rows).sum::<usize>() == 2));
}
