//! The spool as a technician looks at it: read without changing anything.
//!
//! Opening repairs nothing here (see [`ReadOnlyDisk`]); it finds what the gateway would find. With
//! the gateway running only a look is possible: what it says may be a moment old.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use penstock_common::event::Epoch;
use penstock_common::log::disk::Disk;
use penstock_common::log::read_only::ReadOnlyDisk;
use penstock_common::log::segment::{FileKind, Lane, parse_name};
use penstock_common::log::{
    DamagedRange, Log, LogConfig, Opened, Position, RecoveryReport, open, open_dead,
};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::entry::{Entry, EntryError};
use super::index::Index;
use super::{SpoolConfig, keys};

/// Who has the spool open.
pub enum Owner {
    /// Nobody: it stays like this while the file is held.
    Nobody(Option<File>),
    /// A gateway, with its process id as far as it is known.
    Gateway(String),
}

/// A spool that is looked at.
pub struct Offline {
    /// Events to forward.
    pub main: Log,
    /// What gave way.
    pub dead: Log,
    /// What an opening finds of the main lane.
    pub report: RecoveryReport,
    /// What an opening finds of the dead lane.
    pub dead_report: RecoveryReport,
    /// Files that were set aside because something in them is damaged, with their sizes.
    pub damaged_files: Vec<(String, u64)>,
    /// Bytes that the disk still has.
    pub free_bytes: Option<u64>,
}

/// An entry as it stands in the spool.
pub struct Stored {
    /// Its place.
    pub position: Position,
    /// What it is; or why it can't be read although its record is whole.
    pub entry: Result<Entry, EntryError>,
}

/// Whether a gateway has the spool in `dir` open.
///
/// # Errors
/// When the lock can't be asked.
pub fn owner(dir: &Path) -> anyhow::Result<Owner> {
    let path = dir.join("LOCK");
    let file = match OpenOptions::new().read(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Owner::Nobody(None));
        }
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Owner::Nobody(Some(file))),
        Err(Errno::WOULDBLOCK) => {
            let process = std::fs::read_to_string(&path).unwrap_or_default();
            Ok(Owner::Gateway(process.trim().to_owned()))
        }
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

impl Offline {
    /// Looks at the spool in `config.dir`, whoever has it open.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub fn look(config: &SpoolConfig) -> anyhow::Result<Self> {
        let path = config.dir.join("segments");
        if !path.is_dir() {
            bail!("there is no spool in {} (spool.dir)", config.dir.display());
        }
        let context = || format!("read the spool's directory {}", path.display());
        let disk = Arc::new(ReadOnlyDisk::open(&path).with_context(context)?);
        let keys = keys::to_read(&config.key_file())?;
        let log_config = LogConfig { keys, ..LogConfig::default() };
        let (dead, dead_report) =
            open_dead(disk.clone(), log_config.clone()).with_context(context)?;
        let Opened { log: main, report, .. } =
            open(disk.clone(), log_config, 0, Epoch::random).with_context(context)?;
        let mut damaged_files = Vec::new();
        for name in disk.list().with_context(context)? {
            if parse_name(&name).is_some_and(|(.., kind)| kind == FileKind::Damaged) {
                let metadata = std::fs::metadata(path.join(&name));
                damaged_files.push((name, metadata.map_or(0, |metadata| metadata.len())));
            }
        }
        let free_bytes = disk.free_bytes().ok();
        Ok(Self { main, dead, report, dead_report, damaged_files, free_bytes })
    }

    /// The lanes, oldest events first.
    pub fn lanes(&self) -> [(Lane, &Log); 2] {
        [(Lane::Dead, &self.dead), (Lane::Main, &self.main)]
    }

    /// Takes what is known to be forwarded as retired. Only while nobody has the spool open.
    pub fn note_forwarded(&self, dir: &Path) {
        let retired = Index::look(dir);
        for (log, report, position) in [
            (&self.main, &self.report, retired.main),
            (&self.dead, &self.dead_report, retired.dead),
        ] {
            let is_known = |at: &Position| super::lanes::is_of_this_log(*at, log, report);
            if let Some(position) = position.filter(is_known) {
                log.mark_retired(position);
            }
        }
    }

    /// Calls `each` with every entry of a lane after `after`, in order. Returns what is damaged
    /// of it.
    ///
    /// # Errors
    /// When the disk can't be read, or `each` fails.
    pub fn read(
        log: &Log,
        after: Option<Position>,
        mut each: impl FnMut(Stored) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<DamagedRange>> {
        let mut reader = log.reader(after);
        let mut fleet = Arc::from("");
        let mut failures = 0;
        loop {
            let batch = match reader.next(Duration::ZERO) {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                // Tried again; what stays unreadable counts as damaged after a few times.
                Err(error) if failures < READ_FAILURES_MAX => {
                    failures += 1;
                    tracing::warn!(%error, "read the spool; trying again");
                    continue;
                }
                Err(error) => return Err(error).context("read the spool"),
            };
            for (position, bytes) in batch.entries() {
                let entry = Entry::decode(&Bytes::copy_from_slice(bytes), &mut fleet);
                each(Stored { position, entry })?;
            }
        }
        Ok(log.stat().damaged)
    }
}

/// How many failed reads are put up with.
const READ_FAILURES_MAX: u32 = 100;
