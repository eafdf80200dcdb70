//! What must have been shown, from the topic itself, against what the streams showed.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use hdrhistogram::Histogram;
use penstock_common::codec;
use penstock_common::event::UnixMicros;
use penstock_common::topic::Topic;
use rdkafka::message::{BorrowedMessage, Message};
use serde_json::Value;

use super::follow::{Key, Seen, Stream, Whose};
use crate::oracle::{Places, topics};

/// Beside the first and the last event so much time is left out: no second there is whole.
const EDGE_MS: i64 = 3_000;
const SECOND_MS: i64 = 1_000;

/// An event's way so far, µs since the Unix epoch.
#[derive(Clone, Copy, Debug)]
struct Way {
    received: i64,
    appended: i64,
}

/// Everything that was sent.
pub(super) struct Expected {
    /// By what a stream shows of it; few are measured in the same millisecond.
    points: HashMap<Key, Vec<Way>>,
    pub(super) events: u64,
    /// When the first and the last event were received, ms.
    received_ms: (i64, i64),
}

/// Times of one leg, µs.
pub(super) type Leg = Histogram<u64>;

/// What was found.
pub(super) struct Judged {
    /// From the reception to being shown: streams of devices, of groups.
    pub(super) devices: Leg,
    pub(super) groups: Leg,
    /// Of these: from the reception to the append on the bus, and from there to being shown.
    pub(super) to_bus: Leg,
    pub(super) from_bus: Leg,
    /// From the end of a second to its mean.
    pub(super) means: Leg,
    pub(super) streams: usize,
    pub(super) expected: u64,
    pub(super) invisible: u64,
    /// Shown more often than sent.
    pub(super) spurious: u64,
    pub(super) means_missing: u64,
    pub(super) said_ms_max: u32,
    pub(super) begun_anew: u32,
    pub(super) examples: Vec<String>,
}

impl Expected {
    /// Reads the topic. Blocking.
    pub(super) fn read(places: &Places) -> anyhow::Result<Self> {
        let mut expected =
            Self { points: HashMap::new(), events: 0, received_ms: (i64::MAX, i64::MIN) };
        let mut names: HashMap<String, Arc<str>> = HashMap::new();
        let mut first_error = None;
        let topic = Topic::RawEvents.name(&places.topic_prefix);
        topics::read_topic(&places.kafka, &topic, |message| {
            let held = expected.event(message, &mut names);
            first_error = first_error.take().or(held.err());
        })?;
        first_error.map_or(Ok(expected), Err)
    }

    fn event(
        &mut self,
        message: &BorrowedMessage<'_>,
        names: &mut HashMap<String, Arc<str>>,
    ) -> anyhow::Result<()> {
        let meta = codec::decode_event(topics::headers(message))?;
        let appended = message.timestamp().to_millis().context("no append time")? * 1_000;
        let way = Way { received: meta.received_at.0, appended };
        let event: Value = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let text = |name: &str| event[name].as_str().with_context(|| format!("no {name}"));
        let at_ms = UnixMicros::parse_rfc3339(text("timestamp")?).context("timestamp")?.0 / 1_000;
        let mut name =
            |text: &str| Arc::clone(names.entry(text.to_owned()).or_insert_with(|| text.into()));
        let device = name(text("device_id")?);
        for metric in event["metrics"].as_object().context("no metrics")?.keys() {
            let key = (Arc::clone(&device), name(metric), at_ms);
            self.points.entry(key).or_default().push(way);
        }
        self.events += 1;
        let (first, last) = self.received_ms;
        let received_ms = way.received.div_euclid(1_000);
        self.received_ms = (first.min(received_ms), last.max(received_ms));
        Ok(())
    }

    fn of<'a>(&'a self, whose: &'a Whose) -> impl Iterator<Item = (&'a Key, &'a Vec<Way>)> {
        self.points.iter().filter(|((device, metric, _), _)| match whose {
            Whose::Device(name) => **device == **name,
            Whose::Group { members, metric: of, .. } => {
                **metric == **of && members.contains(&**device)
            }
            Whose::Fleet { .. } => false,
        })
    }

    /// How much of what a stream follows it has not shown yet.
    pub(super) fn invisible(&self, stream: &Stream) -> usize {
        stream.look(|seen| {
            let shown = |key: &Key| seen.points.get(key).map_or(0, Vec::len);
            self.of(&stream.whose).map(|(key, ways)| ways.len().saturating_sub(shown(key))).sum()
        })
    }
}

impl Judged {
    pub(super) fn new() -> anyhow::Result<Self> {
        let leg = || Histogram::new_with_bounds(1, 600_000_000, 3).context("a histogram");
        Ok(Self {
            devices: leg()?,
            groups: leg()?,
            to_bus: leg()?,
            from_bus: leg()?,
            means: leg()?,
            streams: 0,
            expected: 0,
            invisible: 0,
            spurious: 0,
            means_missing: 0,
            said_ms_max: 0,
            begun_anew: 0,
            examples: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, expected: &Expected, whose: &Whose, mut seen: Seen) {
        self.streams += 1;
        self.said_ms_max = self.said_ms_max.max(seen.said_ms_max);
        self.begun_anew += seen.snapshots.saturating_sub(1);
        if let Whose::Fleet { metric } = whose {
            return self.add_means(expected, metric, &seen);
        }
        for (key, ways) in expected.of(whose) {
            let shown = seen.points.remove(key).unwrap_or_default();
            self.expected += ways.len() as u64;
            self.invisible += ways.len().saturating_sub(shown.len()) as u64;
            if shown.len() < ways.len() && self.examples.len() < 5 {
                self.examples.push(format!("{key:?} in the stream of {whose:?}"));
            }
            self.spurious += shown.len().saturating_sub(ways.len()) as u64;
            for (way, shown) in ways.iter().zip(shown) {
                let leg = if matches!(whose, Whose::Device(_)) {
                    &mut self.devices
                } else {
                    &mut self.groups
                };
                record(leg, way.received, shown);
                record(&mut self.to_bus, way.received, way.appended);
                record(&mut self.from_bus, way.appended, shown);
            }
        }
        self.spurious += seen.points.values().map(|shown| shown.len() as u64).sum::<u64>();
    }

    /// Every second while events came must have its mean. What a device measured long before it
    /// sent it is in no mean.
    fn add_means(&mut self, expected: &Expected, metric: &str, seen: &Seen) {
        let metric: Arc<str> = metric.into();
        let (first, last) = expected.received_ms;
        let first = (first + EDGE_MS).div_euclid(SECOND_MS) * SECOND_MS;
        let last = last.saturating_sub(EDGE_MS);
        for second in (first..last).step_by(SECOND_MS as usize) {
            match seen.points.get(&("".into(), Arc::clone(&metric), second)) {
                Some(shown) => {
                    let end = (second + SECOND_MS) * 1_000;
                    shown.iter().take(1).for_each(|at| record(&mut self.means, end, *at));
                }
                None => self.means_missing += 1,
            }
        }
    }
}

/// Clocks of one machine: what seems to be negative is its rounding to milliseconds.
fn record(leg: &mut Leg, from: i64, to: i64) {
    leg.saturating_record((to - from).max(1).unsigned_abs());
}
