//! Opening: starts whatever it finds.
//!
//! 1. Read the header of every segment. One whose file can't be read, or that has neither a valid
//!    header nor a valid record, is quarantined: renamed to `*.damaged`, never deleted.
//! 2. Remove what is void: files between a segment and the predecessor it names, and a last
//!    segment without a single byte behind its header. Nothing in them was acknowledged.
//! 3. Take each segment's end from its successor. Where there is none (the last one) or its
//!    header is damaged, read the segment itself, up to its torn tail.
//! 4. Write the last record once more and sync it (see the module [`super`]).
//! 5. Begin a new epoch. Its first segment is created by the first append.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use crate::event::Epoch;

use super::disk::{Disk, DiskFile};
use super::record::Encoder;
use super::retire::Log;
use super::scan::{Scanned, patiently, scan_file};
use super::segment::{self, FileKind, RECORDS_AT, SegmentEnd, SegmentHeader};
use super::state::{Segment, Shared, State};
use super::writer::{Epochs, Writer};
use super::{DamagedRange, LogConfig, LogError};

/// An open log.
pub struct Opened {
    /// Appends to it.
    pub writer: Writer,
    /// Everything else.
    pub log: Log,
    /// What was found.
    pub report: RecoveryReport,
}

/// What an opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The greatest ordinal among the files, 0 if there is none.
    pub ordinal_max: u64,
    /// Segments that go on.
    pub segments: usize,
    /// Entries in them, damaged ones included.
    pub entries: u64,
    /// Numbers known to be lost so far; older segments are checked when they are read.
    pub damaged: Vec<DamagedRange>,
    /// Files set aside, by their new names.
    pub quarantined: Vec<String>,
    /// Files of failed attempts that were removed.
    pub void_files: usize,
    /// Bytes behind the last valid record: a write that was cut short.
    pub torn_bytes: u64,
    /// Whether the last record could be written and synced once more. If not it counts all the
    /// same: had it been acknowledged, it would have been durable before.
    pub tail_synced: bool,
}

/// Opens the log in `disk`'s directory.
///
/// Ordinals of new segments are greater than `ordinal_floor`: pass the greatest one that
/// anything outside the log remembers.
///
/// # Errors
/// When the directory can't be listed, or a file can be neither read nor set aside.
pub fn open(
    disk: Arc<dyn Disk>,
    config: LogConfig,
    ordinal_floor: u64,
    epochs: impl FnMut() -> Epoch + Send + 'static,
) -> Result<Opened, LogError> {
    let mut recovery = Recovery { disk, report: RecoveryReport::default(), lost: Vec::new() };
    let (mut found, ordinal_max) = recovery.find_segments(ordinal_floor)?;
    recovery.remove_void(&mut found);
    let declared = recovery.drop_empty_tail(&mut found);
    recovery.read_headless(&mut found)?;
    if let Some(last) = found.last_mut().filter(|last| !last.is_closed_by(declared)) {
        last.scan();
    }
    let segments = recovery.find_ends(&found, declared);
    recovery.sync_tail(&found);
    Ok(recovery.finish(config, segments, ordinal_max, Box::new(epochs)))
}

struct Recovery {
    disk: Arc<dyn Disk>,
    report: RecoveryReport,
    /// Ordinals of quarantined segments.
    lost: Vec<u64>,
}

/// A segment's file as it was found.
struct Found {
    ordinal: u64,
    file: Box<dyn DiskFile>,
    file_bytes: u64,
    header: Option<SegmentHeader>,
    /// Set once the whole file was read.
    scanned: Option<Scanned>,
}

impl Found {
    /// Whether its end is known without reading it.
    fn is_closed_by(&self, end: Option<SegmentEnd>) -> bool {
        self.header.is_some() && end.is_some_and(|end| end.ordinal == self.ordinal)
    }

    fn scan(&mut self) {
        if self.scanned.is_none() {
            self.scanned = scan_file(&*self.file, self.file_bytes, self.header);
        }
    }
}

impl Recovery {
    fn find_segments(&mut self, ordinal_floor: u64) -> Result<(Vec<Found>, u64), LogError> {
        let names = self.disk.list().map_err(LogError::disk("list the log's directory"))?;
        let mut ordinals = Vec::new();
        let mut ordinal_max = 0;
        for kind in names.iter().filter_map(|name| segment::parse_name(name)) {
            let (FileKind::Segment(ordinal) | FileKind::Damaged(ordinal)) = kind;
            ordinal_max = ordinal_max.max(ordinal);
            if matches!(kind, FileKind::Segment(_)) {
                ordinals.push(ordinal);
            }
        }
        ordinals.sort_unstable();
        let mut found = Vec::with_capacity(ordinals.len());
        for ordinal in ordinals {
            match patiently(|| self.load(ordinal)) {
                Ok(segment) => found.push(segment),
                Err(error) => {
                    tracing::error!(segment = ordinal, %error, "a segment can't be read");
                    self.quarantine(ordinal)?;
                }
            }
        }
        self.report.ordinal_max = ordinal_max;
        Ok((found, ordinal_max.max(ordinal_floor)))
    }

    fn load(&self, ordinal: u64) -> io::Result<Found> {
        let file = self.disk.open(&segment::file_name(ordinal))?;
        let file_bytes = file.length()?;
        let mut bytes = [0; segment::HEADER_BYTES];
        let n = file.read_at(0, &mut bytes)?;
        let whole = n == bytes.len();
        let header = whole.then(|| SegmentHeader::decode(&bytes, ordinal)).flatten();
        Ok(Found { ordinal, file, file_bytes, header, scanned: None })
    }

    fn quarantine(&mut self, ordinal: u64) -> Result<(), LogError> {
        let name = segment::damaged_name(ordinal);
        let rename = self.disk.rename(&segment::file_name(ordinal), &name);
        rename.map_err(LogError::disk("set a damaged segment aside"))?;
        self.disk.sync_dir().map_err(LogError::disk("sync the log's directory"))?;
        self.report.quarantined.push(name);
        self.lost.push(ordinal);
        Ok(())
    }

    /// Removes a file in which nothing counts. Left behind, it would count as little.
    fn remove(&mut self, ordinal: u64) {
        match self.disk.remove(&segment::file_name(ordinal)) {
            Ok(()) => self.report.void_files += 1,
            Err(error) => tracing::warn!(segment = ordinal, %error, "remove a void segment"),
        }
    }

    fn remove_void(&mut self, found: &mut Vec<Found>) {
        // From the newest down: a void file's own header says nothing.
        let mut at = found.len();
        while at > 0 {
            at -= 1;
            let Some(header) = found[at].header else { continue };
            let previous = header.previous.map_or(0, |previous| previous.ordinal);
            while at > 0 && found[at - 1].ordinal > previous {
                at -= 1;
                let void = found.remove(at);
                self.remove(void.ordinal);
            }
        }
    }

    /// Drops a last segment without records; returns the end it declared for the one before it.
    fn drop_empty_tail(&mut self, found: &mut Vec<Found>) -> Option<SegmentEnd> {
        let mut declared = None;
        while let Some(last) = found.pop_if(|last| last.file_bytes <= RECORDS_AT) {
            if let Some(header) = last.header {
                declared = header.previous;
            }
            self.remove(last.ordinal);
        }
        declared
    }

    /// Reads the segments without a valid header whole; sets those without a record aside.
    fn read_headless(&mut self, found: &mut Vec<Found>) -> Result<(), LogError> {
        let mut kept = Vec::with_capacity(found.len());
        for mut segment in found.drain(..) {
            if segment.header.is_none() {
                segment.scan();
                if segment.scanned.is_none() {
                    self.quarantine(segment.ordinal)?;
                    continue;
                }
                tracing::error!(segment = segment.ordinal, "a segment's header is damaged");
            }
            kept.push(segment);
        }
        *found = kept;
        Ok(())
    }

    fn find_ends(
        &mut self,
        found: &[Found],
        declared: Option<SegmentEnd>,
    ) -> BTreeMap<u64, Segment> {
        let mut segments = BTreeMap::new();
        let mut before: Option<(u64, SegmentEnd)> = None;
        for (at, this) in found.iter().enumerate() {
            if let Some(previous) = this.header.and_then(|header| header.previous) {
                self.check_missing(before, previous);
            }
            let end = match found.get(at + 1) {
                Some(next) => next.header.and_then(|header| header.previous),
                None => declared,
            };
            let end = end.filter(|end| end.ordinal == this.ordinal);
            let segment = self.end_of(this, end, at + 1 == found.len());
            let end = SegmentEnd {
                ordinal: this.ordinal,
                epoch: segment.epoch,
                next_seq: segment.next_seq,
                valid_bytes: segment.valid_bytes,
            };
            before = Some((this.ordinal, end));
            segments.insert(this.ordinal, segment);
        }
        if let (Some(end), Some((ordinal, _))) = (declared, before)
            && end.ordinal != ordinal
        {
            self.check_missing(before, end);
        }
        segments
    }

    /// Reports what stood in a segment that its successor names and that is not there.
    fn check_missing(&mut self, before: Option<(u64, SegmentEnd)>, named: SegmentEnd) {
        let is_there = before.is_some_and(|(ordinal, _)| ordinal == named.ordinal);
        // Without an older segment it was simply retired.
        if is_there || before.is_none() && !self.lost.contains(&named.ordinal) {
            return;
        }
        let first_seq = match before {
            Some((_, end)) if end.epoch == named.epoch => end.next_seq,
            _ => 0,
        };
        self.note(named.ordinal, named.epoch, first_seq, named.next_seq);
    }

    fn end_of(&mut self, found: &Found, declared: Option<SegmentEnd>, is_last: bool) -> Segment {
        let file_bytes = found.file_bytes;
        if let (Some(header), Some(end)) = (found.header, declared) {
            return Segment {
                epoch: header.epoch,
                first_seq: header.first_seq,
                next_seq: end.next_seq.max(header.first_seq),
                valid_bytes: end.valid_bytes.min(file_bytes),
                file_bytes,
            };
        }
        let scan = || scan_file(&*found.file, file_bytes, found.header);
        let Some(scanned) = found.scanned.clone().or_else(scan) else {
            // Not reached: without a header it was scanned, and with one a scan has a result.
            let (epoch, valid_bytes) = (Epoch(0), file_bytes);
            return Segment { epoch, first_seq: 0, next_seq: 0, valid_bytes, file_bytes };
        };
        for (first_seq, next_seq) in scanned.damaged {
            self.note(found.ordinal, scanned.epoch, first_seq, next_seq);
        }
        let mut next_seq = scanned.next_seq;
        if let Some(end) = declared.filter(|end| end.next_seq > next_seq) {
            self.note(found.ordinal, scanned.epoch, next_seq, end.next_seq);
            next_seq = end.next_seq;
        }
        if is_last {
            self.report.torn_bytes = file_bytes - scanned.valid_bytes;
        }
        Segment {
            epoch: scanned.epoch,
            first_seq: scanned.first_seq,
            next_seq,
            valid_bytes: scanned.valid_bytes,
            file_bytes,
        }
    }

    fn note(&mut self, segment: u64, epoch: Epoch, first_seq: u64, next_seq: u64) {
        if first_seq < next_seq {
            self.report.damaged.push(DamagedRange { segment, epoch, first_seq, next_seq });
        }
    }

    /// Writes the last record of the last segment once more and syncs it.
    fn sync_tail(&mut self, found: &[Found]) {
        self.report.tail_synced = true;
        let Some(last) = found.last() else { return };
        // A declared end was synced before it was declared.
        let scanned = last.scanned.as_ref();
        let Some((at, bytes)) = scanned.and_then(|scanned| scanned.last_record) else { return };
        let rewrite = || {
            let mut record = vec![0; bytes as usize];
            if last.file.read_at(at, &mut record)? < record.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            last.file.write_at(at, &record)?;
            last.file.sync()
        };
        if let Err(error) = rewrite() {
            tracing::error!(%error, "the last record of the log could not be synced again");
            self.report.tail_synced = false;
        }
    }

    fn finish(
        mut self,
        config: LogConfig,
        segments: BTreeMap<u64, Segment>,
        ordinal_max: u64,
        mut epochs: Epochs,
    ) -> Opened {
        let end = segments.last_key_value().map(|(&ordinal, segment)| SegmentEnd {
            ordinal,
            epoch: segment.epoch,
            next_seq: segment.next_seq,
            valid_bytes: segment.valid_bytes,
        });
        self.report.segments = segments.len();
        self.report.entries =
            segments.values().map(|segment| segment.next_seq - segment.first_seq).sum();
        let epoch = epochs();
        let mut state = State {
            segments,
            retired: None,
            ordinal_max,
            epoch,
            next_seq: 0,
            damaged: VecDeque::new(),
            damaged_entries: 0,
        };
        for range in &self.report.damaged {
            state.note_damage(*range);
        }
        let shared = Arc::new(Shared::new(self.disk, state));
        let writer = Writer {
            shared: shared.clone(),
            config,
            epochs,
            epoch,
            next_seq: 0,
            end,
            active: None,
            encoder: Encoder::new(config.compress),
        };
        Opened { writer, log: Log { shared }, report: self.report }
    }
}
