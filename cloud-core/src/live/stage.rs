//! The loop: what the tail brings goes into the window and to those who follow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use penstock_common::clock::Clock;
use penstock_common::codec::decode_event;
use penstock_common::event::effective_time;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, Following, Wanted};
use super::freshness::{Delays, Freshness};
use super::window::{Sample, Window};
use super::{LiveConfig, WINDOW_MS};
use crate::bus::kafka::{KafkaConfig, Piece, Tailed, tail};
use crate::bus::{BusError, Record};
use crate::raw::parse::parse;
use crate::rollup::counted::CountedMetrics;

/// How often old events are forgotten when nothing comes.
const TICK: Duration = Duration::from_secs(1);
/// The rate is that of the last so many seconds.
const RATE_SECONDS: usize = 5;

/// The live view; clones share it.
#[derive(Clone)]
pub struct Live {
    inner: Arc<Mutex<Inner>>,
    metrics: CountedMetrics,
    config: LiveConfig,
}

/// What is behind the lock, so that window and feed never disagree.
pub struct Inner {
    /// The last five minutes.
    pub window: Window,
    feed: Feed,
    freshness: Freshness,
    /// Events of the last whole seconds, the present one last.
    rate: Vec<(i64, u64)>,
    /// Whether the first five minutes have been read.
    pub has_rewound: bool,
    /// The offset after the newest record seen, by partition.
    pub ends: BTreeMap<i32, i64>,
}

/// What is kept of a record.
struct Taken {
    fleet: Arc<str>,
    device: Arc<str>,
    sample: Arc<Sample>,
    appended_ms: i64,
}

impl Inner {
    /// The delays of the last seconds.
    pub fn delays(&mut self, now_ms: i64) -> Option<Delays> {
        self.freshness.delays(now_ms)
    }

    /// Events a second over the last whole seconds.
    pub fn events_per_second(&self, now_ms: i64) -> f64 {
        let second = now_ms.div_euclid(1_000);
        let span = second - RATE_SECONDS as i64..second;
        let events: u64 =
            self.rate.iter().filter(|(at, _)| span.contains(at)).map(|(_, n)| n).sum();
        events as f64 / RATE_SECONDS as f64
    }

    fn count(&mut self, appended_ms: i64) {
        let second = appended_ms.div_euclid(1_000);
        match self.rate.iter_mut().rev().find(|(at, _)| *at == second) {
            Some((_, events)) => *events += 1,
            None => {
                self.rate.push((second, 1));
                let newest = self.rate.iter().map(|(at, _)| *at).max().unwrap_or(second);
                self.rate.retain(|(at, _)| *at > newest - 2 * RATE_SECONDS as i64);
            }
        }
    }
}

impl Live {
    /// An empty one.
    pub fn new(metrics: CountedMetrics, config: LiveConfig) -> Self {
        let inner = Inner {
            window: Window::new(config.events_max),
            feed: Feed::default(),
            freshness: Freshness::default(),
            rate: Vec::new(),
            has_rewound: false,
            ends: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), metrics, config }
    }

    /// The metrics that it keeps.
    pub const fn metrics(&self) -> &CountedMetrics {
        &self.metrics
    }

    /// A look inside; short, for the stage waits meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows devices from now on; none when too many do.
    pub fn follow(&self, wanted: Wanted) -> Option<Following> {
        self.lock().feed.follow(wanted, self.config.streams_max)
    }

    /// Reads the bus until `stop`.
    ///
    /// # Errors
    /// When the tail ends; whoever runs this begins anew.
    pub async fn run(
        &self,
        kafka: &KafkaConfig,
        topic: &str,
        clock: &dyn Clock,
        stop: CancellationToken,
    ) -> Result<(), BusError> {
        {
            let mut inner = self.lock();
            inner.window.clear();
            inner.has_rewound = false;
            inner.feed.lose_all();
        }
        let since = Duration::from_millis(WINDOW_MS.unsigned_abs());
        let mut records = tail(kafka, topic, since)?;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = tick.tick() => self.lock().window.advance(clock.now().0 / 1_000),
                tailed = next(&mut records) => match tailed? {
                    Piece::Begins(begins) => self.lock().ends = begins.into_iter().collect(),
                    Piece::Records(records) => self.take(&records, clock.now().0 / 1_000),
                },
            }
        }
    }

    fn take(&self, records: &[Record], now_ms: i64) {
        let read: Vec<_> = records.iter().filter_map(|record| self.read(record)).collect();
        let mut inner = self.lock();
        inner.ends.extend(records.iter().map(|record| (record.partition, record.offset + 1)));
        let newest = records.iter().map(|record| record.append_time.0 / 1_000).max();
        // Once what comes is of the present, what lies before it has been read.
        inner.has_rewound |= newest.is_some_and(|newest| newest >= now_ms - 1_000);
        for Taken { fleet, device, sample, appended_ms } in read {
            if !inner.window.insert(&fleet, &device, Sample::clone(&sample)) {
                continue;
            }
            inner.count(appended_ms);
            if inner.has_rewound {
                inner.freshness.visible(appended_ms, now_ms);
            }
            inner.feed.publish(&fleet, &device, &sample);
        }
    }

    /// What is kept of a record; none of one that can't be read, which the raw writer buries.
    fn read(&self, record: &Record) -> Option<Taken> {
        let meta = decode_event(record.headers()).ok()?;
        let parsed = parse(record.payload()).ok()?;
        let time = effective_time(parsed.event_time, meta.received_at, meta.flags);
        let values = parsed.metrics.iter().filter_map(|(name, value)| {
            Some((self.metrics.metric(meta.schema_version, name)?, *value))
        });
        let sample = Sample {
            at_ms: time.0.div_euclid(1_000),
            event_id: parsed.event_id.as_u128(),
            values: values.collect(),
        };
        let appended_ms = record.append_time.0.div_euclid(1_000);
        let device = parsed.device_id.as_ref().into();
        Some(Taken { fleet: meta.fleet, device, sample: Arc::new(sample), appended_ms })
    }
}

async fn next(records: &mut mpsc::Receiver<Tailed>) -> Tailed {
    let ended = || BusError { message: "the tail has ended".into(), retryable: true };
    records.recv().await.unwrap_or_else(|| Err(ended()))
}
