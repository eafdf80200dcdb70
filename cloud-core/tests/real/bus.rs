//! Positions that the bus does not have any more, and tails that have none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use cloud_core::bus::kafka::{KafkaConsumer, Piece, tail};
use cloud_core::bus::{BusError, Consumer, ConsumerEvent, Watermarks};
use cloud_core::raw::ROLE;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::events::fleet;
use crate::support::{PARTITIONS, Rig, Sent, Store, eventually};

/// Deletes all records before these, as retention does.
async fn delete_before(rig: &Rig, offset: impl Fn(i32) -> i64) {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &rig.kafka.bootstrap).create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let offset = Offset::Offset(offset(partition));
        list.add_partition_offset(&rig.topic(), partition, offset).unwrap();
    }
    client.delete_records(&list, &AdminOptions::new()).await.unwrap();
}

fn end(sent: &[Sent], partition: i32) -> i64 {
    let mine = sent.iter().filter(|one| one.partition == partition);
    mine.map(|one| one.offset + 1).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_counted_as_lost_and_the_rest_is_stored() {
    let rig = Rig::new(Store::Directory).await;
    let running = rig.start();
    let first = rig.send(&fleet(20, 10)).await;
    rig.drained(&first).await;
    running.stop().await;

    // While no writer runs, the bus deletes 3 records of each partition that nobody has read.
    let second = rig.send(&fleet(20, 10)).await;
    delete_before(&rig, |partition| end(&first, partition) + 3).await;
    let running = rig.start();
    rig.drained(&second).await;
    assert_eq!(running.source.lost.get(), 3 * u64::from(PARTITIONS.unsigned_abs()));
    running.stop().await;
    let is_deleted = |one: &&Sent| one.offset >= end(&first, one.partition) + 3;
    let kept: Vec<Sent> =
        first.iter().cloned().chain(second.iter().filter(is_deleted).cloned()).collect();
    assert_eq!(kept.len(), first.len() + second.len() - 3 * PARTITIONS as usize);
    rig.assert_stored_exactly_rows(&kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_begins_at_the_log_start_without_calling_it_loss() {
    let rig = Rig::new(Store::Directory).await;
    let sent = rig.send(&fleet(20, 10)).await;
    delete_before(&rig, |_| 5).await;
    let running = rig.start();
    rig.drained(&sent).await;
    assert_eq!(running.source.lost.get(), 0);
    running.stop().await;
    let kept: Vec<Sent> = sent.into_iter().filter(|one| one.offset >= 5).collect();
    rig.assert_stored_exactly(&kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_after_the_end_begins_anew() {
    let rig = Rig::new(Store::Directory).await;
    let client = rig.database.client().await;
    let ahead = "INSERT INTO consumer_position (role, topic, \"partition\", next_offset, generation) \
                 SELECT $1, $2, p, 1000000, 5 FROM generate_series(0, $3) p";
    client.execute(ahead, &[&ROLE, &rig.topic(), &(PARTITIONS - 1)]).await.unwrap();
    let sent = rig.send(&fleet(20, 10)).await;
    let running = rig.start();
    eventually("all are stored", async || rig.catalog.totals().await.unwrap().rows >= 200).await;
    assert_eq!(running.source.ahead.get(), u64::from(PARTITIONS.unsigned_abs()));
    running.stop().await;
    rig.assert_stored_exactly(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_says_when_its_position_is_gone() {
    let rig = Rig::new(Store::Directory).await;
    rig.send(&fleet(20, 10)).await;
    delete_before(&rig, |_| 5).await;
    let mut consumer = KafkaConsumer::open(&rig.kafka, &rig.group(), &rig.topic()).unwrap();
    loop {
        match consumer.next().await {
            ConsumerEvent::Assigned { assignment, partitions } => {
                let too_early = partitions.iter().map(|partition| (*partition, 2)).collect();
                consumer.start(assignment, &too_early);
            }
            ConsumerEvent::PositionLost => break,
            other => panic!("{other:?}"),
        }
    }
    Box::new(consumer).close().await;
}

/// A real consumer that tells of a lost position once it has passed on enough.
struct LosesPosition {
    inner: KafkaConsumer,
    after: usize,
}

#[async_trait]
impl Consumer for LosesPosition {
    fn topic(&self) -> &str {
        self.inner.topic()
    }

    async fn next(&mut self) -> ConsumerEvent {
        if self.after == 0 {
            return ConsumerEvent::PositionLost;
        }
        let event = self.inner.next().await;
        if let ConsumerEvent::Records(batch) = &event {
            self.after = self.after.saturating_sub(batch.records.len());
        }
        event
    }

    async fn next_control(&mut self) -> ConsumerEvent {
        self.inner.next_control().await
    }

    async fn watermarks(&self, partitions: &[i32]) -> Result<Vec<Watermarks>, BusError> {
        self.inner.watermarks(partitions).await
    }

    fn start(&self, assignment: u64, positions: &BTreeMap<i32, i64>) {
        self.inner.start(assignment, positions);
    }

    fn commit(&self, positions: &BTreeMap<i32, i64>) {
        self.inner.commit(positions);
    }

    fn known_ends(&self) -> BTreeMap<i32, i64> {
        self.inner.known_ends()
    }

    async fn close(self: Box<Self>) {
        Box::new(self.inner).close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_stored_when_the_position_is_gone() {
    let mut rig = Rig::new(Store::Directory).await;
    rig.raw.flush_interval_ms = 3_600_000;
    let sent = rig.send(&fleet(20, 10)).await;
    let inner = KafkaConsumer::open(&rig.kafka, &rig.group(), &rig.topic()).unwrap();
    let running = rig.start_on(Box::new(LosesPosition { inner, after: 200 }));
    let error = running.task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("deciding positions anew"), "{error:#}");
    rig.assert_stored_exactly(&sent).await;
}

/// The live view begins while gateways forward: an empty partition must not be begun behind what
/// comes between two questions (spec L2).
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_begins_while_records_come_misses_none() {
    for delay_ms in [0, 2, 5, 10, 20, 40] {
        let rig = Rig::new(Store::Directory).await;
        let mut pieces = tail(&rig.kafka, &rig.topic(), Duration::from_secs(300)).unwrap();
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        let sent = rig.send(&fleet(40, 20)).await;
        let wanted: BTreeSet<_> = sent.iter().map(|one| (one.partition, one.offset)).collect();
        let mut seen = BTreeSet::new();
        let reading = async {
            while seen.len() < wanted.len() {
                if let Piece::Records(records) = pieces.recv().await.unwrap().unwrap() {
                    seen.extend(records.iter().map(|one| (one.partition, one.offset)));
                }
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(30), reading).await;
        assert!(read.is_ok(), "{delay_ms} ms: {} of {} came", seen.len(), wanted.len());
        assert_eq!(seen, wanted);
    }
}
