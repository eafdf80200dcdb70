//! Opening: starts whatever it finds.
//!
//! 1. Read the header of every segment. One whose file can't be read, or that has neither a valid
//!    header nor a valid record, is quarantined: renamed to `*.damaged`, never deleted. One whose
//!    key is missing is set aside as `*.locked`, until it is there (see [`locked`]).
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
use super::record::{Compression, Encoder};
use super::retire::Log;
use super::scan::{Scanned, patiently, scan_file};
use super::segment::{self, FileKind, HeaderError, RECORDS_AT, SegmentEnd, SegmentHeader};
use super::state::{Segment, Shared, State};
use super::writer::{Epochs, Writer};
use super::{DamagedRange, LogConfig, LogError};

mod ends;
mod locked;

pub use self::locked::{LockReason, Locked};

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
    /// Segments that can't be read yet, because their key is missing or their format is later.
    pub locked: Vec<Locked>,
    /// The least ordinal of a segment that was locked once and can be read now. Where retirement
    /// was written down at or after it does not count: its entries were passed over by then.
    pub unlocked: Option<u64>,
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
        config,
        report: RecoveryReport { tail_synced: true, ..RecoveryReport::default() },
        ends: HashMap::new(),
        lost: Vec::new(),
        locked: Vec::new(),
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
    recovery.tell_locked();
    let segments = recovery.find_ends(&found);
    Ok(recovery.finish(segments, ordinal_max, Box::new(epochs)))
}

struct Recovery {
    disk: Arc<dyn Disk>,
    config: LogConfig,
    report: RecoveryReport,
    /// Where segments ended, by those that came after them.
    ends: HashMap<u64, SegmentEnd>,
    /// Ordinals of quarantined segments.
    lost: Vec<u64>,
    /// Segments that can't be read yet, and why.
    locked: Vec<(Found, LockReason)>,
}

/// A segment's file as it was found.
struct Found {
    ordinal: u64,
    kind: FileKind,
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
        let mut files: Vec<_> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
        files.sort_unstable();
        let ordinal_max = files.last().map_or(0, |(ordinal, _)| *ordinal);
        files.retain(|(_, kind)| *kind != FileKind::Damaged);
        // Of two files of one ordinal, which only hands can make, the segment comes first.
        files.dedup_by_key(|(ordinal, _)| *ordinal);
        let mut found = Vec::with_capacity(files.len());
        for (ordinal, kind) in files {
            match patiently(|| self.load(ordinal, kind)) {
                Ok((segment, header)) => {
                    if let Some(end) = segment.header.and_then(|header| header.previous) {
                        self.note_end(end);
                    }
                    let key = segment.header.map(|header| header.key);
                    found.extend(match header {
                        Err(HeaderError::Version(version)) => {
                            self.lock(segment, LockReason::Version(version))?
                        }
                        _ => self.lock_unless_readable(segment, key)?,
                    });
                }
                Err(error) => {
                    tracing::error!(segment = ordinal, %error, "a segment can't be read");
                    self.quarantine(ordinal, kind)?;
                }
            }
        }
        self.report.ordinal_max = ordinal_max;
        Ok((found, ordinal_max.max(ordinal_floor)))
    }

    fn load(
        &self,
        ordinal: u64,
        kind: FileKind,
    ) -> io::Result<(Found, Result<SegmentHeader, HeaderError>)> {
        let file = self.disk.open(&segment::name_of(ordinal, kind))?;
        let file_bytes = file.length()?;
        let mut bytes = [0; segment::HEADER_BYTES];
        let header = match file.read_at(0, &mut bytes)? {
            segment::HEADER_BYTES => SegmentHeader::decode(&bytes, ordinal),
            _ => Err(HeaderError::Damaged),
        };
        let found = Found { ordinal, kind, file, file_bytes, header: header.ok(), scanned: None };
        Ok((found, header))
    }

    fn quarantine(&mut self, ordinal: u64, kind: FileKind) -> Result<(), LogError> {
        let name = segment::damaged_name(ordinal);
        let rename = self.disk.rename(&segment::name_of(ordinal, kind), &name);
        rename.map_err(LogError::disk("set a damaged segment aside"))?;
        self.disk.sync_dir().map_err(LogError::disk("sync the log's directory"))?;
        self.report.quarantined.push(name);
        self.lost.push(ordinal);
        Ok(())
    }

    fn drop_empty(&mut self, found: Vec<Found>) -> Vec<Found> {
        let (empty, kept): (Vec<_>, Vec<_>) = found.into_iter().partition(|segment| {
            segment.file_bytes <= RECORDS_AT && !self.ends.contains_key(&segment.ordinal)
        });
        for segment in empty {
            // Left behind it would harm as little.
            match self.disk.remove(&segment::name_of(segment.ordinal, segment.kind)) {
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
                let Some(key) = segment.scanned.as_ref().map(|scanned| scanned.key) else {
                    self.quarantine(segment.ordinal, segment.kind)?;
                    continue;
                };
                tracing::error!(segment = segment.ordinal, "a segment's header is damaged");
                kept.extend(self.lock_unless_readable(segment, Some(key))?);
                continue;
            }
            kept.push(segment);
        }
        Ok(kept)
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
        let config = self.config;
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
        let shared = Arc::new(Shared::new(self.disk, config.keys.clone(), state));
        let compression = if config.compress { Compression::Lz4 } else { Compression::None };
        let encoder = Encoder::new(compression, config.keys.newest());
        let writer = Writer {
            shared: shared.clone(),
            config,
            epochs,
            epoch,
            next_seq: 0,
            end,
            active: None,
            encoder,
        };
        Opened { writer, log: Log { shared }, report: self.report }
    }
}
