//! What the broker has on its disk.
//!
//! mosquitto acknowledges first and saves its whole database a moment later, in the same round of
//! its loop: what it acknowledged since its last save is gone when it is killed. That is its
//! promise, not the gateway's, so it is measured: a save seen to be finished after the publisher
//! had read an acknowledgement covers that message, for the broker has one thread, and a save that
//! ends later began later.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What became of an acknowledged message at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was saved, or the gateway had it before.
    Kept,
    /// The broker was killed before a save that surely covers it: nobody may have it any more.
    Forgotten,
    /// The broker still runs, and no save surely covers it yet.
    Open,
}

/// Watches the broker's database.
#[derive(Clone)]
pub struct Saves(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    is_over: AtomicBool,
}

struct State {
    /// Acknowledged before this: saved.
    covered_until: Instant,
    crashes: Vec<Crash>,
    saves: u64,
}

#[derive(Clone, Copy)]
struct Crash {
    at: Instant,
    covered_until: Instant,
}

impl Saves {
    /// Begins to watch.
    pub fn watch(database: PathBuf) -> Self {
        let state = State { covered_until: Instant::now(), crashes: Vec::new(), saves: 0 };
        let inner = Inner { state: Mutex::new(state), is_over: AtomicBool::new(false) };
        let saves = Self(Arc::new(inner));
        let watched = saves.clone();
        std::thread::spawn(move || watched.look(&database));
        saves
    }

    fn look(&self, database: &Path) {
        let mut last = version(database);
        let mut looked_at = Instant::now();
        while !self.0.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
            let now = Instant::now();
            let seen = version(database);
            if seen != last && seen.is_some() {
                // It was finished after the look before.
                let mut state = self.lock();
                state.covered_until = looked_at;
                state.saves += 1;
            }
            (last, looked_at) = (seen, now);
        }
    }

    /// To be told once the killed broker is gone, before it is started again.
    pub fn crashed(&self) {
        let mut state = self.lock();
        let crash = Crash { at: Instant::now(), covered_until: state.covered_until };
        state.crashes.push(crash);
    }

    /// What became of a message whose acknowledgement was read then.
    pub fn fate(&self, acknowledged_at: Instant) -> Fate {
        let state = self.lock();
        let crash = state.crashes.iter().find(|crash| acknowledged_at < crash.at);
        match crash {
            Some(crash) if acknowledged_at < crash.covered_until => Fate::Kept,
            Some(_) => Fate::Forgotten,
            None if acknowledged_at < state.covered_until => Fate::Kept,
            None => Fate::Open,
        }
    }

    /// How many saves were seen.
    pub fn count(&self) -> u64 {
        self.lock().saves
    }

    /// Ends the watch.
    pub fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A save is another file in the place of the old one.
fn version(database: &Path) -> Option<(u64, i64, i64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(database).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_covers_what_was_acknowledged_before_it_and_a_crash_ends_that() {
        let dir = tempfile::tempdir().unwrap();
        let (file, new) = (dir.path().join("db"), dir.path().join("db.new"));
        let save = || {
            std::fs::write(&new, Instant::now().elapsed().as_nanos().to_string()).unwrap();
            std::fs::rename(&new, &file).unwrap();
        };
        save();
        let saves = Saves::watch(file.clone());
        let seen = |count| {
            let since = Instant::now();
            while saves.count() < count {
                assert!(since.elapsed() < Duration::from_secs(30), "no save is seen");
                std::thread::sleep(LOOK_EVERY);
            }
        };
        let early = Instant::now();
        assert_eq!(saves.fate(early), Fate::Open);
        std::thread::sleep(20 * LOOK_EVERY);
        save();
        seen(1);
        assert_eq!(saves.fate(early), Fate::Kept);
        let late = Instant::now();
        saves.crashed();
        // A save of the next life says nothing about the last one.
        std::thread::sleep(20 * LOOK_EVERY);
        save();
        seen(2);
        assert_eq!(saves.fate(early), Fate::Kept);
        assert_eq!(saves.fate(late), Fate::Forgotten);
        assert_eq!(saves.fate(Instant::now()), Fate::Open);
        saves.end();
    }
}
