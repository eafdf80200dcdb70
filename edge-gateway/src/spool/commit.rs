//! Group commit: a bounded queue in front, one record and one sync for all that waited.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use penstock_common::log::record::{self, FRAME_BYTES, Frames, GROUP_BYTES_MAX};
use penstock_common::log::seal::SEAL_BYTES;
use penstock_common::log::{Group, LogError, Writer, segment};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::SpoolError;
use super::entry::Entry;
use super::open::Shared;

/// What a group takes on the disk at most beside its entries: it may begin a segment.
pub(super) const OVERHEAD_BYTES: u64 =
    (segment::HEADER_BYTES + record::HEADER_BYTES + SEAL_BYTES) as u64;

/// What the queue's semaphore counts.
const PERMIT_BYTES: usize = 1024;

/// Entries of one request, on their way to the disk.
pub(super) struct Submission {
    /// The entries as [`record::frame`] writes them.
    pub(super) framed: Vec<u8>,
    pub(super) count: u32,
    /// Taken when it is answered.
    pub(super) answer: Option<oneshot::Sender<Result<(), SpoolError>>>,
    /// Its share of the queue, given back when it is answered or dropped.
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) queue: Arc<Queue>,
}

impl Drop for Submission {
    fn drop(&mut self) {
        self.queue.bytes.fetch_sub(self.framed.len() as u64, Relaxed);
    }
}

/// What waits for the commit thread, bounded by bytes.
pub(super) struct Queue {
    permits: Arc<Semaphore>,
    permits_max: usize,
    bytes: AtomicU64,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    submissions: VecDeque<Submission>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: u64) -> Self {
        // At most `u32::MAX` by the configuration's check.
        let permits_max = (bytes_max as usize / PERMIT_BYTES).max(1);
        Self {
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            bytes: AtomicU64::new(0),
            waiting: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Waits for room. What is larger than the whole queue goes through alone.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, SpoolError> {
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.permits_max);
        let permit = self.permits.clone().acquire_many_owned(permits as u32).await;
        permit.map_err(|_| SpoolError::Closed)
    }

    /// Counts bytes as being on their way; returns all that are. A [`Submission`] gives its own
    /// back when it is dropped.
    pub(super) fn add_bytes(&self, bytes: usize) -> u64 {
        self.bytes.fetch_add(bytes as u64, Relaxed) + bytes as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn push(&self, submission: Submission) -> Result<(), SpoolError> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(SpoolError::Closed);
        }
        waiting.submissions.push_back(submission);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn close(&self) {
        self.permits.close();
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Everything that waits; `None` once closed and empty.
    fn take(&self) -> Option<VecDeque<Submission>> {
        let mut waiting = self.lock();
        while waiting.submissions.is_empty() {
            if waiting.is_closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut waiting.submissions))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Encodes entries the way the commit thread copies them into a group.
pub(super) fn frame(entries: &[Entry]) -> Result<Vec<u8>, SpoolError> {
    let bytes = entries.iter().map(|entry| FRAME_BYTES + entry.encoded_bytes_max()).sum();
    let mut framed = Vec::with_capacity(bytes);
    for entry in entries {
        let (at, mut result) = (framed.len(), Ok(()));
        record::frame(&mut framed, |out| result = entry.encode(out));
        let length = framed.len() - at;
        if result.is_err() || length > GROUP_BYTES_MAX {
            return Err(SpoolError::Disk(format!(
                "an entry of {length} bytes is too large for it"
            )));
        }
    }
    Ok(framed)
}

/// Closes the queue when the commit thread ends, however it does, so that nobody waits for it.
struct CloseOnDrop<'a>(&'a Queue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().submissions.clear();
    }
}

/// The commit thread.
pub(super) fn run(shared: &Shared, mut writer: Writer) {
    let _close = CloseOnDrop(&shared.queue);
    let group_bytes_max = shared.config.group_bytes_max as usize;
    let mut group = Group::new();
    let mut answers = Vec::new();
    let mut is_failing = false;
    while let Some(mut waiting) = shared.queue.take() {
        while let Some(first) = waiting.pop_front() {
            let result = if first.framed.len() > GROUP_BYTES_MAX {
                let result = commit_large(shared, &mut writer, &mut group, &first);
                answers.push(first);
                result
            } else {
                group.clear();
                group.push_framed(&first.framed, first.count);
                answers.push(first);
                while let Some(next) = waiting.front()
                    && group.bytes() + next.framed.len() <= group_bytes_max
                {
                    group.push_framed(&next.framed, next.count);
                    answers.extend(waiting.pop_front());
                }
                commit(shared, &mut writer, &group)
            };
            let result = result.map_err(|error| SpoolError::Disk(error.to_string()));
            note(shared, &mut is_failing, &result);
            for submission in answers.drain(..) {
                submission.answer(result.clone());
            }
        }
    }
}

impl Submission {
    fn answer(mut self, result: Result<(), SpoolError>) {
        let answer = self.answer.take();
        // Its room in the queue is free before anybody hears of it.
        drop(self);
        if let Some(answer) = answer {
            // Nobody listens when the device hung up; its entries are durable all the same.
            let _ = answer.send(result);
        }
    }
}

fn commit(shared: &Shared, writer: &mut Writer, group: &Group) -> Result<(), LogError> {
    let started = Instant::now();
    let appended = writer.append(group)?;
    let counters = &shared.counters;
    counters.groups.fetch_add(1, Relaxed);
    counters.entries.fetch_add(u64::from(appended.count), Relaxed);
    counters.plain_bytes.fetch_add(group.bytes() as u64, Relaxed);
    counters.record_bytes.fetch_add(appended.record_bytes, Relaxed);
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    counters.commit_micros.fetch_add(micros, Relaxed);
    counters.commit_micros_max.fetch_max(micros, Relaxed);
    let usage = shared.lanes.usage();
    if usage.used_bytes > usage.hard_bytes {
        shared.keeper.wake();
    }
    Ok(())
}

/// A submission that needs several records: answered after the last.
fn commit_large(
    shared: &Shared,
    writer: &mut Writer,
    group: &mut Group,
    submission: &Submission,
) -> Result<(), LogError> {
    group.clear();
    for entry in Frames::of(&submission.framed) {
        if group.bytes() + FRAME_BYTES + entry.len() > GROUP_BYTES_MAX {
            commit(shared, writer, group)?;
            group.clear();
        }
        group.push(entry);
    }
    commit(shared, writer, group)
}

/// Counts a disk error, and logs when the disk begins to fail or works again.
fn note(shared: &Shared, is_failing: &mut bool, result: &Result<(), SpoolError>) {
    match result {
        Err(error) => {
            shared.counters.disk_errors.fetch_add(1, Relaxed);
            if !std::mem::replace(is_failing, true) {
                tracing::error!(%error, "events are refused until the spool can be written");
            }
        }
        Ok(()) => {
            if std::mem::replace(is_failing, false) {
                tracing::info!("the spool can be written again");
            }
        }
    }
    shared.counters.is_failing.store(*is_failing, Relaxed);
}
