//! Waits until everything acknowledged has reached its place.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use penstock_common::topic::Topic;

use super::{Places, api, topics};
use crate::fleet::client::Client;

/// With no progress for this long, waiting ends with an error.
const STALL_MAX: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(200);

/// Entries that a gateway has on disk and the bus has not acknowledged.
pub const SPOOL_PENDING_METRIC: &str = "penstock_spool_pending_entries";

/// Waits for empty spools, then for the raw writer to reach the end of `raw-events`.
///
/// # Errors
/// When nothing moves for a minute.
pub async fn wait(places: &Places) -> anyhow::Result<()> {
    spools(places).await?;
    let mut progress = Progress::new();
    // Only now: what was in a spool moves these ends.
    let topic = Topic::RawEvents.name(&places.topic_prefix);
    let ends = tokio::task::block_in_place(|| topics::end_offsets(&places.kafka, &topic))?;
    let client = api::client(&places.api);
    loop {
        let status = api::status(&client).await?;
        let behind = behind(&topic, &ends, &status.positions);
        let total: i64 = behind.values().sum();
        if total == 0 {
            return Ok(());
        }
        progress.at(total as u64, || {
            format!("{total} records of {topic} are not stored, by partition: {behind:?}")
        })?;
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Waits until the gateways' spools are empty.
///
/// # Errors
/// When nothing moves for a minute.
pub async fn spools(places: &Places) -> anyhow::Result<()> {
    empty(&places.gateways).await
}

/// Waits until the spools of the gateways at these admin addresses are empty.
///
/// # Errors
/// When nothing moves for a minute.
pub async fn empty(gateways: &[SocketAddr]) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    loop {
        let mut entries = 0;
        for gateway in gateways {
            entries += pending(*gateway)
                .await
                .with_context(|| format!("metrics of the gateway at {gateway}"))?
                as u64;
        }
        if entries == 0 {
            return Ok(());
        }
        progress.at(entries, || format!("{entries} entries in the gateways' spools"))?;
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Records that are not yet stored, by partition.
fn behind(topic: &str, ends: &HashMap<i32, i64>, positions: &[api::Position]) -> HashMap<i32, i64> {
    let mut behind = ends.clone();
    for position in positions.iter().filter(|position| position.topic == topic) {
        if let Some(left) = behind.get_mut(&position.partition) {
            *left = (*left - position.next_offset).max(0);
        }
    }
    behind.retain(|_, left| *left > 0);
    behind
}

/// One metric of a Prometheus page, summed over its labels.
///
/// # Errors
/// When the page can't be read or has no such metric.
pub async fn metric(client: &Client, name: &str) -> anyhow::Result<f64> {
    let page = client.get("/metrics").await?;
    ensure!(page.status == 200, "GET /metrics: {}", page.status);
    let text = std::str::from_utf8(&page.body).context("GET /metrics is no text")?;
    sum(text, name).with_context(|| format!("no metric {name}"))
}

fn sum(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.as_bytes().first()? {
            b'{' => rest.rsplit_once('}')?.1,
            b' ' => rest,
            _ => return None,
        };
        value.split_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// The gateway's admin address answers its metrics.
///
/// # Errors
/// As [`metric`].
pub async fn pending(gateway: SocketAddr) -> anyhow::Result<f64> {
    metric(&Client::new(gateway, 1, Duration::from_secs(10)), SPOOL_PENDING_METRIC).await
}

/// Whether something still moves.
pub(super) struct Progress {
    least: u64,
    since: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { least: u64::MAX, since: Instant::now() }
    }

    /// Notes how much is left; fails when that has not changed for [`STALL_MAX`].
    pub(super) fn at(&mut self, left: u64, what: impl FnOnce() -> String) -> anyhow::Result<()> {
        // Either direction: what is counted may grow before it shrinks.
        if left != self.least {
            *self = Self { least: left, since: Instant::now() };
        }
        if self.since.elapsed() > STALL_MAX {
            bail!("no progress for {STALL_MAX:?}: {}", what());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_labels_and_not_mistaken_for_longer_names() {
        let page = "# HELP a_b x\na_b{lane=\"events\"} 3\na_b{lane=\"dead } letters\"} 4\na_bc 100\nd 1e2\n";
        assert_eq!(sum(page, "a_b"), Some(7.0));
        assert_eq!(sum(page, "d"), Some(100.0));
        assert_eq!(sum(page, "e"), None);
    }

    #[test]
    fn only_partitions_behind_their_end_are_named() {
        let ends = HashMap::from([(0, 10), (1, 5), (2, 0)]);
        let at = |partition, next_offset| api::Position {
            topic: "p.raw-events".into(),
            partition,
            next_offset,
        };
        let other = api::Position { topic: "other".into(), partition: 1, next_offset: 5 };
        let left = behind("p.raw-events", &ends, &[at(0, 7), other]);
        assert_eq!(left, HashMap::from([(0, 3), (1, 5)]));
        assert!(behind("p.raw-events", &ends, &[at(0, 10), at(1, 6)]).is_empty());
    }
}
