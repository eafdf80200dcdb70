//! Finds the snapshot at the start, and watches the file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_common::clock::Clock;
use penstock_common::snapshot::{self as file, CorePressure, FileError, SnapshotError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Current, Origin, SnapshotConfig, SnapshotMetrics, Snapshots};

/// Looks at the file and replaces the snapshot.
pub struct Watcher {
    config: SnapshotConfig,
    clock: Arc<dyn Clock>,
    metrics: SnapshotMetrics,
    current: watch::Sender<Arc<Current>>,
    core_pressure: watch::Sender<CorePressure>,
    fault: Arc<Mutex<Option<String>>>,
    /// The file as it was when it was last read; none: not there, or not looked at yet.
    seen: Option<Stamp>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// The best snapshot that there is, and who looks for better ones.
///
/// # Errors
/// Never in practice: what is built in can be used.
pub fn open(
    config: SnapshotConfig,
    clock: Arc<dyn Clock>,
    metrics: SnapshotMetrics,
) -> Result<(Snapshots, Watcher), SnapshotError> {
    let (current, receiver) = watch::channel(Arc::new(Current::baked()?));
    let (core_pressure, pressure_receiver) = watch::channel(CorePressure::default());
    let fault = Arc::default();
    let snapshots = Snapshots {
        current: receiver,
        core_pressure: pressure_receiver,
        fault: Arc::clone(&fault),
    };
    let mut watcher = Watcher { config, clock, metrics, current, core_pressure, fault, seen: None };
    watcher.first();
    Ok((snapshots, watcher))
}

impl Watcher {
    /// Looks until `stop`. Nothing that it finds ends it.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut interval =
            tokio::time::interval(Duration::from_millis(self.config.poll_interval_ms));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            // Reading and compiling take milliseconds, and a sick disk longer.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(watcher) => self = watcher,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
    }

    /// Takes the first that can be used.
    fn first(&mut self) {
        self.seen = self.config.file.as_deref().and_then(Stamp::of);
        let (loaded, refused) = find(&self.config);
        for error in &refused {
            self.refuse(error);
        }
        if let Some(loaded) = loaded {
            return self.replace(loaded);
        }
        let baked = Arc::clone(&self.current.borrow());
        self.metrics.show(&baked, self.clock.now());
        tracing::warn!("no snapshot could be read: the built-in schemas hold, and no key is known");
    }

    /// Looks once.
    fn look(&mut self) {
        if let Some(path) = self.config.file.clone() {
            let stamp = Stamp::of(&path);
            if stamp != self.seen {
                // Before it is read: a change meanwhile is seen at the next look.
                self.seen = stamp;
                match load(&path, Origin::File) {
                    Ok(loaded) => self.replace(loaded),
                    Err(error) => self.refuse(&error),
                }
            }
        }
        self.metrics.show(&self.current.borrow(), self.clock.now());
    }

    fn replace(&mut self, (current, bytes): Loaded) {
        let before = self.current.borrow().made_at;
        if before.is_some_and(|before| current.made_at < Some(before)) {
            tracing::warn!(
                made_at = ?current.made_at, ?before,
                "the new snapshot is older than the one before: keys and limits of then hold again"
            );
        }
        if current.origin == Origin::File {
            self.keep(&current, &bytes);
            self.set_fault(None);
            self.metrics.taken.inc();
        }
        let now = self.clock.now();
        tracing::info!(
            origin = current.origin.as_str(),
            made_at = ?current.made_at,
            sha256 = current.sha256.get(..12),
            schemas = current.schemas.schemas().len(),
            keys = current.keys.valid(now),
            "snapshot taken"
        );
        self.core_pressure.send_replace(current.core_pressure.clone());
        let current = Arc::new(current);
        self.metrics.show(&current, now);
        self.current.send_replace(current);
    }

    /// Tells that a file is no good. The same file is told once: it is read again only when it
    /// changes.
    fn refuse(&self, error: &FileError) {
        self.metrics.refused.inc();
        let held = self.current.borrow().origin.as_str();
        tracing::error!(%error, held, "the snapshot file can't be used; the present one stays");
        if self.config.file.as_ref() == Some(&error.path) {
            self.set_fault(Some(error.to_string()));
        }
    }

    /// Writes the copy, where it is not that already.
    fn keep(&self, current: &Current, bytes: &[u8]) {
        let Some(path) = self.config.kept() else { return };
        if file::read(&path).is_ok_and(|(kept, _)| kept.sha256 == current.sha256) {
            return;
        }
        if let Err(error) = file::write(&path, bytes) {
            tracing::warn!(
                %error,
                "no copy of the snapshot is kept, so that a broken file and a restart would leave \
                 no key: let snapshot.kept_file be where the gateway can write, or set it to \"\""
            );
        }
    }

    fn set_fault(&self, fault: Option<String>) {
        self.metrics.faulty.set(i64::from(fault.is_some()));
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// What a gateway would begin with, and what is wrong with the files before it. Changes nothing.
///
/// # Errors
/// Never in practice: what is built in can be used.
pub fn survey(config: &SnapshotConfig) -> Result<(Current, Vec<FileError>), SnapshotError> {
    let (loaded, refused) = find(config);
    let current = match loaded {
        Some((current, _)) => current,
        None => Current::baked()?,
    };
    Ok((current, refused))
}

type Loaded = (Current, Vec<u8>);

/// The first file that can be used, and what is wrong with those before it.
fn find(config: &SnapshotConfig) -> (Option<Loaded>, Vec<FileError>) {
    let places = [
        (config.file.clone(), Origin::File),
        (config.kept(), Origin::Kept),
        (config.image_file.clone(), Origin::Image),
    ];
    let mut refused = Vec::new();
    for (path, origin) in places {
        let Some(path) = path else { continue };
        match load(&path, origin) {
            Ok(loaded) => return (Some(loaded), refused),
            // No copy is kept yet: nothing to tell.
            Err(error) if origin == Origin::Kept && error.is_missing() => {}
            Err(error) => refused.push(error),
        }
    }
    (None, refused)
}

fn load(path: &Path, origin: Origin) -> Result<Loaded, FileError> {
    let (decoded, bytes) = file::read(path)?;
    let current = Current::of(decoded, origin);
    let current =
        current.map_err(|error| FileError { path: PathBuf::from(path), problem: error.into() })?;
    Ok((current, bytes))
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}
