//! What the rollups make of records: the stream in memory, then a flush.
//!
//! A flush first delivers the dead letters (copies with other bytes), then writes rows, closes,
//! marks and positions in one transaction; both are tried until they succeed. A record that can't
//! be read is passed over: the raw writer, which reads by the same rules, has made a dead letter
//! of it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use anyhow::Context;
use foldhash::fast::FixedState;
use futures::FutureExt;
use futures::future::BoxFuture;
use penstock_common::clock::Clock;
use penstock_common::codec::{decode_event, encode_dead_letter};
use penstock_common::event::{DeadLetterMeta, EventMeta, Provenance, SourceOffset, effective_time};
use tokio::time::Instant;

use super::counted::{CountedMetrics, Metric};
use super::metrics::RollupMetrics;
use super::stream::{Event, Flushed, Held, Limits, Start, Stream};
use super::{ROLE, RollupConfig};
use crate::bus::{Producer, Record};
use crate::raw::batch::is_too_late;
use crate::raw::dead::Dead;
use crate::raw::parse::{Parsed, parse};
use crate::source::patience::until_done;
use crate::source::runner::Sink;
use crate::store::positions::Claim;
use crate::store::publish::{Covered, PublishError};
use crate::store::rollup::{RollupStore, StreamFlush};

const STAGE: &str = "core.rollup";
/// Dead letters held at most; more, and a flush comes early.
const DEAD_MAX: usize = 10_000;
/// Between two flushes at least so much counts as silence of the bus, µs.
const IDLE_STEP_MIN: i64 = 15_000_000;
/// The memory in use is measured once in so many calls of `tick`.
const MEASURE_TICKS: u32 = 10;

/// What the sink needs.
#[derive(Clone)]
pub struct RollupParts {
    /// Where rows go.
    pub store: RollupStore,
    /// Which metrics count.
    pub counted: CountedMetrics,
    /// How it works.
    pub config: RollupConfig,
    /// As the raw writer's: older events are dead letters there.
    pub late_days_max: u32,
    /// For dead letters.
    pub producer: Arc<dyn Producer>,
    /// Where the records come from.
    pub topic: String,
    /// Where dead letters go.
    pub dead_letter_topic: String,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Counted here.
    pub metrics: RollupMetrics,
}

/// The rollups' sink.
pub struct RollupSink {
    parts: RollupParts,
    stream: Stream,
    dead: Vec<Dead>,
    /// Records given up on since the last flush.
    poisoned: Vec<Provenance>,
    due: Option<Instant>,
    ends: BTreeMap<i32, i64>,
    scratch: Vec<(Metric, f64)>,
    ticks: u32,
}

impl RollupSink {
    /// A sink without partitions.
    pub fn new(parts: RollupParts) -> Self {
        let micros = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000);
        let config = &parts.config;
        let limits = Limits {
            lateness: micros(config.lateness_ms),
            provisional_delay: micros(config.provisional_delay_ms),
            idle_step: micros(config.flush_interval_ms.saturating_mul(3)).max(IDLE_STEP_MIN),
            flush_rows: config.flush_rows,
            events_max: config.events_max,
            device_events_max: config.device_events_max,
        };
        let stream = Stream::new(limits, parts.counted.clone());
        Self {
            parts,
            stream,
            dead: Vec::new(),
            poisoned: Vec::new(),
            due: None,
            ends: BTreeMap::new(),
            scratch: Vec::new(),
            ticks: 0,
        }
    }

    fn note_due(&mut self) {
        let interval = Duration::from_millis(self.parts.config.flush_interval_ms);
        self.due.get_or_insert_with(|| Instant::now() + interval);
    }

    /// Holds a record that can be read and is not too late.
    fn take(&mut self, record: &Record) -> Option<Held> {
        let meta = decode_event(record.headers()).ok()?;
        let parsed = parse(record.payload()).ok()?;
        let time = effective_time(parsed.event_time, meta.received_at, meta.flags);
        if is_too_late(time, record.append_time, self.parts.late_days_max) {
            return None;
        }
        self.count_metrics(&parsed, meta.schema_version);
        let event = Event {
            partition: record.partition,
            offset: record.offset,
            append_time: record.append_time.0,
            fleet: &meta.fleet,
            device: &parsed.device_id,
            event_id: parsed.event_id.as_u128(),
            body: FixedState::default().hash_one(record.payload()),
            schema_version: meta.schema_version,
            received_at: meta.received_at.0,
            event_time: parsed.event_time.0,
            flags: meta.flags,
            metrics: &self.scratch,
        };
        let held = self.stream.hold(&event);
        if held == Held::Conflict {
            self.dead.push(conflict(&self.parts.topic, record, &meta));
        }
        Some(held)
    }

    fn count_metrics(&mut self, parsed: &Parsed<'_>, schema_version: u32) {
        self.scratch.clear();
        let mut unknown = 0;
        for (name, value) in &parsed.metrics {
            match self.parts.counted.metric(schema_version, name) {
                Some(metric) => self.scratch.push((metric, *value)),
                None => unknown += 1,
            }
        }
        self.scratch.sort_unstable_by_key(|(metric, _)| *metric);
        if unknown > 0 {
            self.parts.metrics.unknown_metrics.inc_by(unknown);
        }
    }

    fn measure(&self) {
        let size = self.stream.size();
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.parts.metrics.devices.set(gauge(size.devices));
        self.parts.metrics.minutes.set(gauge(size.minutes));
        self.parts.metrics.remembered.set(gauge(size.events));
        self.parts.metrics.memory_bytes.set(gauge(size.bytes));
    }
}

fn outcome(held: Option<Held>) -> &'static str {
    match held {
        None => "unreadable",
        Some(Held::Counted) => "counted",
        Some(Held::Duplicate) => "duplicate",
        Some(Held::Conflict) => "id_conflict",
        Some(Held::Late) => "late",
        Some(Held::AheadOfBus) => "ahead_of_bus",
        Some(Held::Again) => "again",
    }
}

/// The dead letter of a copy with other bytes. Which of the two counts is decided by a rebuild;
/// this one came second.
fn conflict(topic: &str, record: &Record, meta: &EventMeta) -> Dead {
    let reason = "id_conflict";
    let detail = serde_json::json!({
        "error": "another event with this id came before",
        "counts": "the one received first",
    });
    let meta = DeadLetterMeta {
        stage: STAGE.into(),
        reason: reason.into(),
        detail: detail.to_string(),
        schema_version: Some(meta.schema_version),
        fleet: Arc::clone(&meta.fleet),
        provenance: meta.provenance.clone(),
        first_seen: meta.received_at,
        attempts: 1,
        source: Some(SourceOffset {
            topic: topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
        }),
        traceparent: meta.traceparent.clone(),
    };
    Dead {
        key: record.key().map(<[u8]>::to_vec),
        payload: record.payload().to_vec(),
        headers: encode_dead_letter(&meta),
        reason,
        // Raw has counted it.
        number: None,
    }
}

impl Sink for RollupSink {
    fn assigned<'a>(&'a mut self, claims: &'a [Claim]) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            let partitions: Vec<i32> = claims.iter().map(|claim| claim.basis.partition).collect();
            // Claimed before: nobody else can close anything any more.
            let devices = self.parts.store.device_states(&partitions).await;
            let devices = devices.context("read how far the devices have closed")?;
            let starts: Vec<Start> = claims.iter().map(start).collect();
            self.stream.assign(&starts, devices);
            Ok(())
        }
        .boxed()
    }

    fn hold(&mut self, record: &Record) -> anyhow::Result<()> {
        self.note_due();
        let held = self.take(record);
        if held.is_none() {
            self.stream.passed(record.partition, record.append_time.0, record.offset + 1);
        }
        self.parts.metrics.events.with_label_values(&[outcome(held)]).inc();
        Ok(())
    }

    fn poison(&mut self, record: &Record, _attempts: u32) -> anyhow::Result<()> {
        self.note_due();
        self.stream.passed(record.partition, record.append_time.0, record.offset + 1);
        // A rebuild must leave out what the stream leaves out.
        if let Ok(meta) = decode_event(record.headers()) {
            self.poisoned.push(meta.provenance);
        }
        self.parts.metrics.events.with_label_values(&["poison"]).inc();
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.stream.is_full() || self.dead.len() >= DEAD_MAX
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn flush(&mut self, covered: Vec<Covered>) -> BoxFuture<'static, anyhow::Result<()>> {
        let Flushed { rows, closes, marks, rewinds, more } =
            self.stream.flush(self.parts.clock.now().0, &self.ends);
        self.due = None;
        if more {
            self.due = Some(Instant::now());
        } else if !self.stream.is_idle() {
            self.note_due();
        }
        let flush = StreamFlush {
            role: ROLE.to_owned(),
            topic: self.parts.topic.clone(),
            covered,
            rewinds,
            rows,
            closes,
            marks,
        };
        let (parts, dead) = (self.parts.clone(), std::mem::take(&mut self.dead));
        let poisoned = std::mem::take(&mut self.poisoned);
        async move {
            for Provenance { gateway, epoch, seq } in &poisoned {
                let (epoch, seq) = (epoch.0.cast_signed(), seq.cast_signed());
                let remember = || parts.store.remember_poison(gateway, epoch, seq, "stage_panic");
                parts.until_done("remember_poison", remember).await;
            }
            parts.write(&flush, &dead).await
        }
        .boxed()
    }

    fn flushed(&mut self) {}

    fn discard(&mut self) {
        self.stream.clear();
        self.dead.clear();
        self.poisoned.clear();
        self.due = None;
    }

    fn tick(&mut self, ends: &BTreeMap<i32, i64>, _read: &BTreeMap<i32, i64>) {
        self.ends.clone_from(ends);
        if self.ticks.is_multiple_of(MEASURE_TICKS) {
            self.measure();
        }
        self.ticks = self.ticks.wrapping_add(1);
    }
}

fn start(claim: &Claim) -> Start {
    let basis = &claim.basis;
    // A rewind point that the log no longer reaches, a position that was lost, or a first start
    // in the middle of a log: what is missing may have been in an open minute.
    let needed = basis.rewind.or(basis.stored).unwrap_or(0);
    Start {
        partition: basis.partition,
        position: claim.next_offset,
        read_from: claim.read_from,
        incomplete: needed < basis.low || basis.stored.is_some_and(|at| at > basis.high),
    }
}

impl RollupParts {
    async fn write(&self, flush: &StreamFlush, dead: &[Dead]) -> anyhow::Result<()> {
        let started = StdInstant::now();
        for letter in dead {
            let (topic, key) = (&self.dead_letter_topic, letter.key.as_deref());
            self.until_done("dead_letter", || {
                self.producer.send(topic, key, &letter.payload, &letter.headers)
            })
            .await;
        }
        let written = self
            .until_done("write", || async {
                match self.store.flush_stream(flush).await {
                    Err(PublishError::Store(unknown)) => Err(unknown),
                    known => Ok(known),
                }
            })
            .await
            .context("write the rollups")?;
        self.metrics.rows.inc_by(written.changed as u64);
        self.metrics.refused.inc_by(written.refused as u64);
        self.metrics.marks.inc_by(flush.marks.len() as u64);
        self.metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn until_done<T, E: Display, F: Future<Output = Result<T, E>>>(
        &self,
        step: &'static str,
        attempt: impl FnMut() -> F,
    ) -> T {
        until_done(ROLE, step, &self.metrics.retries, attempt).await
    }
}
