//! Events as gateways send them.

use std::sync::Arc;

use futures::future::join_all;
use penstock_common::codec::{Headers, encode_event};
use penstock_common::event::{Epoch, EventMeta, Flags, Provenance, UnixMicros};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use uuid::Uuid;

use super::Rig;

/// An event and its way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) device: String,
    pub(crate) fleet: String,
    pub(crate) time: i64,
    pub(crate) received_at: i64,
    pub(crate) gateway: String,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) cpu_temp: f64,
    pub(crate) extra_metric: Option<&'static str>,
}

/// 2026-01-01T00:00:00Z.
pub(crate) const T0: i64 = 1_767_225_600_000_000;
pub(crate) const SECOND: i64 = 1_000_000;

impl Event {
    /// An event of that device, sent `second` seconds after T0 and received half a second later.
    pub(crate) fn new(device: &str, second: i64) -> Self {
        let time = T0 + second * SECOND;
        Self {
            id: Uuid::new_v4(),
            device: device.into(),
            fleet: "press-line".into(),
            time,
            received_at: time + SECOND / 2,
            gateway: "plant-7".into(),
            epoch: 255,
            seq: second.unsigned_abs(),
            cpu_temp: 40.25,
            extra_metric: None,
        }
    }

    pub(crate) fn flags(&self) -> Flags {
        Flags::of_times(UnixMicros(self.time), UnixMicros(self.received_at))
    }

    pub(crate) fn effective(&self) -> i64 {
        if self.flags().contains(Flags::CLOCK_AHEAD) { self.received_at } else { self.time }
    }

    /// With odd spacing and a field that no schema knows: both must come back.
    pub(crate) fn payload(&self) -> String {
        let time = UnixMicros(self.time).to_rfc3339();
        let Self { id, device, cpu_temp, .. } = self;
        let more = self.extra_metric.map_or(String::new(), |name| format!(", \"{name}\": 1e-3"));
        format!(
            "{{ \"event_id\":\"{id}\", \"device_id\":\"{device}\",\"timestamp\":\"{time}\",\
             \"device_firmware_version\":\"1.2.3\",\"metrics\":{{\"cpu_temp\":{cpu_temp:?}{more}}},\
             \"unknown\":[1, 2.50,\"é\"] }}"
        )
    }

    pub(crate) fn headers(&self) -> Headers {
        encode_event(&EventMeta {
            schema_version: 1,
            fleet: self.fleet.as_str().into(),
            provenance: Provenance {
                gateway: Arc::from(self.gateway.as_str()),
                epoch: Epoch(self.epoch),
                seq: self.seq,
            },
            received_at: UnixMicros(self.received_at),
            flags: self.flags(),
            traceparent: None,
        })
    }
}

/// Events of several devices, ten seconds apart.
pub(crate) fn fleet(devices: usize, each: i64) -> Vec<Event> {
    (0..each)
        .flat_map(|n| (0..devices).map(move |device| Event::new(&format!("dev-{device}"), n * 10)))
        .collect()
}

/// What was sent, and where it is on the bus.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
}

impl Rig {
    pub(crate) async fn send(&self, events: &[Event]) -> Vec<Sent> {
        let each = events
            .iter()
            .map(|event| (event.device.clone(), event.payload().into_bytes(), event.headers()));
        self.send_raw(each.collect()).await
    }

    pub(crate) async fn send_raw(&self, records: Vec<(String, Vec<u8>, Headers)>) -> Vec<Sent> {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka.bootstrap)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .create()
            .unwrap();
        let topic = self.topic();
        let send = async |(key, payload, headers): (String, Vec<u8>, Headers)| {
            let mut owned = OwnedHeaders::new();
            for (key, value) in &headers {
                owned = owned.insert(Header { key, value: Some(value) });
            }
            let record = FutureRecord::to(&topic).key(&key).payload(&payload).headers(owned);
            let delivery = producer.send(record, Timeout::Never).await.unwrap();
            Sent { partition: delivery.partition, offset: delivery.offset, key, payload }
        };
        join_all(records.into_iter().map(send)).await
    }
}
