//! The sled index: what can be rebuilt from the segments or lost without harm.
//!
//! It holds, for the main lane as `retired` and for the dead lane as `retired.dead`, segment, epoch
//! and seq of the last retired entry (8 bytes each, little-endian) and the CRC-32C of those 24
//! bytes.
//!
//! sled may fail to open what a power cut left behind, or panic on it. Then its directory is set
//! aside as `index.damaged-<unix seconds>` (the newest few are kept) and a new one begun; without
//! any index the spool works too, and forwards more than once after a restart. A release build
//! aborts on a panic, so `index.opening` stands beside the directory while sled opens: where it
//! is found at the start, the last attempt did not come back.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::Epoch;
use penstock_common::log::Position;

use super::lanes::Retired;

const DIR: &str = "index";
const OPENING: &str = "index.opening";
const DAMAGED: &str = "index.damaged-";
/// How many indexes that were set aside are kept.
const DAMAGED_MAX: usize = 3;
const MAIN_KEY: &[u8] = b"retired";
const DEAD_KEY: &[u8] = b"retired.dead";
const PROBE_KEY: &[u8] = b"probe";
/// sled's page cache. It holds a handful of keys.
const CACHE_BYTES: u64 = 1 << 20;

pub(super) struct Index {
    dir: PathBuf,
    db: Option<sled::Db>,
}

impl Index {
    /// Opens the index under `dir`, whatever it finds there.
    pub(super) fn open(dir: &Path) -> Self {
        let mut index = Self { dir: dir.to_owned(), db: None };
        if dir.join(OPENING).exists() {
            tracing::warn!("the spool's index did not open the last time; it is set aside");
            index.set_aside();
        }
        index.db = index.try_open();
        if index.db.is_none() {
            index.set_aside();
            index.db = index.try_open();
        }
        if index.db.is_none() {
            tracing::error!("the spool works without an index: restarts forward more than once");
        }
        index
    }

    /// Where retirement stood, as far as an index under `dir` tells; nothing is set aside.
    pub(super) fn look(dir: &Path) -> Retired {
        let path = dir.join(DIR);
        if !path.is_dir() || dir.join(OPENING).exists() {
            return Retired::default();
        }
        let db = guarded("open", || {
            let config = sled::Config::new().path(&path).cache_capacity(CACHE_BYTES);
            config.flush_every_ms(None).open()
        });
        Self { dir: dir.to_owned(), db }.retired()
    }

    fn try_open(&self) -> Option<sled::Db> {
        let marker = self.dir.join(OPENING);
        if let Err(error) = fs::write(&marker, b"") {
            tracing::warn!(%error, "mark the opening of the spool's index");
        }
        let path = self.dir.join(DIR);
        let db = guarded("open", || {
            let config = sled::Config::new().path(&path).cache_capacity(CACHE_BYTES);
            // Flushed by the keeper, rarely.
            let db = config.flush_every_ms(None).open()?;
            // Reads and writes must work as well, while the marker still stands.
            db.insert(PROBE_KEY, &b"1"[..])?;
            db.get(MAIN_KEY)?;
            Ok(db)
        });
        if db.is_some() {
            let _ = fs::remove_file(&marker);
        }
        db
    }

    fn set_aside(&mut self) {
        self.db = None;
        let from = self.dir.join(DIR);
        if !from.exists() {
            return;
        }
        let now_s = SystemClock.now().0 / 1_000_000;
        let name = |n: u32| match n {
            0 => format!("{DAMAGED}{now_s}"),
            n => format!("{DAMAGED}{now_s}-{n}"),
        };
        let to = (0..100).map(|n| self.dir.join(name(n))).find(|path| !path.exists());
        let moved = to.map_or(Err(io::ErrorKind::AlreadyExists.into()), |to| {
            fs::rename(&from, &to).map(|()| to)
        });
        match moved {
            Ok(to) => tracing::error!(path = %to.display(), "the spool's index is set aside"),
            Err(error) => tracing::error!(%error, "set the spool's index aside"),
        }
        if let Err(error) = self.forget_old() {
            tracing::warn!(%error, "remove old indexes that were set aside");
        }
    }

    fn forget_old(&self) -> io::Result<()> {
        let mut old = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(DAMAGED) {
                old.push(entry.path());
            }
        }
        old.sort();
        for path in old.iter().rev().skip(DAMAGED_MAX) {
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Ok(())
    }

    /// Where retirement stood, as far as it is known.
    pub(super) fn retired(&self) -> Retired {
        Retired { main: self.get(MAIN_KEY), dead: self.get(DEAD_KEY) }
    }

    fn get(&self, key: &[u8]) -> Option<Position> {
        let db = self.db.as_ref()?;
        let value = guarded("read", || db.get(key)).flatten()?;
        let position = decode(&value);
        if position.is_none() {
            tracing::error!("the spool's index holds no valid position; it is passed over");
        }
        position
    }

    /// Notes where retirement stands, for the lanes of which it is given.
    pub(super) fn put_retired(&mut self, retired: Retired) {
        for (key, position) in [(MAIN_KEY, retired.main), (DEAD_KEY, retired.dead)] {
            if let Some(position) = position {
                self.attempt("write", |db| db.insert(key, &encode(position)[..]).map(drop));
            }
        }
    }

    /// Brings what was noted to the disk, as far as sled does.
    pub(super) fn flush(&mut self) {
        self.attempt("flush", |db| db.flush().map(drop));
    }

    /// After a failure the spool goes on without the index, and the next start sets it aside.
    fn attempt(&mut self, action: &str, act: impl FnOnce(&sled::Db) -> sled::Result<()>) {
        let Some(db) = &self.db else { return };
        if guarded(action, || act(db)).is_none() {
            let _ = fs::write(self.dir.join(OPENING), b"");
            let db = self.db.take();
            // Dropping it flushes, which may fail the same way.
            guarded("close", || {
                drop(db);
                Ok(())
            });
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let db = self.db.take();
        guarded("close", || {
            drop(db);
            Ok(())
        });
    }
}

/// sled's word, or `None` when it fails or panics.
fn guarded<T>(action: &str, act: impl FnOnce() -> sled::Result<T>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::error!(action, %error, "the spool's index failed");
            None
        }
        Err(_) => {
            tracing::error!(action, "the spool's index panicked");
            None
        }
    }
}

fn encode(position: Position) -> [u8; 28] {
    let mut out = [0; 28];
    out[..8].copy_from_slice(&position.segment.to_le_bytes());
    out[8..16].copy_from_slice(&position.epoch.0.to_le_bytes());
    out[16..24].copy_from_slice(&position.seq.to_le_bytes());
    let crc = crc32c::crc32c(&out[..24]);
    out[24..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(value: &[u8]) -> Option<Position> {
    let (fields, crc) = value.split_last_chunk::<4>()?;
    if value.len() != 28 || crc32c::crc32c(fields).to_le_bytes() != *crc {
        return None;
    }
    let mut fields = fields.chunks_exact(8).map(|chunk| {
        let mut field = [0; 8];
        field.copy_from_slice(chunk);
        u64::from_le_bytes(field)
    });
    let (segment, epoch, seq) = (fields.next()?, Epoch(fields.next()?), fields.next()?);
    Some(Position { segment, epoch, seq })
}
