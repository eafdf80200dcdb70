//! Where segments end, and which numbers are missing between them.

use std::collections::BTreeMap;

use crate::event::Epoch;
use crate::log::scan::scan_file;
use crate::log::seal::KeyId;
use crate::log::segment::{Lane, Moved, SegmentEnd};
use crate::log::state::Segment;
use crate::log::{DamagedRange, LogError};

use super::{Found, Recovery};

impl Recovery {
    /// After a failed sync and a kill, a later header may know of more than an earlier one.
    pub(super) fn note_end(&mut self, end: SegmentEnd) {
        let known = self.ends.entry(end.ordinal).or_insert(end);
        if end.valid_bytes > known.valid_bytes {
            *known = end;
        }
    }

    pub(super) fn find_ends(
        &mut self,
        found: &[Found],
    ) -> Result<BTreeMap<u64, Segment>, LogError> {
        let mut segments = BTreeMap::new();
        for this in found {
            let end = self.ends.get(&this.ordinal).copied();
            segments.insert(this.ordinal, self.end_of(this, end)?);
        }
        let newest = found.last();
        self.report.torn_bytes = newest.map_or(0, |newest| {
            newest.file_bytes - segments[&newest.ordinal].valid_bytes.min(newest.file_bytes)
        });
        let mut named: Vec<SegmentEnd> = self.ends.values().copied().collect();
        named.sort_unstable_by_key(|end| end.ordinal);
        for end in named {
            self.check_missing(&segments, end);
        }
        self.check_continuity(&segments);
        // Only its header knew where the oldest one began; in the dead lane, each one's.
        let count = if self.lane == Lane::Dead { found.len() } else { 1 };
        for beheaded in found.iter().take(count).filter(|found| found.header.is_none()) {
            if let Some(scanned) = beheaded.scanned.as_ref().filter(|one| one.is_beheaded) {
                self.note(beheaded.ordinal, scanned.epoch, 0, scanned.first_seq);
            }
        }
        Ok(segments)
    }

    /// Numbers of an epoch go on from segment to segment, whatever their headers say. Those that
    /// were locked may stand apart: what came after them may be retired and removed.
    fn check_continuity(&mut self, segments: &BTreeMap<u64, Segment>) {
        let mut before: Option<(u64, Segment)> = None;
        for (&ordinal, &segment) in segments {
            if !segment.is_in_line() {
                if let Some((_, before)) = &mut before
                    && before.epoch == segment.epoch
                    && before.next_seq >= segment.first_seq
                {
                    before.next_seq = before.next_seq.max(segment.next_seq);
                }
                continue;
            }
            match before {
                Some((at, before)) if before.epoch == segment.epoch => {
                    self.note(at, segment.epoch, before.next_seq, segment.first_seq);
                }
                // Without an older one, what came before may be retired.
                Some(_) => self.note(ordinal, segment.epoch, 0, segment.first_seq),
                None => {}
            }
            before = Some((ordinal, segment));
        }
    }

    /// Reports what stood in a segment that another one names and that is not there.
    fn check_missing(&mut self, segments: &BTreeMap<u64, Segment>, named: SegmentEnd) {
        let in_line = |(_, segment): &(&u64, &Segment)| segment.is_in_line();
        let before = segments.range(..named.ordinal).rfind(in_line);
        let is_lost = self.lost.contains(&named.ordinal)
            || self.lost_from.is_some_and(|least| least < named.ordinal);
        // Without an older segment it was simply retired.
        if segments.contains_key(&named.ordinal)
            || self.report.locked.iter().any(|locked| locked.is_told(named.ordinal))
            || before.is_none() && !is_lost
        {
            return;
        }
        let first_seq = match before {
            Some((_, segment)) if segment.epoch == named.epoch => segment.next_seq,
            _ => 0,
        };
        self.note(named.ordinal, named.epoch, first_seq, named.next_seq);
    }

    fn end_of(&mut self, found: &Found, declared: Option<SegmentEnd>) -> Result<Segment, LogError> {
        let file_bytes = found.file_bytes;
        let moved = self.moved_of(found);
        // Overwritten below with what the file says.
        let segment = Segment {
            epoch: Epoch(0),
            first_seq: 0,
            next_seq: 0,
            valid_bytes: file_bytes,
            file_bytes,
            kind: found.kind,
            moved,
            key: found.header.map_or(KeyId::NONE, |header| header.key),
        };
        if let (Some(header), Some(end)) = (found.header, declared) {
            return Ok(Segment {
                epoch: header.epoch,
                first_seq: header.first_seq,
                next_seq: end.next_seq.max(header.first_seq),
                valid_bytes: end.valid_bytes.min(file_bytes),
                ..segment
            });
        }
        let scanned = match &found.scanned {
            Some(scanned) => Some(scanned.clone()),
            None => scan_file(&*self.file_of(found)?, file_bytes, found.header),
        };
        let Some(scanned) = scanned else {
            // Not reached: without a header it was scanned, and with one a scan has a result.
            return Ok(segment);
        };
        for (first_seq, next_seq) in scanned.damaged {
            self.note(found.ordinal, scanned.epoch, first_seq, next_seq);
        }
        let mut next_seq = scanned.next_seq;
        if let Some(end) = declared.filter(|end| end.next_seq > next_seq) {
            self.note(found.ordinal, scanned.epoch, next_seq, end.next_seq);
            next_seq = end.next_seq;
        }
        Ok(Segment {
            epoch: scanned.epoch,
            first_seq: scanned.first_seq,
            next_seq,
            valid_bytes: scanned.valid_bytes,
            key: scanned.key,
            ..segment
        })
    }

    /// Without a header nobody knows why and when.
    fn moved_of(&self, found: &Found) -> Option<Moved> {
        let unknown = (self.lane == Lane::Dead).then_some(Moved::UNKNOWN);
        found.header.and_then(|header| header.moved()).or(unknown)
    }

    pub(super) fn note(&mut self, segment: u64, epoch: Epoch, first_seq: u64, next_seq: u64) {
        let covers = |known: &DamagedRange| {
            known.epoch == epoch && known.first_seq <= first_seq && next_seq <= known.next_seq
        };
        if first_seq < next_seq && !self.report.damaged.iter().any(covers) {
            self.report.damaged.push(DamagedRange { segment, epoch, first_seq, next_seq });
        }
    }
}
