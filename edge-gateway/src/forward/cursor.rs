//! A place in the spool from which entries are read, one ahead.

use std::time::{Duration, Instant};

use penstock_common::retry::Backoff;

use crate::spool::{Position, SpoolReader, SpooledEntry};

/// Reads on, keeps what could not be sent yet, and has patience with the disk.
pub(super) struct Cursor {
    reader: SpoolReader,
    peeked: Option<SpooledEntry>,
    /// The spool could not be read: when it is tried again.
    read_after: Option<Instant>,
    backoff: Backoff,
}

/// What a cursor has.
pub(super) enum Next {
    /// An entry that was read before and put back.
    Again(SpooledEntry),
    /// An entry that was read now.
    Fresh(SpooledEntry),
    /// Everything synced so far was read.
    End,
    /// The disk can't be read now.
    Later,
}

impl Cursor {
    pub(super) const fn new(reader: SpoolReader) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        Self { reader, peeked: None, read_after: None, backoff }
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        if let Some(entry) = self.peeked.take() {
            return Next::Again(entry);
        }
        if self.read_after.is_some_and(|at| now < at) {
            return Next::Later;
        }
        self.read(Duration::ZERO, now)
    }

    fn read(&mut self, wait: Duration, now: Instant) -> Next {
        match self.reader.next(wait) {
            Ok(entry) => {
                self.read_after = None;
                self.backoff.reset();
                entry.map_or(Next::End, Next::Fresh)
            }
            // The reader stays where it is: going back would try the same place for ever, while a
            // place that stays unreadable is passed over as damaged after a few tries.
            Err(error) => {
                let delay = self.backoff.next_delay();
                tracing::warn!(%error, delay_ms = delay.as_millis(), "read the spool; trying again");
                self.read_after = Some(now + delay);
                Next::Later
            }
        }
    }

    /// Waits up to `wait` until there is something to read.
    pub(super) fn wait(&mut self, wait: Duration, now: Instant) -> Next {
        if self.peeked.is_none() && self.read_after.is_none_or(|at| now >= at) {
            return self.read(wait, now);
        }
        std::thread::sleep(wait);
        Next::Later
    }

    /// The next call has this one again.
    pub(super) fn put_back(&mut self, entry: SpooledEntry) {
        self.peeked = Some(entry);
    }

    pub(super) fn seek(&mut self, position: Position) {
        self.peeked = None;
        self.reader.seek(position);
    }

    pub(super) fn another(&self) -> Self {
        Self::new(self.reader.another())
    }
}
