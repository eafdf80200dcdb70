//! One publisher: a schedule for each of its devices, one connection after the other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use penstock_common::clock::{Clock, SystemClock};
use penstock_common::retry::Backoff;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::log::{Log, State};
use super::saves::{Ack, Saves};
use super::{MqttFleetConfig, MqttTally, events_topic};
use crate::fleet::device::{Batch, Device, Item};
use crate::oracle::record::{Told, ToldDevice};

/// Messages that are published and not acknowledged.
const OPEN_MAX: usize = 40;
/// Messages that it remembers; beyond it the schedule waits, as a device's memory is bounded too.
const REMEMBERED_MAX: usize = 4_000;
const SESSION_EXPIRY_S: u32 = 3_600;
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);

struct Publisher {
    config: Arc<MqttFleetConfig>,
    name: String,
    saves: Saves,
    tally: Arc<MqttTally>,
    devices: Vec<Scheduled>,
    log: Log<Message>,
}

struct Scheduled {
    device: Device,
    told: ToldDevice,
    topic: String,
    next: Instant,
}

/// A message, and the events in it.
struct Message {
    device: usize,
    batch: Batch,
    records: Vec<u32>,
}

/// How a connection ended.
enum End {
    /// After the stop, with everything acknowledged.
    Settled,
    /// By itself.
    Broken,
    /// It was none.
    NotThere,
}

pub(super) async fn run(
    config: Arc<MqttFleetConfig>,
    number: u32,
    saves: Saves,
    tally: Arc<MqttTally>,
    stop: CancellationToken,
) -> Vec<ToldDevice> {
    let is_careful = config.half_careful && number.is_multiple_of(2);
    let fleet = &config.fleet;
    let (start, period) = (Instant::now(), period(&config));
    let devices = (number..fleet.devices).step_by(config.publishers as usize).map(|number| {
        let mut device = Device::new(fleet, number);
        let told = ToldDevice::new(device.id.clone());
        let topic = events_topic(&fleet.fleet, &device.id);
        let next = start + period.mul_f64(device.fraction());
        Scheduled { device, told, topic, next }
    });
    let devices = devices.collect();
    let name = format!("publisher-{:x}-{number}", fleet.seed);
    let log = Log::new(is_careful);
    let mut publisher = Publisher { config, name, saves, tally, devices, log };
    let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX);
    loop {
        match publisher.connect(&stop).await {
            End::Settled => return publisher.finish(),
            End::Broken => backoff.reset(),
            End::NotThere => {}
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// The mean time between two messages of a device.
fn period(config: &MqttFleetConfig) -> Duration {
    let fleet = &config.fleet;
    let mean = (fleet.batch_min + fleet.batch_max) as f64 / 2.0;
    Duration::from_secs_f64(f64::from(fleet.devices) / fleet.rate * mean)
}

impl Publisher {
    /// One connection, to its end, or until everything is settled after the stop.
    async fn connect(&mut self, stop: &CancellationToken) -> End {
        let since = std::time::Instant::now();
        let (host, port) = &self.config.broker;
        let mut options = MqttOptions::new(&self.name, host, *port);
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
            .set_max_packet_size(Some(1 << 20))
            .set_keep_alive(Duration::from_secs(5))
            .set_outgoing_inflight_upper_limit(OPEN_MAX as u16 + 1);
        let (client, mut eventloop) = AsyncClient::new(options, OPEN_MAX);
        let (events, mut received) = mpsc::unbounded_channel();
        // A poll must not be dropped half-way, so it has a task of its own.
        let _polling = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok(event) = eventloop.poll().await {
                if events.send(event).is_err() {
                    return;
                }
            }
        }));
        let mut requested = VecDeque::new();
        let mut numbers = HashMap::new();
        let mut is_in = false;
        loop {
            if is_in {
                self.publish(&client, &mut requested);
                if stop.is_cancelled() && self.log.is_settled() {
                    return End::Settled;
                }
            }
            let next = self.devices.iter().map(|device| device.next).min();
            let is_paused = stop.is_cancelled() || self.log.len() >= REMEMBERED_MAX;
            let later = Instant::now() + RECONNECT_MAX;
            let due = next.filter(|_| !is_paused).unwrap_or(later);
            let event = tokio::select! {
                event = received.recv() => event,
                () = tokio::time::sleep_until(due) => {
                    if !is_paused {
                        self.measure();
                    }
                    continue;
                }
            };
            match event {
                None if is_in => return End::Broken,
                None => return End::NotThere,
                Some(Event::Incoming(Packet::ConnAck(_))) => {
                    self.tally.connections.add(1);
                    // Only now is it known whether the broker had crashed.
                    self.look_back();
                    is_in = true;
                }
                Some(Event::Outgoing(Outgoing::Publish(pkid))) => {
                    // Sent in the order of the requests.
                    if let Some(number) = requested.pop_front() {
                        numbers.insert(pkid, number);
                    }
                }
                Some(Event::Incoming(Packet::PubAck(puback))) => {
                    let Some(number) = numbers.remove(&puback.pkid) else { continue };
                    if puback.reason == PubAckReason::Success {
                        self.tally.acknowledged.add(1);
                        let at = std::time::Instant::now();
                        self.log.acknowledged(number, Ack { since, at });
                        self.forget_done();
                    } else {
                        // It stays unacknowledged, and comes again with the next connection.
                        self.tally.refused.add(1);
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// Makes the messages that are due.
    fn measure(&mut self) {
        let config = &self.config.fleet;
        let (now, period) = (Instant::now(), period(&self.config));
        for (position, scheduled) in self.devices.iter_mut().enumerate() {
            if scheduled.next > now {
                continue;
            }
            scheduled.next += period;
            let size = scheduled.device.next_size(config);
            let batch = scheduled.device.next_batch(config, size, SystemClock.now());
            let records = batch.items.iter().map(|item| match item {
                Item::New { record, .. } => scheduled.told.sending(record),
                Item::Again(index) => *index,
            });
            let records = records.collect();
            self.log.push(Message { device: position, batch, records });
            self.tally.messages.add(1);
        }
    }

    fn publish(&mut self, client: &AsyncClient, requested: &mut VecDeque<usize>) {
        while self.log.published() < OPEN_MAX
            && let Some((number, message)) = self.log.next_waiting()
        {
            let Message { device, batch, .. } = message;
            let encoding = batch.compression.content_encoding();
            let properties = PublishProperties {
                content_type: Some(batch.framing.content_type().to_owned()),
                user_properties: encoding
                    .map(|encoding| ("content-encoding".to_owned(), encoding.to_owned()))
                    .into_iter()
                    .collect(),
                correlation_data: Some(format!("{} {number}", self.name).into()),
                ..PublishProperties::default()
            };
            let topic = &self.devices[*device].topic;
            let (qos, body) = (QoS::AtLeastOnce, batch.body.clone());
            if client.try_publish_with_properties(topic, qos, false, body, properties).is_ok() {
                requested.push_back(number);
            }
        }
    }

    /// What of the last connection must be published again?
    fn look_back(&mut self) {
        let again = self.log.broken(|message, ack| self.saves.fate(&message.batch.body, ack));
        self.tally.repeated.add(again.unacknowledged);
        self.tally.repeated_unsaved.add(again.unsaved);
        self.tally.forgotten.add(again.forgotten.len() as u64);
        if !again.forgotten.is_empty() {
            let (name, forgotten) = (&self.name, &again.forgotten);
            println!("{name} {forgotten:?}: acknowledged by a broker that never saved them");
        }
        self.forget_done();
    }

    fn forget_done(&mut self) {
        for entry in self.log.take_done(|message, ack| self.saves.fate(&message.batch.body, ack)) {
            told(&mut self.devices, &entry.message, entry.state);
        }
    }

    fn finish(mut self) -> Vec<ToldDevice> {
        for entry in self.log.into_entries() {
            told(&mut self.devices, &entry.message, entry.state);
        }
        self.devices.into_iter().map(|scheduled| scheduled.told).collect()
    }
}

/// Notes what can be relied on.
fn told(devices: &mut [Scheduled], message: &Message, state: State) {
    // The broker lives on, so what it has acknowledged last counts as well.
    if !matches!(state, State::Acknowledged(_) | State::Kept) {
        return;
    }
    for (item, index) in message.batch.items.iter().zip(&message.records) {
        let fault = match item {
            Item::New { record, .. } => record.fault,
            Item::Again(_) => None,
        };
        let fate = fault.map_or(Told::Accepted, |fault| Told::Rejected(format!("{fault:?}")));
        devices[message.device].told.told(*index, &fate);
    }
}
