//! What the broker has on its disk.
//!
//! mosquitto acknowledges first and saves its whole database every two seconds: what it acknowledged
//! since its last save is gone when it is killed. That is its
//! promise, not the gateway's, so it is measured, in two ways. A save seen to be finished after the
//! publisher had read an acknowledgement covers that message, for the broker has one thread, and a
//! save that ends later began later. And the database of a killed broker is read: the message whose
//! payload is in it is there again when the broker is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(1);

/// An acknowledgement as its publisher saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// When the connection was begun. It ends with the broker, at the latest.
    pub since: Instant,
    /// When the acknowledgement was read: perhaps after the broker's end.
    pub at: Instant,
}

/// What became of an acknowledged message at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the broker's database, or the gateway had it before.
    Kept,
    /// The broker was killed before a save that surely covers it, and its database does not have
    /// it: unless the gateway had it by then, nobody has it any more.
    Forgotten,
    /// The broker still runs, and no save surely covers it yet.
    Open,
}

/// Watches the broker's database.
#[derive(Clone)]
pub struct Saves(Arc<Inner>);

struct Inner {
    database: PathBuf,
    state: Mutex<State>,
    is_over: AtomicBool,
}

struct State {
    /// Acknowledged before this: saved.
    covered_until: Instant,
    crashes: Vec<Crash>,
    saves: u64,
    /// So long before its broker's end was the oldest forgotten message acknowledged, at most.
    forgotten_age_max: Duration,
}

struct Crash {
    at: Instant,
    covered_until: Instant,
    database: Vec<u8>,
}

impl Crash {
    /// Whether the broker will have a message with this payload when it is back. A database takes
    /// the old one's place when it is whole, so this one is what the broker reads.
    fn has_saved(&self, payload: &[u8]) -> bool {
        self.database.windows(payload.len().max(1)).any(|window| window == payload)
    }
}

impl Saves {
    /// Begins to watch.
    pub fn watch(database: PathBuf) -> Self {
        let state = State {
            covered_until: Instant::now(),
            crashes: Vec::new(),
            saves: 0,
            forgotten_age_max: Duration::ZERO,
        };
        let (state, is_over) = (Mutex::new(state), AtomicBool::new(false));
        let saves = Self(Arc::new(Inner { database, state, is_over }));
        let watched = saves.clone();
        std::thread::spawn(move || watched.look(&watched.0.database));
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
    ///
    /// # Errors
    /// When its database can't be read.
    pub fn crashed(&self) -> io::Result<()> {
        let at = Instant::now();
        let database = match std::fs::read(&self.0.database) {
            // It was killed before its first save.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let mut state = self.lock();
        let covered_until = state.covered_until;
        state.crashes.push(Crash { at, covered_until, database });
        Ok(())
    }

    /// What became of a message with this payload that was acknowledged so.
    pub fn fate(&self, payload: &[u8], ack: Ack) -> Fate {
        let mut state = self.lock();
        let crash = state.crashes.iter().find(|crash| ack.since < crash.at);
        match crash {
            Some(crash) if ack.at < crash.covered_until => Fate::Kept,
            Some(crash) if crash.has_saved(payload) => Fate::Kept,
            Some(crash) => {
                let age = crash.at.saturating_duration_since(ack.at);
                state.forgotten_age_max = state.forgotten_age_max.max(age);
                Fate::Forgotten
            }
            None if ack.at < state.covered_until => Fate::Kept,
            None => Fate::Open,
        }
    }

    /// How many saves were seen.
    pub fn count(&self) -> u64 {
        self.lock().saves
    }

    /// How long before its broker's end the oldest forgotten message was acknowledged, at most.
    pub fn forgotten_age_max(&self) -> Duration {
        self.lock().forgotten_age_max
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
        let save = |payloads: &str| {
            std::fs::write(&new, payloads).unwrap();
            std::fs::rename(&new, &file).unwrap();
        };
        save("");
        let saves = Saves::watch(file.clone());
        let seen = |count| {
            let since = Instant::now();
            while saves.count() < count {
                assert!(since.elapsed() < Duration::from_secs(30), "no save is seen");
                std::thread::sleep(LOOK_EVERY);
            }
        };
        let now = || Ack { since: Instant::now(), at: Instant::now() };
        let early = now();
        assert_eq!(saves.fate(b"a", early), Fate::Open);
        std::thread::sleep(20 * LOOK_EVERY);
        save("a b");
        seen(1);
        assert_eq!(saves.fate(b"a", early), Fate::Kept);
        let late = now();
        std::thread::sleep(20 * LOOK_EVERY);
        saves.crashed().unwrap();
        // A save of the next life says nothing about the last one.
        std::thread::sleep(20 * LOOK_EVERY);
        save("c");
        seen(2);
        assert_eq!(saves.fate(b"x", early), Fate::Kept, "the gateway had it");
        assert_eq!(saves.fate(b"b", late), Fate::Kept, "it is in the last save");
        assert_eq!(saves.forgotten_age_max(), Duration::ZERO);
        assert_eq!(saves.fate(b"c", late), Fate::Forgotten);
        assert!(saves.forgotten_age_max() >= 20 * LOOK_EVERY, "{:?}", saves.forgotten_age_max());
        assert_eq!(saves.fate(b"c", now()), Fate::Open);
        let read_late = Ack { at: Instant::now(), ..late };
        assert_eq!(saves.fate(b"c", read_late), Fate::Forgotten, "it was sent before the crash");
        saves.end();
    }
}
