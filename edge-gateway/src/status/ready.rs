//! Readiness as a latch: ready while somebody holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the gateway takes events; cheap to clone and to ask.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

/// Held while the gateway takes events; dropping it says that it no longer does.
#[derive(Debug)]
pub struct ReadyLatch(Readiness);

impl Readiness {
    /// Says ready until the latch is dropped.
    #[must_use]
    pub fn latch(&self) -> ReadyLatch {
        self.0.store(true, Ordering::SeqCst);
        ReadyLatch(self.clone())
    }

    /// Whether the latch is held.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for ReadyLatch {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::SeqCst);
    }
}
