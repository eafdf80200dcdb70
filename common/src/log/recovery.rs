//! Opening: starts whatever it finds.
//!
//! 1. Read the header of every segment. One whose data the disk refuses, or that has neither a valid
//!    header nor a valid record, is quarantined: renamed to `*.damaged`, never deleted. One whose
//!    key is missing is set aside as `*.locked`, until it is there (see [`locked`]). An error that
//!    says nothing of the data (no permission, too many open files) ends the opening: it passes, or
//!    somebody sees to it, and nothing was set aside on its account.
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

use super::disk::{Disk, DiskFile, speaks_of_the_data};
use super::record::{Compression, Encoder};
use super::retire::Log;
use super::scan::{Scanned, patiently, scan_file};
use super::segment::{self, FileKind, HeaderError, Lane, RECORDS_AT, SegmentEnd, SegmentHeader};
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

/// Opens the main lane of the log in `disk`'s directory.
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
    let mut recovery = Recovery::new(Lane::Main, disk, config);
    let segments = recovery.recover()?;
    Ok(recovery.finish(segments, ordinal_floor, Box::new(epochs)))
}

/// Opens the dead lane of the log in `disk`'s directory, into which a [`super::Transfer`] moves
/// segments. Of `config` keys and [`LogConfig::untold_bytes_max`] count.
///
/// # Errors
/// As [`open`].
pub fn open_dead(
    disk: Arc<dyn Disk>,
    config: LogConfig,
) -> Result<(Log, RecoveryReport), LogError> {
    let mut recovery = Recovery::new(Lane::Dead, disk, config);
    let segments = recovery.recover()?;
    let shared = recovery.shared(segments, Epoch(0));
    Ok((Log { shared }, recovery.report))
}

struct Recovery {
    lane: Lane,
    disk: Arc<dyn Disk>,
    config: LogConfig,
    report: RecoveryReport,
    /// Where segments ended, by those that came after them.
    ends: HashMap<u64, SegmentEnd>,
    /// Ordinals of quarantined segments.
    lost: Vec<u64>,
    /// The least of those that stood in line: segments go oldest first, so that none behind it was
    /// retired and removed.
    lost_from: Option<u64>,
    /// Segments that can't be read yet, and why.
    locked: Vec<(Found, LockReason)>,
}

/// A segment's file as it was found.
struct Found {
    ordinal: u64,
    kind: FileKind,
    file_bytes: u64,
    header: Option<SegmentHeader>,
    /// Set once the whole file was read.
    scanned: Option<Scanned>,
}

impl Recovery {
    fn new(lane: Lane, disk: Arc<dyn Disk>, config: LogConfig) -> Self {
        let report = RecoveryReport { tail_synced: true, ..RecoveryReport::default() };
        let (ends, lost, locked) = (HashMap::new(), Vec::new(), Vec::new());
        Self { lane, disk, config, report, ends, lost, lost_from: None, locked }
    }

    fn recover(&mut self) -> Result<BTreeMap<u64, Segment>, LogError> {
        let found = self.find_segments()?;
        let found = self.drop_empty(found);
        let mut found = self.quarantine_unreadable(found)?;
        for segment in &mut found {
            if !self.ends.contains_key(&segment.ordinal) {
                self.scan(segment)?;
                self.sync_last_record(segment);
            }
        }
        self.tell_locked()?;
        let segments = self.find_ends(&found)?;
        self.report.segments = segments.len();
        let entries = |segment: &Segment| segment.next_seq - segment.first_seq;
        self.report.entries = segments.values().map(entries).sum();
        Ok(segments)
    }

    fn find_segments(&mut self) -> Result<Vec<Found>, LogError> {
        let names = self.disk.list().map_err(LogError::disk("list the log's directory"))?;
        let mut files: Vec<_> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
        // Of either lane: a segment keeps its ordinal when it moves.
        self.report.ordinal_max = files.iter().map(|(_, ordinal, _)| *ordinal).max().unwrap_or(0);
        files.retain(|(lane, _, kind)| *lane == self.lane && *kind != FileKind::Damaged);
        files.sort_unstable();
        // Of two files of one ordinal, which only hands can make, the segment comes first.
        files.dedup_by_key(|(_, ordinal, _)| *ordinal);
        let mut found = Vec::with_capacity(files.len());
        for (_, ordinal, kind) in files {
            if kind == FileKind::Partial {
                self.remove_partial(ordinal);
                continue;
            }
            match patiently(|| self.load(ordinal, kind)) {
                Ok((segment, header)) => {
                    let header_ends = segment.header.map(|head| [head.previous(), head.own_end()]);
                    for end in header_ends.into_iter().flatten().flatten() {
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
                Err(error) if speaks_of_the_data(&error) => {
                    tracing::error!(segment = ordinal, %error, "a segment can't be read");
                    self.quarantine(ordinal, kind)?;
                }
                Err(error) => return Err(LogError::disk("open a segment of the log")(error)),
            }
        }
        Ok(found)
    }

    fn name_of(&self, ordinal: u64, kind: FileKind) -> String {
        segment::name_of(self.lane, ordinal, kind)
    }

    /// A move that was cut short: the other lane has the segment.
    fn remove_partial(&self, ordinal: u64) {
        if let Err(error) = self.disk.remove(&self.name_of(ordinal, FileKind::Partial)) {
            tracing::warn!(%error, "remove what is left of a move");
        }
    }

    fn load(
        &self,
        ordinal: u64,
        kind: FileKind,
    ) -> io::Result<(Found, Result<SegmentHeader, HeaderError>)> {
        let file = self.disk.open(&self.name_of(ordinal, kind))?;
        let file_bytes = file.length()?;
        let mut bytes = [0; segment::HEADER_BYTES];
        let header = match file.read_at(0, &mut bytes)? {
            segment::HEADER_BYTES => SegmentHeader::decode(&bytes, ordinal),
            _ => Err(HeaderError::Damaged),
        };
        let found = Found { ordinal, kind, file_bytes, header: header.ok(), scanned: None };
        Ok((found, header))
    }

    /// Opened when it is needed, and not kept: there may be more segments than a process may have
    /// files open.
    fn file_of(&self, found: &Found) -> Result<Box<dyn DiskFile>, LogError> {
        let open = |kind| self.disk.open(&self.name_of(found.ordinal, kind));
        let opened = patiently(|| match open(found.kind) {
            // It was locked just now, on a disk that is only looked at.
            Err(error) if error.kind() == io::ErrorKind::NotFound => open(FileKind::Segment),
            opened => opened,
        });
        opened.map_err(LogError::disk("open a segment of the log"))
    }

    /// Reads the whole file, once.
    fn scan(&self, found: &mut Found) -> Result<(), LogError> {
        if found.scanned.is_none() {
            found.scanned = scan_file(&*self.file_of(found)?, found.file_bytes, found.header);
        }
        Ok(())
    }

    fn quarantine(&mut self, ordinal: u64, kind: FileKind) -> Result<(), LogError> {
        let name = self.name_of(ordinal, FileKind::Damaged);
        let rename = self.disk.rename(&self.name_of(ordinal, kind), &name);
        rename.map_err(LogError::disk("set a damaged segment aside"))?;
        self.disk.sync_dir().map_err(LogError::disk("sync the log's directory"))?;
        self.report.quarantined.push(name);
        self.lost.push(ordinal);
        if kind == FileKind::Segment {
            self.lost_from = Some(self.lost_from.map_or(ordinal, |least| least.min(ordinal)));
        }
        Ok(())
    }

    fn drop_empty(&mut self, found: Vec<Found>) -> Vec<Found> {
        let (empty, kept): (Vec<_>, Vec<_>) = found.into_iter().partition(|segment| {
            // What is moved gets its name once it is whole: there an empty file is damage.
            self.lane == Lane::Main
                && segment.file_bytes <= RECORDS_AT
                && !self.ends.contains_key(&segment.ordinal)
        });
        for segment in empty {
            // Left behind it would harm as little.
            match self.disk.remove(&self.name_of(segment.ordinal, segment.kind)) {
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
                self.scan(&mut segment)?;
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
            let file = self.disk.open(&self.name_of(last.ordinal, last.kind))?;
            let mut record = vec![0; bytes as usize];
            if file.read_at(at, &mut record)? < record.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_at(at, &record)?;
            file.sync()
        };
        if let Err(error) = rewrite() {
            tracing::error!(%error, "the last record of the log could not be synced again");
            self.report.tail_synced = false;
        }
    }

    fn shared(&mut self, segments: BTreeMap<u64, Segment>, epoch: Epoch) -> Arc<Shared> {
        let mut state = State {
            lane: self.lane,
            segments,
            retired: None,
            ordinal_max: self.report.ordinal_max,
            epoch,
            next_seq: 0,
            damaged: VecDeque::new(),
            damaged_entries: 0,
            has_forgotten: false,
            untold_bytes_max: self.config.untold_bytes_max,
            told: HashMap::new(),
            listed: Vec::new(),
            released: VecDeque::new(),
        };
        for range in &self.report.damaged {
            state.note_damage(*range);
        }
        Arc::new(Shared::new(self.disk.clone(), self.config.keys.clone(), state))
    }

    fn finish(
        mut self,
        segments: BTreeMap<u64, Segment>,
        ordinal_floor: u64,
        mut epochs: Epochs,
    ) -> Opened {
        let end = segments.last_key_value().map(|(&ordinal, segment)| SegmentEnd {
            ordinal,
            epoch: segment.epoch,
            next_seq: segment.next_seq,
            valid_bytes: segment.valid_bytes,
        });
        let epoch = epochs();
        let shared = self.shared(segments, epoch);
        shared.state().ordinal_max = self.report.ordinal_max.max(ordinal_floor);
        let config = self.config;
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
