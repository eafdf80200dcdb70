//! What is really there: read from the files themselves, without the query's rules.

use std::collections::BTreeMap;

use cloud_core::bus::kafka::KafkaConsumer;
use cloud_core::bus::{Consumer, ConsumerEvent, Record};
use cloud_core::query::row::{Rows, StoredEvent};
use futures::TryStreamExt;
use parquet::arrow::ParquetRecordBatchStreamBuilder;

use super::{PARTITIONS, Rig, Sent, word};

impl Rig {
    /// All rows of all published files.
    pub(crate) async fn stored(&self) -> Vec<StoredEvent> {
        let head = self.catalog.head().await.unwrap();
        let mut events = Vec::new();
        for file in self.catalog.files_for(i64::MIN, i64::MAX, head).await.unwrap() {
            let object = self.objects.parquet(&file.path, file.bytes.unsigned_abs());
            let builder = ParquetRecordBatchStreamBuilder::new(object).await.unwrap();
            let batches: Vec<_> = builder.build().unwrap().try_collect().await.unwrap();
            for batch in &batches {
                let rows = Rows(batch);
                events.extend((0..rows.len()).map(|row| rows.event(row).unwrap()));
            }
        }
        events
    }

    /// Every record that was sent is in the files exactly as often as it was sent.
    pub(crate) async fn assert_stored_exactly(&self, sent: &[Sent]) {
        self.assert_stored_exactly_rows(sent).await;
        self.assert_ranges_are_gapless().await;
    }

    /// The rows alone: a batch of nothing but dead letters has no file, and no range.
    pub(crate) async fn assert_stored_exactly_rows(&self, sent: &[Sent]) {
        let count = |payloads: Vec<String>| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for payload in payloads {
                *counts.entry(payload).or_default() += 1;
            }
            counts
        };
        let stored = self.stored().await;
        let wanted = sent.iter().map(|one| String::from_utf8(one.payload.clone()).unwrap());
        let (wanted, found) =
            (count(wanted.collect()), count(stored.into_iter().map(|e| e.payload).collect()));
        let missing = wanted.iter().filter(|(payload, _)| !found.contains_key(*payload)).count();
        let differing = wanted.iter().filter(|(p, n)| found.get(*p).is_some_and(|m| m != *n));
        assert_eq!((missing, differing.count(), found.len()), (0, 0, wanted.len()));
    }

    /// The published ranges of each partition follow each other without gap or overlap, up to the
    /// stored position.
    pub(crate) async fn assert_ranges_are_gapless(&self) {
        let sql = "SELECT count(*) FROM ( \
              SELECT from_offset, lag(to_offset, 1, from_offset) OVER w AS previous, \
                     to_offset, lead(from_offset) OVER w AS next, p.next_offset \
              FROM raw_file_range r JOIN consumer_position p USING (topic, \"partition\") \
              WINDOW w AS (PARTITION BY r.topic, r.\"partition\" ORDER BY from_offset)) ranges \
            WHERE from_offset <> previous OR to_offset <> coalesce(next, next_offset)";
        assert_eq!(self.database.number(sql).await, 0, "ranges with gaps or overlaps");
    }

    /// All records of a topic with that many in all.
    pub(crate) async fn read_topic(&self, topic: &str, count: usize) -> Vec<Record> {
        let group = format!("{}look-{}", self.kafka.topic_prefix, word());
        let mut consumer = KafkaConsumer::open(&self.kafka, &group, topic).unwrap();
        let mut records = Vec::new();
        while records.len() < count {
            match consumer.next().await {
                ConsumerEvent::Assigned { assignment, partitions } => {
                    assert_eq!(partitions.len(), PARTITIONS as usize);
                    let starts = consumer.watermarks(&partitions).await.unwrap();
                    let starts = starts.iter().map(|w| (w.partition, w.low)).collect();
                    consumer.start(assignment, &starts);
                }
                ConsumerEvent::Records(batch) => records.extend(batch.records),
                ConsumerEvent::Revoked { ack, .. } => drop(ack),
                other => panic!("{other:?}"),
            }
        }
        Box::new(consumer).close().await;
        records
    }
}
