//! Readiness as a latch: ready while somebody holds it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Whether the gateway takes events; cheap to clone and to ask.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Inner>);

type Note = Box<dyn Fn() -> String + Send>;

#[derive(Default)]
struct Inner {
    is_ready: AtomicBool,
    notes: Mutex<Vec<Note>>,
}

/// Held while the gateway takes events; dropping it says that it no longer does.
pub struct ReadyLatch(Readiness);

impl Readiness {
    /// Says ready until the latch is dropped.
    #[must_use]
    pub fn latch(&self) -> ReadyLatch {
        self.0.is_ready.store(true, Ordering::SeqCst);
        ReadyLatch(self.clone())
    }

    /// Adds a line that says how a part stands without which the gateway is ready all the same.
    pub fn note(&self, line: impl Fn() -> String + Send + 'static) {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(line));
    }

    /// These lines at present.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.0.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().map(|line| line()).collect()
    }

    /// Whether the latch is held.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::SeqCst)
    }
}

impl Drop for ReadyLatch {
    fn drop(&mut self) {
        self.0.0.is_ready.store(false, Ordering::SeqCst);
    }
}
