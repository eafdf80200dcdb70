//! Named points where a test can make the code fail or stop.
//!
//! A [`Failpoints`] is handed in; the default one knows no points and costs one atomic load.
//! Nothing outside a test can arm it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What happens at an armed point.
#[derive(Clone, Debug)]
pub enum Action {
    /// The step fails, this many times.
    Fail(u32),
    /// Whoever comes there stays for good, and says so; the test drops the task or lets it go on.
    Hold(Arc<Gate>),
}

/// A point where a task is held.
#[derive(Debug, Default)]
pub struct Gate {
    reached: Notify,
    released: Notify,
}

impl Gate {
    /// Waits until somebody is held.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets whoever is held go on.
    pub fn release(&self) {
        self.released.notify_one();
    }
}

/// The error of a failpoint.
#[derive(Debug, thiserror::Error)]
#[error("failpoint {0}")]
pub struct Tripped(&'static str);

/// The points that a test has armed.
#[derive(Clone, Debug, Default)]
pub struct Failpoints(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    armed: AtomicBool,
    points: Mutex<HashMap<&'static str, Action>>,
}

impl Failpoints {
    /// Arms a point.
    pub fn arm(&self, name: &'static str, action: Action) {
        self.points().insert(name, action);
        self.0.armed.store(true, Ordering::SeqCst);
    }

    fn points(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, Action>> {
        self.0.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes the point, or does what it was armed with.
    ///
    /// # Errors
    /// When armed to fail.
    pub async fn hit(&self, name: &'static str) -> Result<(), Tripped> {
        if !self.0.armed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let gate = match self.points().get_mut(name) {
            None | Some(Action::Fail(0)) => return Ok(()),
            Some(Action::Fail(times)) => {
                *times -= 1;
                return Err(Tripped(name));
            }
            Some(Action::Hold(gate)) => Arc::clone(gate),
        };
        gate.reached.notify_one();
        gate.released.notified().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn points_fail_as_often_as_told_and_hold_until_released() {
        let failpoints = Failpoints::default();
        assert!(failpoints.hit("a").await.is_ok());
        failpoints.arm("a", Action::Fail(1));
        assert!(failpoints.hit("b").await.is_ok());
        assert_eq!(failpoints.hit("a").await.unwrap_err().to_string(), "failpoint a");
        assert!(failpoints.hit("a").await.is_ok());
        let gate = Arc::new(Gate::default());
        failpoints.arm("a", Action::Hold(Arc::clone(&gate)));
        let held = tokio::spawn(async move { failpoints.hit("a").await });
        gate.reached().await;
        assert!(!held.is_finished());
        gate.release();
        assert!(held.await.unwrap().is_ok());
    }
}
