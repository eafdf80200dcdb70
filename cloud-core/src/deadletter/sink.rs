//! What the dead-letter store makes of records: letters in memory, then a flush.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use penstock_common::schema::tape::Tape;
use tokio::time::Instant;

use super::DeadLetterConfig;
use super::letter::Letter;
use super::write::{Flush, LetterWriter};
use crate::bus::Record;
use crate::source::runner::Sink;
use crate::store::positions::Claim;
use crate::store::publish::Covered;

/// The dead-letter store's sink.
pub struct LetterSink {
    writer: LetterWriter,
    config: DeadLetterConfig,
    tape: Tape,
    letters: Vec<Letter>,
    bytes: usize,
    /// When the first of them must be flushed.
    due: Option<Instant>,
}

impl LetterSink {
    /// A sink that stores through `writer`.
    pub fn new(writer: LetterWriter, config: DeadLetterConfig) -> Self {
        let (tape, letters) = (Tape::new(), Vec::new());
        Self { writer, config, tape, letters, bytes: 0, due: None }
    }

    fn keep(&mut self, letter: Letter) {
        let interval = Duration::from_millis(self.config.flush_interval_ms);
        self.due.get_or_insert_with(|| Instant::now() + interval);
        self.bytes += letter.size_bytes();
        self.letters.push(letter);
    }
}

impl Sink for LetterSink {
    fn assigned<'a>(&'a mut self, _claims: &'a [Claim]) -> BoxFuture<'a, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn hold(&mut self, record: &Record) -> anyhow::Result<()> {
        let letter = Letter::read(&self.writer.topic, record, &mut self.tape);
        self.keep(letter);
        Ok(())
    }

    fn poison(&mut self, record: &Record, attempts: u32) -> anyhow::Result<()> {
        let letter = Letter::opaque(&self.writer.topic, record, attempts);
        self.keep(letter);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.letters.len() >= self.config.flush_letters || self.bytes >= self.config.flush_bytes
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn flush(&mut self, mut covered: Vec<Covered>) -> BoxFuture<'static, anyhow::Result<()>> {
        covered.retain(|c| c.to > c.from);
        let letters = std::mem::take(&mut self.letters);
        self.discard();
        if covered.is_empty() {
            return async { Ok(()) }.boxed();
        }
        let writer = self.writer.clone();
        async move { Ok(writer.write(Flush { letters, covered }).await?) }.boxed()
    }

    fn flushed(&mut self) {}

    fn discard(&mut self) {
        self.letters = Vec::new();
        self.bytes = 0;
        self.due = None;
    }
}
