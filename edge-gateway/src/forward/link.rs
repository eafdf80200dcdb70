//! The two producers of a session, used as one.
//!
//! The *stream* carries records in order, many at once. After the first refusal it is given up as a
//! whole, so that nothing overtakes what was refused. The *single* one sends what goes alone:
//! statuses, and records that may be refused; a refusal there concerns nobody else.

use std::time::Duration;

use penstock_common::topic::Topic;

use super::{
    Connect, Delivery, OutboundRecord, Producer, Refusal, Role, STATUS_TOKEN, SendError, Token,
};

/// How long answers on the stream are waited for while something is sent alone, at first.
const SINGLE_WAIT: Duration = Duration::from_millis(2);

/// After so many waits in vain, they are longer by [`SINGLE_WAIT`].
const SINGLE_PATIENCE: u32 = 8;

/// How long the last answers of a producer that has failed are waited for.
const LAST_WAIT: Duration = Duration::from_millis(100);

pub(super) struct Link<P> {
    stream: P,
    single: P,
    /// A record that a producer had no room for.
    held: Option<Held>,
    /// Sent by the single one, and not answered.
    single_in_flight: usize,
    /// So often it was asked in vain since.
    single_asked: u32,
}

struct Held {
    token: Token,
    record: OutboundRecord,
    partition: Option<u32>,
    is_alone: bool,
}

impl<P: Producer> Link<P> {
    /// Builds both. `batch_bytes_max` bounds what is refused at once.
    pub(super) fn connect<C>(connect: &C, batch_bytes_max: usize) -> anyhow::Result<Self>
    where
        C: Connect<Producer = P>,
    {
        Ok(Self {
            stream: connect.connect(Role::Stream { batch_bytes_max })?,
            single: connect.connect(Role::Single)?,
            held: None,
            single_in_flight: 0,
            single_asked: 0,
        })
    }

    /// Whether nothing can be sent until [`Self::poll`] has made room.
    pub(super) const fn is_full(&self) -> bool {
        self.held.is_some()
    }

    /// Hands a record over. One that there is no room for is kept, and offered again.
    pub(super) fn send(
        &mut self,
        token: Token,
        record: OutboundRecord,
        partition: Option<u32>,
        is_alone: bool,
    ) -> Result<(), String> {
        let producer = if is_alone { &mut self.single } else { &mut self.stream };
        match producer.send(token, record, partition) {
            Ok(()) => {
                self.single_in_flight += usize::from(is_alone);
                Ok(())
            }
            Err(SendError::Full(record)) => {
                self.held = Some(Held { token, record, partition, is_alone });
                Ok(())
            }
            Err(SendError::Broken(reason)) => Err(reason),
        }
    }

    /// Hands a status over; returns whether there was room.
    pub(super) fn send_status(&mut self, record: OutboundRecord) -> Result<bool, String> {
        if self.is_full() {
            return Ok(false);
        }
        match self.single.send(STATUS_TOKEN, record, None) {
            Ok(()) => {
                self.single_in_flight += 1;
                Ok(true)
            }
            Err(SendError::Full(_)) => Ok(false),
            Err(SendError::Broken(reason)) => Err(reason),
        }
    }

    /// Serves the connections for up to `wait`, and moves the answers into `into`.
    pub(super) fn poll(&mut self, wait: Duration, into: &mut Vec<Delivery>) -> Result<(), String> {
        if let Some(Held { token, record, partition, is_alone }) = self.held.take() {
            self.send(token, record, partition, is_alone)?;
        }
        let mut wait = wait;
        if self.single_in_flight > 0 {
            wait = wait.min(SINGLE_WAIT * (1 + self.single_asked / SINGLE_PATIENCE));
            let before = into.len();
            self.single.poll(Duration::ZERO, into);
            let answered = into.len() - before;
            self.single_in_flight -= answered.min(self.single_in_flight);
            self.single_asked = if answered > 0 { 0 } else { self.single_asked.saturating_add(1) };
        }
        let wait = if into.is_empty() { wait } else { Duration::ZERO };
        self.stream.poll(wait, into);
        let Some(reason) = self.stream.broken().or_else(|| self.single.broken()) else {
            return Ok(());
        };
        // What was refused, and why, may be said a moment after the producer failed.
        self.stream.poll(LAST_WAIT, into);
        Err(reason)
    }

    /// How many partitions a topic has.
    pub(super) fn partitions(&mut self, topic: Topic, wait: Duration) -> Result<u32, Refusal> {
        self.single.partitions(topic, wait)
    }

    /// What the connections last complained of.
    pub(super) fn take_complaint(&mut self) -> Option<String> {
        self.stream.take_complaint().or_else(|| self.single.take_complaint())
    }
}
