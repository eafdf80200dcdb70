//! The dead-letter store's index through its API, against the topic.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::drain::Progress;
use super::truth::Truth;
use super::{Places, api};
use crate::fleet::client::Client;

const POLL_EVERY: Duration = Duration::from_millis(250);

/// A letter of `GET /v1/dead-letters`.
#[derive(Clone, Debug, Deserialize)]
pub struct Letter {
    /// Its name: topic, partition and offset.
    pub id: String,
    /// `open`, `replayed` or `resolved`.
    pub state: String,
    /// Why it is one.
    pub reason: String,
}

#[derive(Deserialize)]
struct Page {
    dead_letters: Vec<Letter>,
    next_cursor: Option<String>,
}

/// All letters that match a filter (`reason=x&device=y`), newest first.
///
/// # Errors
/// When the API does not answer as agreed.
pub async fn list(client: &Client, filter: &str) -> anyhow::Result<Vec<Letter>> {
    let mut letters = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/dead-letters?limit=1000&{filter}{cursor}");
        let response = client.get(&path).await.with_context(|| format!("GET {path}"))?;
        ensure!(response.status == 200, "GET {path}: {}", response.status);
        let page: Page =
            serde_json::from_slice(&response.body).with_context(|| format!("GET {path}"))?;
        letters.extend(page.dead_letters);
        match page.next_cursor {
            None => return Ok(letters),
            Some(next) => cursor = format!("&cursor={}", api::percent_encode(&next)),
        }
    }
}

/// Waits until as many letters are stored as are on the topic, then compares their places.
///
/// # Errors
/// When a letter is missing, stored twice, or invented.
pub async fn check(places: &Places, truth: &Truth) -> anyhow::Result<()> {
    let client = api::client(&places.api);
    let mut progress = Progress::new();
    let letters = loop {
        let letters = list(&client, "").await?;
        if letters.len() >= truth.dead_letters.len() {
            break letters;
        }
        let what = || format!("{} of {} stored", letters.len(), truth.dead_letters.len());
        progress.at(letters.len() as u64, what).context("wait for the dead-letter store")?;
        tokio::time::sleep(POLL_EVERY).await;
    };
    let place = |letter: &Letter| {
        let mut parts = letter.id.rsplit(':');
        let offset = parts.next()?.parse().ok()?;
        Some((parts.next()?.parse().ok()?, offset))
    };
    let found: Option<BTreeSet<(i32, i64)>> = letters.iter().map(place).collect();
    let found = found.with_context(|| format!("an id says no place: {:?}", letters.first()))?;
    ensure!(
        found.len() == letters.len(),
        "{} letters are listed twice",
        letters.len() - found.len()
    );
    ensure!(found == truth.dead_letters, "the dead letters stored are not those of the topic");
    Ok(())
}
