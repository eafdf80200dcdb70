//! Opening and closing: the lock, the log, the index, the threads.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use penstock_common::clock::SystemClock;
use penstock_common::event::Epoch;
use penstock_common::log::disk::Disk;
use penstock_common::log::real::RealDisk;
use penstock_common::log::{DamagedRange, RecoveryReport};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::commit::{self, Queue};
use super::index::Index;
use super::keeper::{self, Keeper};
use super::keys;
use super::lanes::{Lanes, OpenLanes, Parts};
use super::stat::Counters;
use super::{Lane, SpoolConfig, SpoolHandle, SpoolReader};

/// An open spool.
pub struct OpenSpool {
    /// Writes and retires.
    pub handle: SpoolHandle,
    /// Reads what is not retired.
    pub reader: SpoolReader,
    /// Reads what gave way: dead letters.
    pub dead_reader: SpoolReader,
    /// What was found on the disk.
    pub report: RecoveryReport,
    /// What was found of the dead lane.
    pub dead_report: RecoveryReport,
}

/// What the handle, the reader and both threads share.
pub(super) struct Shared {
    pub(super) config: SpoolConfig,
    pub(super) lanes: Arc<Lanes>,
    pub(super) queue: Arc<Queue>,
    pub(super) keeper: Keeper,
    pub(super) counters: Counters,
    pub(super) locked: Locked,
}

/// What can't be read yet.
#[derive(Clone, Copy)]
pub(super) struct Locked {
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Locked {
    fn of(reports: [&RecoveryReport; 2]) -> Self {
        let all = || reports.into_iter().flat_map(|report| &report.locked);
        let entries = |range: DamagedRange| range.entries();
        Self {
            segments: all().count() as u64,
            bytes: all().map(|locked| locked.file_bytes).sum(),
            entries: all().filter_map(|locked| locked.range).map(entries).sum(),
        }
    }
}

/// What ends with the last handle.
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Inner {
    pub(super) fn close(&self) {
        // One after the other: the keeper writes down what was retired until the end.
        self.shared.queue.close();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the spool panicked");
            }
            self.shared.keeper.close();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.keeper.close();
    }
}

/// Opens the spool in `config.dir`, whatever state it was left in.
///
/// # Errors
/// When another process has it open, or the directory can't be used at all.
pub fn open(config: &SpoolConfig) -> anyhow::Result<OpenSpool> {
    let path = config.dir.join("segments");
    let disk = RealDisk::open(&path)
        .with_context(|| format!("open the spool's directory {}", path.display()))?;
    open_on(Arc::new(disk), config)
}

/// Opens the spool with its segments on `disk`; lock and index stay in `config.dir`.
///
/// # Errors
/// As [`open`].
pub fn open_on(disk: Arc<dyn Disk>, config: &SpoolConfig) -> anyhow::Result<OpenSpool> {
    let lock = lock(&config.dir)?;
    let keys = keys::for_spool(config)?;
    let index = Index::open(&config.dir);
    let parts = Parts {
        disk,
        config,
        keys,
        written: index.retired(),
        epochs: Box::new(Epoch::random),
        clock: Arc::new(SystemClock),
        lock: Some(lock),
    };
    let OpenLanes { lanes, writer, report, dead_report, is_in_order } = Lanes::open(parts)
        .with_context(|| format!("open the spool in {}", config.dir.display()))?;
    if !is_in_order {
        tracing::error!("the disk refuses to finish a move; older events may follow later ones");
    }
    announce("main", &report, config);
    announce("dead", &dead_report, config);
    let lanes = Arc::new(lanes);
    let shared = Arc::new(Shared {
        config: config.clone(),
        lanes: lanes.clone(),
        queue: Arc::new(Queue::new(config.queue_bytes_max)),
        keeper: Keeper::default(),
        counters: Counters::default(),
        locked: Locked::of([&report, &dead_report]),
    });
    let commit = {
        let shared = shared.clone();
        spawn("spool-commit", move || commit::run(&shared, writer))?
    };
    // From here on a failure drops `inner`, which ends the thread.
    let inner = Inner { shared: shared.clone(), threads: Mutex::new(vec![commit]) };
    let keeper = {
        let (shared, written) = (shared.clone(), lanes.retired());
        spawn("spool-keeper", move || keeper::run(&shared, index, written))?
    };
    inner.threads.lock().unwrap_or_else(PoisonError::into_inner).push(keeper);
    // What was retired before, but not removed.
    shared.keeper.wake();
    let handle = SpoolHandle { inner: Arc::new(inner) };
    let reader = SpoolReader::new(lanes.clone(), Lane::Main);
    let dead_reader = SpoolReader::new(lanes, Lane::Dead);
    Ok(OpenSpool { handle, reader, dead_reader, report, dead_report })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.with_context(|| format!("start the thread {name}"))
}

fn announce(lane: &str, report: &RecoveryReport, config: &SpoolConfig) {
    let RecoveryReport { segments, entries, torn_bytes, .. } = report;
    tracing::info!(lane, segments, entries, torn_bytes, "the spool is open");
    let is_locked = |range: &&DamagedRange| {
        report.locked.iter().filter_map(|one| one.range).any(|locked| locked.covers(range))
    };
    for range in report.damaged.iter().filter(|range| !is_locked(range)) {
        tracing::error!(%range, "the spool is damaged; what follows goes on");
    }
    for name in &report.quarantined {
        tracing::error!(name, "a damaged file of the spool is set aside");
    }
    for locked in &report.locked {
        tracing::error!(
            %locked,
            key_file = %config.key_file().display(),
            "events in the spool can't be read yet; they are kept: bring the key back into the \
             key file, or the later program back, and start again"
        );
    }
}

/// Takes the directory for this process; the system gives it back when the process ends.
fn lock(dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("create the spool's directory {}", dir.display()))?;
    let path = dir.join("LOCK");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let owner = std::fs::read_to_string(&path).unwrap_or_default();
            bail!(
                "the spool in {} is in use by another gateway (process {}); \
                 stop it, or give this one its own spool.dir",
                dir.display(),
                if owner.trim().is_empty() { "unknown" } else { owner.trim() }
            );
        }
        Err(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
    }
    // Only for the message above: the lock is what counts.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}
