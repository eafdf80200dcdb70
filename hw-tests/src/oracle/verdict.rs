//! The verdict: a table of counts, and a few examples of what is wrong.

use std::fmt;

/// How many examples of each kind of violation are kept.
const EXAMPLES_MAX: usize = 5;

/// What the comparison of the devices' records with the stores found. Counts are of distinct
/// events unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Sent at least once.
    pub sent: u64,
    /// Acknowledged as durable.
    pub accepted: u64,
    /// Refused with a reason.
    pub rejected: u64,
    /// No answer was ever read.
    pub unknown: u64,
    /// In the store.
    pub stored: u64,
    /// On the dead-letter topic.
    pub dead_lettered: u64,
    /// Accepted, and a dead letter because the gateway's spool was full.
    pub gave_way: u64,
    /// Accepted, not stored, and no such dead letter.
    pub missing: u64,
    /// Rejected and not dead-lettered.
    pub dead_letters_missing: u64,
    /// Stored more than once.
    pub duplicated: u64,
    /// Stored, or on the topic, with other bytes than were sent.
    pub altered: u64,
    /// Stored though never sent, or though rejected.
    pub spurious: u64,
    /// Dead-lettered though accepted, or though never sent.
    pub dead_letters_spurious: u64,
    /// Good events rejected, or faulty ones accepted.
    pub misjudged: u64,
    /// Events that a device was told two different things about.
    pub contradicted: u64,
    /// On the topic out of the order in which the device was acknowledged.
    pub out_of_order: u64,
    /// Records on a topic whose key, headers or value can't be right.
    pub malformed: u64,
    /// For information: extra copies on `raw-events`.
    pub transport_duplicates: u64,
    /// For information: dead letters beyond the first of an event.
    pub dead_letter_copies: u64,
    /// For information: events on `raw-events` that gave way as well.
    pub arrived_twice: u64,
    /// For information: records of devices that are not of the fleet, where those are allowed.
    pub foreign: u64,
    /// A few examples of violations.
    pub examples: Vec<String>,
}

impl Verdict {
    const fn violations(&self) -> [(&'static str, u64); 10] {
        [
            ("missing (accepted, not stored)", self.missing),
            ("dead letters missing (rejected, not kept)", self.dead_letters_missing),
            ("duplicated", self.duplicated),
            ("altered", self.altered),
            ("spurious (stored, never accepted)", self.spurious),
            ("dead letters spurious", self.dead_letters_spurious),
            ("misjudged", self.misjudged),
            ("contradicted", self.contradicted),
            ("out of order", self.out_of_order),
            ("malformed records", self.malformed),
        ]
    }

    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.violations().iter().all(|(_, count)| *count == 0)
    }

    /// Fails with the table unless every promise was kept.
    ///
    /// # Errors
    /// With the table when a promise was broken.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.holds(), "the oracle's verdict does not hold\n{self}");
        Ok(())
    }

    pub(super) fn example(&mut self, kind: &str, what: impl FnOnce() -> String) {
        if self.examples.iter().filter(|example| example.starts_with(kind)).count() < EXAMPLES_MAX {
            let what = what();
            self.examples.push(format!("{kind}: {what}"));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = [
            ("sent (distinct events)", self.sent),
            ("accepted", self.accepted),
            ("rejected", self.rejected),
            ("unknown outcome", self.unknown),
            ("stored", self.stored),
            ("dead-lettered", self.dead_lettered),
        ];
        let notes = [
            ("(extra copies on raw-events, harmless)", self.transport_duplicates),
            ("(extra copies on dead-letter, harmless)", self.dead_letter_copies),
            ("gave way to newer events (dead letters)", self.gave_way),
            ("(gave way and arrived, harmless)", self.arrived_twice),
            ("(records of others)", self.foreign),
        ];
        let notes = notes.into_iter().filter(|(_, count)| *count > 0);
        let line = "-".repeat(56);
        writeln!(f, "{line}")?;
        for (name, count) in facts {
            writeln!(f, "{name:<44}{count:>12}")?;
        }
        writeln!(f, "{line}")?;
        for (name, count) in self.violations() {
            let mark = if count > 0 { "  <-- broken" } else { "" };
            writeln!(f, "{name:<44}{count:>12}{mark}")?;
        }
        writeln!(f, "{line}")?;
        for (name, count) in notes {
            writeln!(f, "{name:<44}{count:>12}")?;
        }
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        let verdict = if self.holds() { "holds" } else { "DOES NOT HOLD" };
        write!(f, "The verdict {verdict}.")
    }
}
