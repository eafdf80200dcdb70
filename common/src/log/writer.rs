//! Appending: one record, one sync, then it counts.

use std::sync::Arc;

use crate::event::Epoch;

use super::disk::DiskFile;
use super::record::{Encoder, GROUP_BYTES_MAX, Group};
use super::segment::{self, FileKind, Origin, RECORDS_AT, SegmentEnd, SegmentHeader};
use super::state::{Segment, Shared};
use super::{LogConfig, LogError, Position};

/// Where epochs come from: [`Epoch::random`], or a test's.
pub(super) type Epochs = Box<dyn FnMut() -> Epoch + Send>;

/// Appends groups; there is one per log.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) config: LogConfig,
    pub(super) epochs: Epochs,
    pub(super) epoch: Epoch,
    pub(super) next_seq: u64,
    /// The end of the last segment with a synced record.
    pub(super) end: Option<SegmentEnd>,
    pub(super) active: Option<Active>,
    pub(super) encoder: Encoder,
}

/// The segment that is being written.
pub(super) struct Active {
    file: Box<dyn DiskFile>,
    ordinal: u64,
    first_seq: u64,
    synced_bytes: u64,
    /// Whether a record of it is synced. Until then nothing in it counts.
    live: bool,
}

/// A group that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The place of its first entry.
    pub first: Position,
    /// How many entries it has; their numbers follow each other.
    pub count: u32,
    /// What it took on the disk.
    pub record_bytes: u64,
}

impl Writer {
    /// Writes a group as one record and syncs it.
    ///
    /// # Errors
    /// When the group is empty or too large, or the disk refuses: then nothing of the group may
    /// be relied upon, and the next call tries a new segment in a new epoch.
    pub fn append(&mut self, group: &Group) -> Result<Appended, LogError> {
        if group.is_empty() || group.bytes() > GROUP_BYTES_MAX {
            let (bytes, bytes_max) = (group.bytes(), GROUP_BYTES_MAX);
            return Err(LogError::GroupSize { bytes, bytes_max });
        }
        if self.is_time_for_a_new_segment(group.bytes() as u64) {
            self.active = None;
        }
        self.try_append(group).inspect_err(|_| self.abandon())
    }

    /// The epoch and number that the next entry gets if all goes well.
    pub const fn next(&self) -> (Epoch, u64) {
        (self.epoch, self.next_seq)
    }

    fn try_append(&mut self, group: &Group) -> Result<Appended, LogError> {
        if self.active.is_none() {
            self.begin_segment()?;
        }
        let Some(active) = &mut self.active else {
            return Err(LogError::disk("begin a segment")(std::io::ErrorKind::NotFound.into()));
        };
        let record = self.encoder.encode(group, self.epoch, self.next_seq);
        let record_bytes = record.len() as u64;
        let write = active.file.write_at(active.synced_bytes, record);
        write.map_err(LogError::disk("write to the log"))?;
        active.file.sync().map_err(LogError::disk("sync the log"))?;

        let (epoch, count) = (self.epoch, group.count());
        let first = Position { segment: active.ordinal, epoch, seq: self.next_seq };
        active.synced_bytes += record_bytes;
        active.live = true;
        self.next_seq += u64::from(count);
        let (ordinal, first_seq, next_seq) = (active.ordinal, active.first_seq, self.next_seq);
        let valid_bytes = active.synced_bytes;
        self.end = Some(SegmentEnd { ordinal, epoch, next_seq, valid_bytes });
        let segment = Segment {
            epoch,
            first_seq,
            next_seq,
            valid_bytes,
            file_bytes: valid_bytes,
            kind: FileKind::Segment,
            moved: None,
            key: self.shared.keys.newest_id(),
        };
        let mut state = self.shared.state();
        state.segments.insert(ordinal, segment);
        state.epoch = epoch;
        state.next_seq = next_seq;
        drop(state);
        self.shared.grown.notify_all();
        Ok(Appended { first, count, record_bytes })
    }

    fn is_time_for_a_new_segment(&self, group_bytes: u64) -> bool {
        let Some(active) = self.active.as_ref().filter(|active| active.live) else { return false };
        if active.synced_bytes + group_bytes > self.config.segment_bytes {
            return true;
        }
        active.synced_bytes > self.config.retired_segment_bytes_max && {
            let state = self.shared.state();
            let segment = state.segments.get(&active.ordinal);
            segment.is_none_or(|segment| state.is_retired(active.ordinal, segment))
        }
    }

    fn begin_segment(&mut self) -> Result<(), LogError> {
        let ordinal = {
            let mut state = self.shared.state();
            state.ordinal_max += 1;
            state.ordinal_max
        };
        let header = SegmentHeader {
            ordinal,
            epoch: self.epoch,
            first_seq: self.next_seq,
            key: self.shared.keys.newest_id(),
            origin: Origin::Written { previous: self.end },
        };
        let disk = &self.shared.disk;
        let file = disk.create(&segment::file_name(ordinal));
        let file = file.map_err(LogError::disk("create a segment"))?;
        let active = Active {
            file,
            ordinal,
            first_seq: self.next_seq,
            synced_bytes: RECORDS_AT,
            live: false,
        };
        // Kept from here on, so that a failure removes it.
        let active = self.active.insert(active);
        active
            .file
            .write_at(0, &header.encode())
            .map_err(LogError::disk("write a segment's header"))?;
        active.file.sync().map_err(LogError::disk("sync a segment's header"))?;
        disk.sync_dir().map_err(LogError::disk("sync the log's directory"))
    }

    /// Leaves the segment where it was last synced and the epoch where it was last acknowledged.
    fn abandon(&mut self) {
        if let Some(active) = self.active.take() {
            if active.live {
                if let (Ok(length), Some(segment)) =
                    (active.file.length(), self.shared.state().segments.get_mut(&active.ordinal))
                {
                    segment.file_bytes = length.max(segment.valid_bytes);
                }
            } else {
                // Nothing in it counts: removing it only gives its space back.
                let _ = self.shared.disk.remove(&segment::file_name(active.ordinal));
            }
        }
        self.epoch = (self.epochs)();
        self.next_seq = 0;
        let mut state = self.shared.state();
        state.epoch = self.epoch;
        state.next_seq = 0;
    }
}
