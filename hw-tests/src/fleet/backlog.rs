//! What a gateway that was cut off for long forwards at once when the link is back: the events of
//! many devices over a long time, each device's in order, written to `raw-events` as the forwarder
//! writes them.

use std::time::Duration;

use anyhow::{Context, bail};
use penstock_common::codec;
use penstock_common::event::{Epoch, EventMeta, Flags, Provenance, UnixMicros};
use penstock_common::topic::Topic;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::device::Device;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
/// Which events.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// Everything follows from it.
    pub seed: u64,
    /// The devices' fleet.
    pub fleet: String,
    /// The gateway's name.
    pub gateway: String,
    /// The number of the first device.
    pub first_device: u32,
    /// How many devices.
    pub devices: u32,
    /// The schema version of their events.
    pub schema_version: u32,
    /// The time of the first events.
    pub from: UnixMicros,
    /// Events of each device.
    pub events_each: u32,
    /// Between two events of a device, µs.
    pub interval_micros: i64,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Events.
    pub events: u64,
    /// Their own bytes, without headers.
    pub payload_bytes: u64,
}

impl Backlog {
    /// The id of a device of a backlog.
    pub fn device_id(number: u32) -> String {
        Device::steady(0, number, 1).id
    }

    /// Writes all of it, the devices taking turns. Blocking.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub fn write(&self, kafka: &str, topic_prefix: &str) -> anyhow::Result<Written> {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", kafka)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.codec", "lz4")
            .set("linger.ms", "20")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "262144")
            .create()
            .context("set up a producer")?;
        let topic = Topic::RawEvents.name(topic_prefix);
        let numbers = self.first_device..self.first_device + self.devices;
        let steady = |number| Device::steady(self.seed, number, self.schema_version);
        let mut devices: Vec<Device> = numbers.map(steady).collect();
        let mut written = Written::default();
        let epoch = Epoch::random();
        let mut payload = Vec::new();
        for round in 0..self.events_each {
            let base = self.from.0 + i64::from(round) * self.interval_micros;
            for (number, device) in (0_i64..).zip(&mut devices) {
                // Spread over the interval, as phases are.
                let phase = number * self.interval_micros / i64::from(self.devices);
                let at = UnixMicros(base + phase);
                payload.clear();
                device.event_at(at, &mut payload);
                let headers = self.headers(at, epoch, written.events);
                send(&producer, &topic, &device.id, &payload, &headers)?;
                written.events += 1;
                written.payload_bytes += payload.len() as u64;
            }
        }
        producer.flush(FLUSH_TIMEOUT).context("write the backlog")?;
        Ok(written)
    }

    fn headers(&self, at: UnixMicros, epoch: Epoch, seq: u64) -> OwnedHeaders {
        let gateway = self.gateway.as_str().into();
        let headers = codec::encode_event(&EventMeta {
            schema_version: self.schema_version,
            fleet: self.fleet.as_str().into(),
            provenance: Provenance { gateway, epoch, seq },
            received_at: UnixMicros(at.0 + 50_000),
            flags: Flags::NONE,
            traceparent: None,
        });
        let owned = OwnedHeaders::new_with_capacity(headers.len());
        headers.iter().fold(owned, |owned, (key, value)| {
            owned.insert(Header { key, value: Some(value.as_str()) })
        })
    }
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    key: &str,
    payload: &[u8],
    headers: &OwnedHeaders,
) -> anyhow::Result<()> {
    let mut record = BaseRecord::to(topic).key(key).payload(payload).headers(headers.clone());
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                record = refused;
                std::thread::sleep(Duration::from_millis(2));
            }
            Err((error, _)) => bail!("write the backlog: {error}"),
        }
    }
}
