//! Waiting for something to become so.

use std::time::{Duration, Instant};

use anyhow::ensure;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `is_so`, for up to `limit`; `what` is said when it does not come.
///
/// # Errors
/// When it has not become so in time, or a look fails.
pub async fn until(
    limit: Duration,
    what: &str,
    mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let since = Instant::now();
    while !is_so().await? {
        ensure!(since.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
