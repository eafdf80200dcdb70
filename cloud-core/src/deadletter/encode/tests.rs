//! Files read back are the letters that were put in.

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use penstock_common::admit::Identity;
use penstock_common::event::{DeadLetterMeta, Epoch, Provenance, SourceOffset, UnixMicros};
use proptest::prelude::*;

use super::*;
use crate::deadletter::stored::{Columns, read_rows};
use crate::store::object::{Objects, StoreConfig};

const HOUR: i64 = 3_600 * 1_000_000;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

fn meta() -> impl Strategy<Value = DeadLetterMeta> {
    let source = (".{0,9}", 0i32..9, any::<i64>())
        .prop_map(|(topic, partition, offset)| SourceOffset { topic, partition, offset });
    let names = (".{0,20}", ".{0,20}", ".{0,300}", ".{0,20}", ".{0,20}");
    let numbers = (0u64..=i64::MAX.unsigned_abs(), 0u64..=i64::MAX.unsigned_abs(), any::<u32>());
    let optional = (
        prop::option::of(0u32..=i32::MAX.unsigned_abs()),
        prop::option::of(source),
        prop::option::of(".{0,60}"),
        any::<i64>(),
    );
    (names, numbers, optional).prop_map(|(names, numbers, optional)| DeadLetterMeta {
        stage: names.0,
        reason: names.1,
        detail: names.2,
        fleet: names.3.into(),
        provenance: Provenance { gateway: names.4.into(), epoch: Epoch(numbers.0), seq: numbers.1 },
        attempts: numbers.2,
        schema_version: optional.0,
        source: optional.1,
        traceparent: optional.2,
        first_seen: UnixMicros(optional.3),
    })
}

fn letter() -> impl Strategy<Value = Letter> {
    let place = (0i32..4, 0i64..1_000, 0i64..3 * HOUR);
    let identity = (
        prop::option::of(".{0,20}"),
        prop::option::of(any::<u128>()),
        prop::option::of(any::<i64>()),
    );
    let headers = prop::collection::vec((".{0,9}", bytes()), 0..4);
    (place, meta(), identity, headers, prop::option::of(bytes()), bytes()).prop_map(
        |(place, meta, identity, headers, key, payload)| Letter {
            place: SourceOffset { topic: "t".into(), partition: place.0, offset: place.1 },
            append_time: UnixMicros(place.2),
            key,
            payload,
            meta,
            headers,
            identity: Identity {
                device_id: identity.0,
                event_id: identity.1.map(uuid::Uuid::from_u128),
                event_time: identity.2.map(UnixMicros),
            },
        },
    )
}

fn decode(file: &Encoded) -> Vec<Letter> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone()).unwrap();
    let mut letters = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        letters.extend((0..batch.num_rows()).map(|row| Columns(&batch).letter(row).unwrap()));
    }
    letters
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_letter_comes_back_from_the_file_of_its_hour(
        letters in prop::collection::vec(letter(), 0..150),
    ) {
        let files = encode(&letters).unwrap();
        let mut seen = vec![false; letters.len()];
        for file in &files {
            let decoded = decode(file);
            prop_assert_eq!(decoded.len(), file.letters.len());
            for (row, number) in decoded.iter().zip(&file.letters) {
                prop_assert_eq!(row, &letters[*number]);
                prop_assert_eq!(hour_of(row.append_time.0), file.append_hour);
                prop_assert!((file.min_append..=file.max_append).contains(&row.append_time.0));
                prop_assert!(!std::mem::replace(&mut seen[*number], true));
            }
        }
        prop_assert!(seen.into_iter().all(|seen| seen));
        prop_assert!(files.windows(2).all(|pair| pair[0].append_hour < pair[1].append_hour));
    }
}

#[tokio::test]
async fn single_rows_are_read_without_the_others() {
    let place = |offset| SourceOffset { topic: "t".into(), partition: 0, offset };
    let letters: Vec<Letter> = (0..10_000)
        .map(|offset| Letter {
            place: place(offset),
            append_time: UnixMicros(offset),
            key: None,
            payload: format!("payload {offset}").into_bytes(),
            meta: DeadLetterMeta {
                stage: "s".into(),
                reason: "r".into(),
                detail: "{}".into(),
                schema_version: None,
                fleet: "f".into(),
                provenance: Provenance { gateway: "g".into(), epoch: Epoch(1), seq: 0 },
                first_seen: UnixMicros(0),
                attempts: 1,
                source: None,
                traceparent: None,
            },
            headers: Vec::new(),
            identity: Identity::default(),
        })
        .collect();
    let files = encode(&letters).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let objects = Objects::open(&StoreConfig { url, ..StoreConfig::default() }).unwrap();
    objects.put("a.parquet", files[0].bytes.clone()).await.unwrap();
    let wanted = [0, 63, 64, 4_095, 4_096, 9_999, 10_000];
    let size = files[0].bytes.len() as u64;
    let read = read_rows(&objects, "a.parquet", size, &wanted).await.unwrap();
    let offsets: Vec<i64> = read.iter().map(|letter| letter.place.offset).collect();
    assert_eq!(offsets, [0, 63, 64, 4_095, 4_096, 9_999]);
    assert_eq!(read[3], letters[4_095]);
}
