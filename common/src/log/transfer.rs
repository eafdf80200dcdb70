//! Moving the oldest segment to another lane of the log, re-compressed, under its own numbers.
//!
//! The copy is a whole segment with the same ordinal, epoch and numbers, in larger records (zstd).
//! It is written to `*.part`, synced, renamed, and the name synced; only then may the lane it
//! stood in give its entries up. A crash before that leaves a `*.part`, which the next opening
//! removes, or both files: then both hold the entries, and the move is finished after the opening,
//! if the copy is sound and can be given its name once more. In no case is an entry in neither.
//!
//! What is retired when the move begins is left out. What can't be read is named as damaged, and
//! is a gap in the copy, where it is found again after a restart.

use std::io;
use std::time::Duration;

use super::disk::DiskFile;
use super::record::{Compression, Encoder, FRAME_BYTES, Group};
use super::retire::Log;
use super::scan::{Scan, patiently};
use super::segment::{self, FileKind, Moved, Origin, RECORDS_AT, SegmentHeader};
use super::state::Segment;
use super::{LogError, Position, Reader};

/// Records of the copy grow to about this size, uncompressed: larger ones compress little better.
const GROUP_BYTES: usize = 1 << 20;

/// Moves segments from one lane to another of the same directory; there is one per pair of lanes.
pub struct Transfer {
    from: Log,
    into: Log,
    encoder: Encoder,
    group: Group,
    /// A move that met a place that can't be read now, and goes on with the next call.
    active: Option<Active>,
}

/// A segment that is durable in the other lane. Its entries are to be retired in the lane it
/// stood in: [`Log::retire`] with [`Self::last`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// The place of its last entry, in both lanes.
    pub last: Position,
    /// Entries in the copy.
    pub entries: u64,
    /// What the segment took on the disk.
    pub bytes_before: u64,
    /// What its copy takes.
    pub bytes_after: u64,
}

struct Active {
    ordinal: u64,
    segment: Segment,
    reader: Reader,
    file: Box<dyn DiskFile>,
    written_bytes: u64,
    /// The first number that is not retired; the copy begins there.
    first_seq: u64,
    /// The number of the group's first entry.
    group_seq: u64,
    entries: u64,
}

enum Failed {
    Read(LogError),
    Write(LogError),
}

impl Transfer {
    /// From a lane into one that nobody writes.
    pub fn new(from: Log, into: Log) -> Self {
        let encoder = Encoder::new(Compression::Zstd, into.shared.keys.newest());
        Self { from, into, encoder, group: Group::new(), active: None }
    }

    /// The size of the segment that comes next; `None` if there is none.
    pub fn next_bytes(&self) -> Option<u64> {
        self.next().map(|(_, segment)| segment.file_bytes)
    }

    /// Whether a crash came between the copy of the oldest segment and its retirement: then
    /// [`Self::move_oldest`] must come before anything is read.
    pub fn is_unfinished(&self) -> bool {
        self.next().is_some_and(|(ordinal, _)| self.into.segment(ordinal).is_some())
    }

    /// Takes what stands before the oldest segment that is in both lanes as done with: it was, when
    /// the copy was made, however little of it is remembered after a crash. Nothing is concluded
    /// while a file says that something can't be read, or could not be for a while.
    ///
    /// # Errors
    /// When the directory can't be listed.
    pub fn retire_before_copy(&self) -> Result<(), LogError> {
        let names = self.into.shared.disk.list();
        let names = names.map_err(LogError::disk("list the log's directory"))?;
        let is_whole =
            names.iter().filter_map(|name| segment::parse_name(name)).all(|(lane, _, kind)| {
                match kind {
                    FileKind::Locked => false,
                    FileKind::Damaged => lane != self.into.shared.lane,
                    FileKind::Segment | FileKind::Partial => true,
                }
            });
        let before = is_whole.then(|| self.before_copy()).flatten();
        if let Some(position) = before {
            self.from.mark_retired(position);
        }
        Ok(())
    }

    /// The last place before the oldest segment that is in both lanes.
    fn before_copy(&self) -> Option<Position> {
        let state = self.from.shared.state();
        let mut waiting = state.segments.iter().filter(|(at, one)| !state.is_retired(**at, one));
        let (copied, _) = waiting.find(|(ordinal, _)| self.into.segment(**ordinal).is_some())?;
        let (&segment, before) = state.segments.range(..*copied).next_back()?;
        let seq = before.next_seq.saturating_sub(1);
        Some(Position { segment, epoch: before.epoch, seq })
    }

    /// Makes a durable copy of the oldest segment that is not retired, unless it is the newest.
    /// `None` if there is none, or it was retired meanwhile.
    ///
    /// # Errors
    /// When the disk refuses. Nothing is lost: the segment is where it was, or in both lanes. A
    /// place that can't be read counts as damaged after a few calls, as for a [`Reader`].
    pub fn move_oldest(&mut self, moved: Moved) -> Result<Option<Transferred>, LogError> {
        let Some((ordinal, segment)) = self.next() else {
            self.active = None;
            return Ok(None);
        };
        if self.into.segment(ordinal).is_some() {
            return self.finish(ordinal, &segment);
        }
        let active = self.active.take().filter(|active| active.ordinal == ordinal);
        let mut active = match active {
            Some(active) => active,
            None => self.begin(ordinal, segment)?,
        };
        match self.copy(&mut active).and_then(|()| self.publish(&mut active, moved)) {
            Ok(transferred) => Ok(transferred),
            Err(Failed::Read(error)) => {
                self.active = Some(active);
                Err(error)
            }
            Err(Failed::Write(error)) => {
                self.discard(ordinal);
                Err(error)
            }
        }
    }

    fn next(&self) -> Option<(u64, Segment)> {
        let state = self.from.shared.state();
        let mut waiting = state.segments.iter().filter(|(at, one)| !state.is_retired(**at, one));
        let (&ordinal, &segment) = waiting.next()?;
        // The newest may be the one that is being written.
        let is_newest = state.segments.last_key_value().is_some_and(|(last, _)| *last == ordinal);
        drop(state);
        // Places of the other lane only go up: a segment that comes back late, because its key was
        // missing or its move could not be finished, would be passed over by its reader, and count
        // as retired with what stands there already.
        let is_late = self.into.segment(ordinal).is_none() && self.into.is_beyond(ordinal);
        (!is_newest && !is_late).then_some((ordinal, segment))
    }

    fn begin(&mut self, ordinal: u64, segment: Segment) -> Result<Active, LogError> {
        self.group.clear();
        let name = self.into.name_of(ordinal, FileKind::Partial);
        let file = self.create_part(&name);
        let retired = self.from.retired();
        let waits_from = match retired {
            Some(retired) if retired.segment == ordinal => retired.seq.saturating_add(1),
            _ => 0,
        };
        Ok(Active {
            ordinal,
            segment,
            reader: Reader::within(self.from.shared.clone(), ordinal, retired),
            file: file.map_err(LogError::disk("create the copy of a segment"))?,
            written_bytes: RECORDS_AT,
            first_seq: waits_from.max(segment.first_seq),
            group_seq: 0,
            entries: 0,
        })
    }

    fn copy(&mut self, active: &mut Active) -> Result<(), Failed> {
        while let Some(batch) = active.reader.next(Duration::ZERO).map_err(Failed::Read)? {
            let is_next = batch.first.seq == active.group_seq + u64::from(self.group.count());
            if !self.group.is_empty() && !is_next {
                self.flush(active)?;
            }
            for (position, entry) in batch.entries() {
                let is_full = self.group.bytes() + FRAME_BYTES + entry.len() > GROUP_BYTES;
                if !self.group.is_empty() && is_full {
                    self.flush(active)?;
                }
                if self.group.is_empty() {
                    active.group_seq = position.seq;
                }
                self.group.push(entry);
            }
        }
        self.flush(active)
    }

    fn flush(&mut self, active: &mut Active) -> Result<(), Failed> {
        if self.group.is_empty() {
            return Ok(());
        }
        let record = self.encoder.encode(&self.group, active.segment.epoch, active.group_seq);
        let write = active.file.write_at(active.written_bytes, record);
        write.map_err(LogError::disk("write the copy of a segment")).map_err(Failed::Write)?;
        active.written_bytes += record.len() as u64;
        active.entries += u64::from(self.group.count());
        self.group.clear();
        Ok(())
    }

    /// Syncs the copy, gives it its name, and lets the other lane read it.
    fn publish(
        &mut self,
        active: &mut Active,
        moved: Moved,
    ) -> Result<Option<Transferred>, Failed> {
        let Active { ordinal, segment, first_seq, entries, .. } = *active;
        let Segment { epoch, next_seq, .. } = segment;
        let is_retired = self.from.shared.state().is_retired(ordinal, &segment);
        let last = Position { segment: ordinal, epoch, seq: next_seq.saturating_sub(1) };
        let bytes_before = segment.file_bytes;
        if is_retired || entries == 0 {
            self.discard(ordinal);
            // Without any entry left it is done with as well: what it held is named as damaged.
            let nothing_left = Transferred { last, entries, bytes_before, bytes_after: 0 };
            return Ok((!is_retired).then_some(nothing_left));
        }
        let valid_bytes = active.written_bytes;
        let header = SegmentHeader {
            ordinal,
            epoch,
            first_seq,
            key: self.into.shared.keys.newest_id(),
            origin: Origin::Moved { moved, next_seq, valid_bytes },
        };
        self.name(&*active.file, &header)
            .map_err(LogError::disk("make the copy of a segment durable"))
            .map_err(Failed::Write)?;
        let copy = Segment {
            epoch,
            first_seq,
            next_seq,
            valid_bytes,
            file_bytes: valid_bytes,
            kind: FileKind::Segment,
            moved: Some(moved),
            key: header.key,
        };
        self.into.adopt(ordinal, copy);
        Ok(Some(Transferred { last, entries, bytes_before, bytes_after: valid_bytes }))
    }

    fn name(&self, file: &dyn DiskFile, header: &SegmentHeader) -> io::Result<()> {
        file.write_at(0, &header.encode())?;
        file.sync()?;
        let disk = &self.into.shared.disk;
        let name = |kind| self.into.name_of(header.ordinal, kind);
        disk.rename(&name(FileKind::Partial), &name(FileKind::Segment))?;
        disk.sync_dir()
    }

    /// Gives the space of an attempt back; what is left of it is removed at the next opening.
    fn discard(&mut self, ordinal: u64) {
        self.group.clear();
        let _ = self.into.shared.disk.remove(&self.into.name_of(ordinal, FileKind::Partial));
    }

    /// A crash came between the copy and its retirement. If the copy is as it was written, it
    /// counts: the segment must not be read any more, because what came after it may have been.
    fn finish(&mut self, ordinal: u64, segment: &Segment) -> Result<Option<Transferred>, LogError> {
        let Some(copy) = self.into.segment(ordinal) else { return Ok(None) };
        let name = self.into.name_of(ordinal, copy.kind);
        let entries = patiently(|| {
            let file = self.into.shared.disk.open(&name)?;
            whole_entries(&*file, &copy)
        });
        let Some(entries) = entries.map_err(LogError::disk("check the copy of a segment"))? else {
            tracing::error!(
                segment = ordinal,
                "the copy of a segment is damaged; the segment stays"
            );
            return Ok(None);
        };
        if let Err(error) = self.write_again(ordinal) {
            self.discard(ordinal);
            // The lane it stood in goes on with it.
            self.into.forget(ordinal);
            return Err(LogError::disk("make the copy of a segment durable")(error));
        }
        let Segment { epoch, next_seq, file_bytes, .. } = *segment;
        let last = Position { segment: ordinal, epoch, seq: next_seq.saturating_sub(1) };
        let (bytes_before, bytes_after) = (file_bytes, copy.file_bytes);
        Ok(Some(Transferred { last, entries, bytes_before, bytes_after }))
    }

    /// The name may be there without being durable, where the sync after the renaming failed; a
    /// sync that succeeds later proves nothing of it. So the copy is written once more and takes
    /// its own place: at no moment is there no copy under the name, from which an opening concludes
    /// what became of those before and after it.
    fn write_again(&self, ordinal: u64) -> io::Result<()> {
        let disk = &self.into.shared.disk;
        let [name, part] =
            [FileKind::Segment, FileKind::Partial].map(|kind| self.into.name_of(ordinal, kind));
        let (from, into) = (disk.open(&name)?, self.create_part(&part)?);
        let (mut at, mut bytes) = (0, vec![0; GROUP_BYTES]);
        loop {
            let count = from.read_at(at, &mut bytes)?;
            if count == 0 {
                break;
            }
            into.write_at(at, &bytes[..count])?;
            at += count as u64;
        }
        into.sync()?;
        disk.rename(&part, &name)?;
        disk.sync_dir()
    }

    fn create_part(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let disk = &self.into.shared.disk;
        disk.create(name).or_else(|_| {
            // What is left of an attempt before.
            disk.remove(name)?;
            disk.create(name)
        })
    }
}

/// How many entries a copy has; `None` unless every byte of it is as it was written.
fn whole_entries(file: &dyn DiskFile, copy: &Segment) -> io::Result<Option<u64>> {
    let mut scan =
        Scan { file, end: copy.valid_bytes, epoch: Some(copy.epoch), seq_min: copy.first_seq };
    let (mut at, mut entries, mut body) = (RECORDS_AT, 0, Vec::new());
    while at < copy.valid_bytes {
        let Some(header) = scan.header_at(at)? else { return Ok(None) };
        if !scan.body_at(at, &header, &mut body)? {
            return Ok(None);
        }
        at += header.record_bytes();
        entries += u64::from(header.count);
        scan.seq_min = header.next_seq();
    }
    let is_whole = copy.valid_bytes == copy.file_bytes && copy.kind == FileKind::Segment;
    Ok((is_whole && scan.seq_min <= copy.next_seq).then_some(entries))
}
