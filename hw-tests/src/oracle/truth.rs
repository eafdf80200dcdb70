//! What the stored results must be, computed naively from what stands on the topics: every event
//! once, every value of every window in a list. The checker compares the same records with what
//! the devices were told, byte by byte, so that this is what was told.
//!
//! It assumes that no device uses an id twice for different events; the simulated ones don't.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::Context;
use penstock_common::codec;
use penstock_common::event::{Flags, Provenance, UnixMicros};
use penstock_common::topic::Topic;
use rdkafka::message::{BorrowedMessage, Message};
use serde_json::Value;
use uuid::Uuid;

use super::{Places, topics};
use crate::stack::repo_dir;

/// The distinct events on `raw-events`, and the numbers on both topics.
#[derive(Debug, Default)]
pub struct Truth {
    /// By device, then id: the copy that counts.
    pub events: BTreeMap<String, HashMap<[u8; 16], TrueEvent>>,
    /// Everything ever numbered that arrived as an event.
    pub raw_numbers: HashSet<Provenance>,
    /// Everything ever numbered that arrived as a dead letter.
    pub dead_numbers: HashSet<Provenance>,
    /// Partition and offset of every dead letter.
    pub dead_letters: BTreeSet<(i32, i64)>,
}

/// The copy of an event that counts: the one received first.
#[derive(Clone, Debug)]
pub struct TrueEvent {
    received: (UnixMicros, Provenance),
    /// Its timestamp, or the received time where the device's clock was ahead.
    pub effective_time: UnixMicros,
    /// The metrics that its schema knows.
    pub metrics: Vec<(String, f64)>,
}

/// The values of every window of one length, unsorted: by series and begin (µs).
pub type Windows = BTreeMap<Series, BTreeMap<i64, Vec<f64>>>;

/// Device (empty for the whole fleet) and metric.
pub type Series = (String, String);

impl Truth {
    /// Reads both topics from beginning to end. Blocking.
    ///
    /// # Errors
    /// When a topic or the schemas can't be read, or a record is not what the contract says.
    pub fn read(places: &Places) -> anyhow::Result<Self> {
        let known = known_metrics()?;
        let mut truth = Self::default();
        let mut first_error = None;
        let raw = Topic::RawEvents.name(&places.topic_prefix);
        topics::read_topic(&places.kafka, &raw, |message| {
            let place = || format!("{raw}/{}/{}", message.partition(), message.offset());
            let held = truth.event(message, &known).with_context(place);
            first_error = first_error.take().or(held.err());
        })?;
        let dead = Topic::DeadLetter.name(&places.topic_prefix);
        topics::read_topic(&places.kafka, &dead, |message| {
            truth.dead_letters.insert((message.partition(), message.offset()));
            match codec::decode_dead_letter(topics::headers(message)) {
                Ok(meta) => drop(truth.dead_numbers.insert(meta.provenance)),
                Err(error) => first_error = first_error.take().or(Some(error.into())),
            }
        })?;
        first_error.map_or(Ok(truth), Err)
    }

    fn event(
        &mut self,
        message: &BorrowedMessage<'_>,
        known: &BTreeMap<u32, BTreeSet<String>>,
    ) -> anyhow::Result<()> {
        let meta = codec::decode_event(topics::headers(message))?;
        let event: Value = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let text = |name: &str| event[name].as_str().with_context(|| format!("no {name}"));
        let event_id = Uuid::try_parse(text("event_id")?)?.into_bytes();
        let timestamp = UnixMicros::parse_rfc3339(text("timestamp")?).context("timestamp")?;
        let known = known.get(&meta.schema_version).context("an unknown schema version")?;
        let metrics = event["metrics"].as_object().context("no metrics")?;
        let metrics = metrics
            .iter()
            .filter(|(name, _)| known.contains(*name))
            .map(|(name, value)| Ok((name.clone(), value.as_f64().context("no number")?)))
            .collect::<anyhow::Result<_>>()?;
        let ahead = meta.flags.contains(Flags::CLOCK_AHEAD);
        self.raw_numbers.insert(meta.provenance.clone());
        let copy = TrueEvent {
            effective_time: if ahead { meta.received_at } else { timestamp },
            received: (meta.received_at, meta.provenance),
            metrics,
        };
        match self.events.entry(text("device_id")?.to_owned()).or_default().entry(event_id) {
            Entry::Vacant(place) => drop(place.insert(copy)),
            Entry::Occupied(mut held) => {
                if copy.received < held.get().received {
                    held.insert(copy);
                }
            }
        }
        Ok(())
    }

    /// How many distinct events there are.
    pub fn distinct(&self) -> u64 {
        self.events.values().map(|events| events.len() as u64).sum()
    }

    /// All values by window of `length` µs, for every device and for the fleet.
    pub fn windows(&self, length: i64) -> Windows {
        let mut windows = Windows::new();
        for (device, events) in &self.events {
            for event in events.values() {
                let begin = event.effective_time.0.div_euclid(length) * length;
                for (metric, value) in &event.metrics {
                    for device in [device.as_str(), ""] {
                        let series = windows.entry((device.to_owned(), metric.clone()));
                        series.or_default().entry(begin).or_default().push(*value);
                    }
                }
            }
        }
        windows
    }
}

/// The names of metrics by schema version, from the schema files themselves.
fn known_metrics() -> anyhow::Result<BTreeMap<u32, BTreeSet<String>>> {
    let mut known = BTreeMap::new();
    for version in 1.. {
        let path = repo_dir()?.join("schemas").join(format!("v{version}.json"));
        if !path.exists() {
            break;
        }
        let schema: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let metrics = schema["properties"]["metrics"]["properties"].as_object();
        let metrics = metrics.with_context(|| format!("no metrics in {}", path.display()))?;
        known.insert(version, metrics.keys().cloned().collect());
    }
    anyhow::ensure!(!known.is_empty(), "no schema was found");
    Ok(known)
}
