//! A step of a flush is tried until it succeeds: what it would store is held meanwhile, and the
//! consumer is paused. Only dropping the future gives up; then the records are read again.

use std::fmt::Display;
use std::time::Duration;

use penstock_common::retry::Backoff;
use prometheus::IntCounterVec;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Tries `step` until it succeeds, counting failed tries by the step's name.
pub async fn until_done<T, E: Display, F: Future<Output = Result<T, E>>>(
    role: &'static str,
    step: &'static str,
    retries: &IntCounterVec,
    mut attempt: impl FnMut() -> F,
) -> T {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                let delay = backoff.next_delay();
                retries.with_label_values(&[step]).inc();
                tracing::warn!(%error, role, step, ?delay, "a flush waits; nothing is lost");
                tokio::time::sleep(delay).await;
            }
        }
    }
}
