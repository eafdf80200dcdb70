//! The oracle's reader of topics, on a real broker.

use std::time::Duration;

use hw_tests::oracle::checker::{Checker, Tolerance};
use hw_tests::oracle::record::{Fingerprint, NewRecord, Told, ToldDevice, ToldFleet};
use hw_tests::oracle::topics;
use hw_tests::oracle::verdict::Verdict;
use hw_tests::stack::{StackConfig, kafka};
use penstock_common::codec::{self, Headers};
use penstock_common::event::{DeadLetterMeta, Epoch, EventMeta, Flags, Provenance, UnixMicros};
use penstock_common::topic::Topic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use uuid::Uuid;

const DEVICES: u8 = 7;
const EVENTS_EACH: u64 = 500;

fn id(device: u8, n: u64) -> Uuid {
    Uuid::from_u64_pair(u64::from(device) + 1, n + 1)
}

fn payload(device: u8, n: u64) -> Vec<u8> {
    let id = id(device, n);
    format!(r#"{{"event_id":"{id}","device_id":"d{device}", "n" : {n} }}"#).into_bytes()
}

/// Every 50th event was rejected.
fn is_rejected(n: u64) -> bool {
    n % 50 == 7
}

fn told() -> ToldFleet {
    let devices = (0..DEVICES).map(|device| {
        let mut told = ToldDevice::new(format!("d{device}"));
        for n in 0..EVENTS_EACH {
            let index = told.sending(&NewRecord {
                event_id: id(device, n).into_bytes(),
                fingerprint: Fingerprint::of(&payload(device, n)),
                fault: is_rejected(n).then_some(hw_tests::fleet::Fault::WrongType),
            });
            let fate = if is_rejected(n) { Told::Rejected("/x".into()) } else { Told::Accepted };
            told.told(index, &fate);
        }
        told
    });
    ToldFleet { fleet: "f".into(), devices: devices.collect() }
}

fn provenance(seq: u64) -> Provenance {
    Provenance { gateway: "g".into(), epoch: Epoch(1), seq }
}

fn event_headers(seq: u64) -> Headers {
    codec::encode_event(&EventMeta {
        schema_version: 1,
        fleet: "f".into(),
        provenance: provenance(seq),
        received_at: UnixMicros(1),
        flags: Flags::NONE,
        traceparent: None,
    })
}

fn dead_headers(seq: u64) -> Headers {
    codec::encode_dead_letter(&DeadLetterMeta {
        stage: "gateway.admit".into(),
        reason: "schema_violation".into(),
        detail: "{}".into(),
        schema_version: None,
        fleet: "f".into(),
        provenance: provenance(seq),
        first_seen: UnixMicros(1),
        attempts: 1,
        source: None,
        traceparent: None,
    })
}

struct Sender {
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    prefix: String,
}

impl Sender {
    fn send(&self, topic: Topic, key: &str, headers: Headers, payload: &[u8]) {
        let name = topic.name(&self.prefix);
        let owned = headers.iter().fold(OwnedHeaders::new(), |owned, (key, value)| {
            owned.insert(Header { key, value: Some(value) })
        });
        let record = BaseRecord::to(&name).key(key).payload(payload).headers(owned);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }
}

/// Topics of this test, filled as a correct pipeline does, and then with `more`.
async fn verdict_after(more: impl FnOnce(&Sender)) -> Verdict {
    let kafka = StackConfig::from_env("topics").unwrap().kafka;
    let prefix = format!("t-{:08x}.", rand::random::<u32>());
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &kafka);
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let names = [Topic::RawEvents, Topic::DeadLetter].map(|topic| topic.name(&prefix));
    let new = names.iter().map(|name| NewTopic::new(name, 5, TopicReplication::Fixed(1)));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    for created in admin.create_topics(&new.collect::<Vec<_>>(), &options).await.unwrap() {
        created.unwrap();
    }
    let producer =
        client.set("enable.idempotence", "true").set("compression.type", "zstd").create().unwrap();
    let sender = Sender { producer, prefix: prefix.clone() };
    for n in 0..EVENTS_EACH {
        for device in 0..DEVICES {
            let key = format!("d{device}");
            let payload = payload(device, n);
            if is_rejected(n) {
                sender.send(Topic::DeadLetter, &key, dead_headers(n), &payload);
            } else {
                sender.send(Topic::RawEvents, &key, event_headers(n), &payload);
            }
        }
    }
    more(&sender);
    sender.producer.flush(Duration::from_secs(30)).unwrap();

    let told = told();
    let verdict = tokio::task::block_in_place(|| {
        let mut checker = Checker::new(&told, Tolerance::default());
        for device in &told.devices {
            for record in device.records.iter().filter(|record| record.fault.is_none()) {
                let event_id = Uuid::from_bytes(record.event_id);
                let (device_number, n) = event_id.as_u64_pair();
                let payload = payload((device_number - 1) as u8, n - 1);
                checker.stored(&device.device_id, &event_id.to_string(), &payload);
            }
        }
        topics::read(&kafka, &prefix, &told, &mut checker).unwrap();
        checker.finish()
    });
    kafka::delete_topics(&kafka, &prefix).await.unwrap();
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_on_the_topics_is_read_once_and_in_order() {
    let verdict = verdict_after(|_| {}).await;
    assert!(verdict.holds(), "{verdict}");
    let total = u64::from(DEVICES) * EVENTS_EACH;
    assert_eq!((verdict.sent, verdict.dead_lettered), (total, total / 50));
    assert_eq!((verdict.transport_duplicates, verdict.dead_letter_copies), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_should_not_be_there_is_found() {
    let verdict = verdict_after(|sender| {
        let raw = |key: &str, headers, payload: &[u8]| {
            sender.send(Topic::RawEvents, key, headers, payload);
        };
        raw("d1", event_headers(9), &payload(1, 0)); // a copy
        raw("d1", event_headers(9), &payload(1, 7)); // rejected
        raw("d1", event_headers(9), &payload(1, EVENTS_EACH)); // never sent
        raw("d1", event_headers(9), &payload(2, 0)); // another's key
        raw("d1", Vec::new(), &payload(1, 0)); // no headers
        sender.send(Topic::DeadLetter, "d1", dead_headers(9), &payload(1, 0)); // accepted
    })
    .await;
    assert_eq!(verdict.transport_duplicates, 1, "{verdict}");
    assert_eq!(verdict.spurious, 2, "{verdict}");
    assert_eq!(verdict.malformed, 2, "{verdict}");
    assert_eq!(verdict.dead_letters_spurious, 1, "{verdict}");
    // The rejected one comes after later events of its device.
    assert_eq!(verdict.out_of_order, 1, "{verdict}");
}

#[test]
fn a_topic_that_does_not_exist_is_an_error() {
    let kafka = StackConfig::from_env("topics").unwrap().kafka;
    let error = topics::end_offsets(&kafka, "no-such-topic").unwrap_err();
    assert!(format!("{error:#}").contains("no-such-topic"), "{error:#}");
}
