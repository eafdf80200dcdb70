//! Opening: starts whatever it finds.
//!
//! 1. Read the header of every segment. One whose file can't be read, or that has neither a valid
//!    header nor a valid record, is quarantined: renamed to `*.damaged`, never deleted.
//! 2. Remove empty files that no other segment names: a creation that was cut short.
//! 3. Take each segment's end from the headers that name it as their predecessor. Where there is
//!    none (the last one, what is left of a failed attempt, a successor with a damaged header),
//!    read the segment itself, up to its torn tail.
//! 4. Write the last record of those once more and sync it (see the module [`super`]).
//! 5. Begin a new epoch. Its first segment is created by the first append.
//!
//! A file of a failed attempt may come back after its removal, with records that were refused.
//! They are taken as they are: being refused never meant being gone, and telling such a file from
//! one that matters by what other files say would stake acknowledged entries on it.

use std::collections::{BTreeMap, HashMap, VecDeque};
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
    /// Files without a record that were removed.
    pub empty_files: usize,
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
    let mut recovery = Recovery {
        disk,
        report: RecoveryReport { tail_synced: true, ..RecoveryReport::default() },
        ends: HashMap::new(),
        lost: Vec::new(),
    };
    let (found, ordinal_max) = recovery.find_segments(ordinal_floor)?;
    let found = recovery.drop_empty(found);
    let mut found = recovery.quarantine_unreadable(found)?;
    for segment in &mut found {
        if !recovery.ends.contains_key(&segment.ordinal) {
            segment.scan();
            recovery.sync_last_record(segment);
        }
    }
    let segments = recovery.find_ends(&found);
    Ok(recovery.finish(config, segments, ordinal_max, Box::new(epochs)))
}

struct Recovery {
    disk: Arc<dyn Disk>,
    report: RecoveryReport,
    /// Where segments ended, by those that came after them.
    ends: HashMap<u64, SegmentEnd>,
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
                Ok(segment) => {
                    if let Some(end) = segment.header.and_then(|header| header.previous) {
                        self.note_end(end);
                    }
                    found.push(segment);
                }
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

    /// After a failed sync and a kill, a later header may know of more than an earlier one.
    fn note_end(&mut self, end: SegmentEnd) {
        let known = self.ends.entry(end.ordinal).or_insert(end);
        if end.valid_bytes > known.valid_bytes {
            *known = end;
        }
    }

    fn drop_empty(&mut self, found: Vec<Found>) -> Vec<Found> {
        let (empty, kept): (Vec<_>, Vec<_>) = found.into_iter().partition(|segment| {
            segment.file_bytes <= RECORDS_AT && !self.ends.contains_key(&segment.ordinal)
        });
        for segment in empty {
            // Left behind it would harm as little.
            match self.disk.remove(&segment::file_name(segment.ordinal)) {
                Ok(()) => self.report.empty_files += 1,
                Err(error) => tracing::warn!(%error, "remove an empty segment"),
            }
        }
        kept
    }

    /// Reads the segments without a valid header whole; sets those without a record aside.
    fn quarantine_unreadable(&mut self, found: Vec<Found>) -> Result<Vec<Found>, LogError> {
        let mut kept = Vec::with_capacity(found.len());
        for mut segment in found {
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
        Ok(kept)
    }

    fn find_ends(&mut self, found: &[Found]) -> BTreeMap<u64, Segment> {
        let mut segments = BTreeMap::new();
        for this in found {
            let end = self.ends.get(&this.ordinal).copied();
            segments.insert(this.ordinal, self.end_of(this, end));
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
        // Only its header knew where the oldest one began.
        if let Some((oldest, scanned)) = found.first().and_then(|f| Some((f, f.scanned.as_ref()?)))
            && oldest.header.is_none()
            && scanned.is_beheaded
        {
            self.note(oldest.ordinal, scanned.epoch, 0, scanned.first_seq);
        }
        segments
    }

    /// Numbers of an epoch go on from segment to segment, whatever their headers say.
    fn check_continuity(&mut self, segments: &BTreeMap<u64, Segment>) {
        let mut before: Option<(u64, Segment)> = None;
        for (&ordinal, &segment) in segments {
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
        let before = segments.range(..named.ordinal).next_back();
        // Segments are retired oldest first: without an older one, also among those that were set
        // aside, it was simply retired.
        let is_oldest = before.is_none() && self.lost.iter().all(|lost| *lost > named.ordinal);
        if segments.contains_key(&named.ordinal) || is_oldest {
            return;
        }
        let first_seq = match before {
            Some((_, segment)) if segment.epoch == named.epoch => segment.next_seq,
            _ => 0,
        };
        self.note(named.ordinal, named.epoch, first_seq, named.next_seq);
    }

    fn end_of(&mut self, found: &Found, declared: Option<SegmentEnd>) -> Segment {
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
        Segment {
            epoch: scanned.epoch,
            first_seq: scanned.first_seq,
            next_seq,
            valid_bytes: scanned.valid_bytes,
            file_bytes,
        }
    }

    fn note(&mut self, segment: u64, epoch: Epoch, first_seq: u64, next_seq: u64) {
        let covers = |known: &DamagedRange| {
            known.epoch == epoch && known.first_seq <= first_seq && next_seq <= known.next_seq
        };
        if first_seq < next_seq && !self.report.damaged.iter().any(covers) {
            self.report.damaged.push(DamagedRange { segment, epoch, first_seq, next_seq });
        }
    }

    /// Writes a segment's last record once more and syncs it.
    fn sync_last_record(&mut self, last: &Found) {
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
            untold_bytes_max: config.untold_bytes_max,
            told: HashMap::new(),
            released: VecDeque::new(),
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
