//! What the numbers of the records tell, whatever the devices were told: within an epoch they
//! have no gap, because only what is on the disk is forwarded and all of it was; and no number
//! stands for two different records.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use penstock_common::codec;
use penstock_common::event::Provenance;
use penstock_common::topic::Topic;
use rdkafka::message::{BorrowedMessage, Message};

use crate::oracle::record::Fingerprint;
use crate::oracle::topics;

/// The numbers on both topics.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    seen: HashMap<Provenance, Fingerprint>,
    /// Numbers that came again with another record.
    pub(super) reused: u64,
    /// Records without a readable number.
    pub(super) unreadable: u64,
}

/// What they tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Openings of the spool that forwarded something.
    pub(super) epochs: u64,
    /// Numbers that should be there and are not.
    pub(super) gaps: u64,
    pub(super) reused: u64,
    pub(super) unreadable: u64,
}

impl Numbers {
    /// Reads both topics. Blocking.
    pub(super) fn read(kafka: &str, topic_prefix: &str) -> anyhow::Result<Self> {
        let mut numbers = Self::default();
        topics::read_topic(kafka, &Topic::RawEvents.name(topic_prefix), |message| {
            let meta = codec::decode_event(topics::headers(message));
            numbers.note(meta.ok().map(|meta| meta.provenance), message);
        })?;
        topics::read_topic(kafka, &Topic::DeadLetter.name(topic_prefix), |message| {
            let meta = codec::decode_dead_letter(topics::headers(message));
            numbers.note(meta.ok().map(|meta| meta.provenance), message);
        })?;
        Ok(numbers)
    }

    fn note(&mut self, provenance: Option<Provenance>, message: &BorrowedMessage<'_>) {
        match provenance {
            None => self.unreadable += 1,
            Some(of) => self.record(of, Fingerprint::of(message.payload().unwrap_or_default())),
        }
    }

    fn record(&mut self, provenance: Provenance, fingerprint: Fingerprint) {
        let held = *self.seen.entry(provenance).or_insert(fingerprint);
        self.reused += u64::from(held != fingerprint);
    }

    pub(super) fn findings(&self) -> Findings {
        // How many of each epoch there are, and how many there should be.
        let mut epochs: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for Provenance { gateway, epoch, seq } in self.seen.keys() {
            let (count, wanted) = epochs.entry((gateway, epoch)).or_default();
            *count += 1;
            *wanted = (*wanted).max(seq + 1);
        }
        Findings {
            epochs: epochs.len() as u64,
            gaps: epochs.values().map(|(count, wanted)| wanted - count).sum(),
            reused: self.reused,
            unreadable: self.unreadable,
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epochs, gaps, reused, unreadable } = self;
        write!(f, "epochs {epochs}, gaps {gaps}, used twice {reused}, unreadable {unreadable}")
    }
}

#[cfg(test)]
mod tests {
    use penstock_common::event::Epoch;

    use super::*;

    #[test]
    fn gaps_and_second_uses_are_counted() {
        let mut numbers = Numbers::default();
        let records =
            [(1, 0, "a"), (1, 1, "b"), (1, 1, "b"), (1, 4, "e"), (2, 0, "x"), (2, 0, "y")];
        for (epoch, seq, bytes) in records {
            let provenance = Provenance { gateway: "gw".into(), epoch: Epoch(epoch), seq };
            numbers.record(provenance, Fingerprint::of(bytes.as_bytes()));
        }
        let wanted = Findings { epochs: 2, gaps: 2, reused: 1, unreadable: 0 };
        assert_eq!(numbers.findings(), wanted);
    }
}
