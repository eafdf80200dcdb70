//! How many questions are answered at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// A page asks for several things at once, and most answers take milliseconds: whoever waits this
/// long meets a server that is overloaded, not a burst.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The slots; clones share them.
#[derive(Clone)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    wait_max: Duration,
}

/// Held while a question is answered.
pub(super) struct Slot(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), wait_max: WAIT_MAX }
    }

    /// A slot, in the order of asking; 429 when there is none in time.
    pub(super) async fn take(&self) -> Result<Slot, Problem> {
        let permit = Arc::clone(&self.free).acquire_owned();
        match tokio::time::timeout(self.wait_max, permit).await {
            Ok(Ok(permit)) => Ok(Slot(permit)),
            Ok(Err(_)) | Err(_) => Err(Problem::busy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_the_next_slot_and_does_not_wait_for_ever() {
        let hurried = Slots { wait_max: Duration::from_millis(1), ..Slots::new(1) };
        let patient = Slots { wait_max: Duration::from_secs(600), ..hurried.clone() };
        let Ok(held) = hurried.take().await else { panic!("there is one") };
        assert!(hurried.take().await.is_err());
        let waiting = tokio::spawn(async move { patient.take().await.is_ok() });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
