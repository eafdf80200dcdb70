//! What came of a run.

use std::fmt;

use anyhow::ensure;

use super::disk::cache::Loss;
use super::medium::Segments;
use super::numbers::Findings;
use crate::oracle::verdict::Verdict;

/// In fewer cuts, chance may have it that little was at stake.
const CUTS_TELLING_MIN: u64 = 20;

/// The counts of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the plan was drawn from.
    pub seed: u64,
    /// How often the power was cut.
    pub cuts: u32,
    /// Cuts while the guest was starting.
    pub cuts_starting: u32,
    /// Lives without a link to Kafka.
    pub lives_without_link: u32,
    /// What was at stake, over all cuts.
    pub loss: Loss,
    /// The most entries that a spool held when it was cut.
    pub pending_entries_max: u64,
    /// What the oracle says.
    pub verdict: Verdict,
    pub(super) numbers: Findings,
    pub(super) segments: Segments,
}

impl Report {
    /// Acknowledged, and on no topic.
    pub const fn lost(&self) -> u64 {
        self.verdict.missing + self.verdict.dead_letters_missing
    }

    /// Fails unless nothing was lost, or with a gateway that does not sync, unless loss was found;
    /// and when too little was at stake to tell.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self, lie: bool) -> anyhow::Result<()> {
        if lie {
            ensure!(
                self.lost() > 0,
                "nothing was lost by a gateway that does not sync: this rig finds nothing"
            );
            return Ok(());
        }
        ensure!(self.holds(), "the verdict does not hold\n{}", self.verdict);
        let cuts = u64::from(self.cuts);
        if cuts < CUTS_TELLING_MIN {
            return Ok(());
        }
        ensure!(self.loss.dropped > cuts / 4, "the cuts lost {} pieces only", self.loss.dropped);
        ensure!(self.verdict.accepted > 50 * cuts, "{} events only", self.verdict.accepted);
        let Segments { made, left, .. } = self.segments;
        ensure!(made > cuts && made - left > cuts / 2, "{made} segments made, {left} left");
        Ok(())
    }

    fn holds(&self) -> bool {
        let Findings { gaps, reused, unreadable, epochs: _ } = self.numbers;
        self.verdict.holds() && self.segments.damaged == 0 && gaps + reused + unreadable == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, cuts, cuts_starting, lives_without_link, loss, .. } = self;
        let Segments { made, left, damaged } = self.segments;
        let Verdict { sent, accepted, rejected, unknown, altered, .. } = self.verdict;
        writeln!(
            f,
            "seed {seed}: {cuts} power cuts, {cuts_starting} of them while starting; \
             {lives_without_link} lives without a link"
        )?;
        writeln!(
            f,
            "unflushed pieces of 4 KiB at the cuts: {}; kept {}, kept as they were earlier {}, \
             dropped {}",
            loss.pieces(),
            loss.kept,
            loss.kept_older,
            loss.dropped
        )?;
        writeln!(
            f,
            "spool: {made} segments made, {left} left, {damaged} damaged; at most {} entries \
             waiting",
            self.pending_entries_max
        )?;
        writeln!(f, "numbers: {}", self.numbers)?;
        writeln!(f, "events sent {sent}, of unknown outcome {unknown}")?;
        writeln!(
            f,
            "acknowledged {} (accepted {accepted}, rejected {rejected})",
            accepted + rejected
        )?;
        write!(
            f,
            "lost {}, altered {altered}, out of order {}, duplicated (harmless) {}",
            self.lost(),
            self.verdict.out_of_order,
            self.verdict.transport_duplicates + self.verdict.dead_letter_copies
        )
    }
}
