//! The loss ledger's own answer, against the numbers that stand on the topics.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::drain::Progress;
use super::truth::Truth;
use super::{Places, api};
use crate::fleet::client::Client;

const POLL_EVERY: Duration = Duration::from_millis(250);

/// `GET /v1/ledger`, as far as it is looked at.
#[derive(Clone, Debug, Deserialize)]
pub struct Ledger {
    /// All gateways.
    pub total: Sums,
    /// Each.
    pub gateways: Vec<Gateway>,
}

/// What became of what was received.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Sums {
    /// Everything.
    pub received: u64,
    /// In the raw store.
    pub stored: u64,
    /// Further copies.
    pub duplicates: u64,
    /// Dead letters.
    pub dead_lettered: u64,
    /// On their way.
    pub in_flight: u64,
    /// Rejected and only counted.
    pub not_kept: u64,
    /// Lost.
    pub missing: u64,
    /// Lost on a gateway's disk.
    pub damaged: u64,
}

/// One gateway.
#[derive(Clone, Debug, Deserialize)]
pub struct Gateway {
    /// Its name.
    pub gateway: String,
    /// What is missing.
    pub missing_ranges: Vec<Range>,
    /// What can't be proven.
    pub unproven: Vec<String>,
}

/// Numbers of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// The epoch, hexadecimal.
    pub epoch: String,
    /// The first number.
    pub from_seq: u64,
    /// The number after the last.
    pub to_seq: u64,
}

/// Asks the ledger.
///
/// # Errors
/// When the API does not answer as agreed.
pub async fn ask(client: &Client) -> anyhow::Result<Ledger> {
    let response = client.get("/v1/ledger").await.context("GET /v1/ledger")?;
    ensure!(response.status == 200, "GET /v1/ledger: {}", response.status);
    serde_json::from_slice(&response.body).context("GET /v1/ledger")
}

/// Waits until nothing is in flight any more and every number on the topics has been seen.
///
/// # Errors
/// When that does not come about.
pub async fn settle(places: &Places, truth: &Truth) -> anyhow::Result<Ledger> {
    let client = api::client(&places.api);
    // What gave way while it was in flight stands on both.
    let numbered = truth.raw_numbers.union(&truth.dead_numbers).count() as u64;
    let mut progress = Progress::new();
    loop {
        let ledger = ask(&client).await?;
        let Sums { received, in_flight, not_kept, .. } = ledger.total;
        let unseen = numbered.saturating_sub(received - in_flight - not_kept);
        if in_flight == 0 && unseen == 0 {
            return Ok(ledger);
        }
        let what = || format!("{unseen} numbers on the topics are not seen: {ledger:?}");
        progress.at(in_flight + unseen, what).context("wait for the ledger")?;
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Waits, then compares: nothing missing, nothing damaged, every number counted once.
///
/// # Errors
/// When the ledger says otherwise than the topics.
pub async fn check(places: &Places, truth: &Truth) -> anyhow::Result<Ledger> {
    let ledger = settle(places, truth).await?;
    let Sums { received, stored, duplicates, dead_lettered, not_kept, missing, damaged, .. } =
        ledger.total;
    let says = || format!("the ledger says {ledger:?}");
    ensure!(missing == 0 && damaged == 0, "a false loss: {}", says());
    ensure!(received == stored + duplicates + dead_lettered + not_kept, "{}", says());
    let raw = truth.raw_numbers.len() as u64;
    ensure!(stored + duplicates == raw, "{raw} numbers are on raw-events; {}", says());
    // What was dead-lettered behind the raw writer has been stored as well.
    let dead = truth.dead_numbers.difference(&truth.raw_numbers).count() as u64;
    ensure!(dead_lettered == dead, "{dead} numbers are on dead-letter only; {}", says());
    Ok(ledger)
}
