//! What the raw writer makes of records: rows in memory, then a flush.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use penstock_common::codec;
use tokio::time::Instant;

use super::RawConfig;
use super::batch::{Batch, Poison};
use super::dead::{Dead, dead_letter};
use super::write::{Flush, Writer};
use crate::bus::Record;
use crate::source::runner::Sink;
use crate::store::positions::Claim;
use crate::store::publish::Covered;

/// Which records of a topic are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// All: `raw-events`.
    Every,
    /// Those that were dead letters before: `replay-events`, where everything else is in the raw
    /// store already (spec R1).
    DeadLetterOrigin,
}

/// The raw writer's sink.
pub struct RawSink {
    writer: Writer,
    config: RawConfig,
    intake: Intake,
    held: Held,
}

/// What has been read and is not stored.
#[derive(Default)]
struct Held {
    batch: Batch,
    dead: Vec<Dead>,
    dead_bytes: usize,
    /// When the first of it must be flushed.
    due: Option<Instant>,
}

impl RawSink {
    /// A sink that stores through `writer`.
    pub fn new(writer: Writer, config: RawConfig, intake: Intake) -> Self {
        Self { writer, config, intake, held: Held::default() }
    }

    fn bury(&mut self, record: &Record, poison: &Poison) {
        let dead = dead_letter(&self.writer.topic, record, poison);
        let (partition, offset) = (record.partition, record.offset);
        tracing::warn!(partition, offset, error = %poison, "a record can't be stored: to dead letters");
        self.held.dead_bytes += dead.size_bytes();
        self.held.dead.push(dead);
    }

    fn note_due(&mut self) {
        let interval = Duration::from_millis(self.config.flush_interval_ms);
        self.held.due.get_or_insert_with(|| Instant::now() + interval);
    }

    fn size_bytes(&self) -> usize {
        self.held.batch.size_bytes() + self.held.dead_bytes
    }

    fn takes(&self, record: &Record) -> bool {
        let is_origin = |(name, value): (&str, &[u8])| {
            name == codec::ORIGIN_HEADER && value == codec::ORIGIN_DEAD_LETTER.as_bytes()
        };
        self.intake == Intake::Every || record.headers().any(is_origin)
    }
}

impl Sink for RawSink {
    fn assigned<'a>(&'a mut self, _claims: &'a [Claim]) -> BoxFuture<'a, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn hold(&mut self, record: &Record) -> anyhow::Result<()> {
        self.note_due();
        if !self.takes(record) {
            return Ok(());
        }
        if let Err(poison) = self.held.batch.push(record, self.config.late_days_max) {
            self.bury(record, &poison);
        }
        Ok(())
    }

    fn poison(&mut self, record: &Record, attempts: u32) -> anyhow::Result<()> {
        self.note_due();
        self.bury(record, &Poison::Panic { attempts });
        Ok(())
    }

    fn is_full(&self) -> bool {
        let events = self.held.batch.rows().len() + self.held.dead.len();
        events >= self.config.flush_events || self.size_bytes() >= self.config.flush_bytes
    }

    fn due(&self) -> Option<Instant> {
        self.held.due
    }

    fn flush(&mut self, mut covered: Vec<Covered>) -> BoxFuture<'static, anyhow::Result<()>> {
        covered.retain(|c| c.to > c.from);
        let held = std::mem::take(&mut self.held);
        if covered.is_empty() {
            return async { Ok(()) }.boxed();
        }
        let flush = Flush { batch: held.batch, dead: held.dead, covered };
        let writer = self.writer.clone();
        async move { Ok(writer.write(flush).await?) }.boxed()
    }

    fn flushed(&mut self) {
        self.writer.metrics.batch_bytes.set(0);
    }

    fn discard(&mut self) {
        self.held = Held::default();
        self.writer.metrics.batch_bytes.set(0);
    }

    fn tick(
        &mut self,
        _ends: &std::collections::BTreeMap<i32, i64>,
        _read: &std::collections::BTreeMap<i32, i64>,
    ) {
        let bytes = i64::try_from(self.size_bytes()).unwrap_or(i64::MAX);
        self.writer.metrics.batch_bytes.set(bytes);
    }
}
