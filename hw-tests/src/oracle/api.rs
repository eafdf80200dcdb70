//! The core's API as an analyst sees it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::checker::Checker;
use super::record::ToldFleet;
use crate::fleet::client::Client;

const TIMEOUT: Duration = Duration::from_secs(60);
const PAGE_EVENTS: usize = 10_000;

/// A page of `GET /v1/raw`. `payload` is the event's bytes as the API returned them.
#[derive(Debug, Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<StoredEvent<'a>>,
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StoredEvent<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    device_id: Cow<'a, str>,
    #[serde(borrow)]
    fleet: Cow<'a, str>,
    #[serde(borrow)]
    effective_time: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// How far the raw writer has come.
    pub positions: Vec<Position>,
    /// Files published.
    pub files_published: u64,
    /// Rows published.
    pub rows_published: u64,
    /// Bytes published.
    pub bytes_published: u64,
}

/// A consumer's place in a partition.
#[derive(Clone, Debug, Deserialize)]
pub struct Position {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset that is not yet stored.
    pub next_offset: i64,
}

/// A client for the API.
pub fn client(api: SocketAddr) -> Client {
    Client::new(api, 4, TIMEOUT)
}

/// How far the store is.
///
/// # Errors
/// When the API does not answer as agreed.
pub async fn status(client: &Client) -> anyhow::Result<Status> {
    let response = client.get("/v1/status").await.context("GET /v1/status")?;
    ensure!(response.status == 200, "GET /v1/status: {}", response.status);
    serde_json::from_slice(&response.body).context("GET /v1/status")
}

/// Shows the checker everything that the API has of each device, page by page.
///
/// # Errors
/// When the API does not answer as agreed, or pages are not in order.
pub async fn read_store(
    api: SocketAddr,
    told: &ToldFleet,
    checker: &mut Checker<'_>,
) -> anyhow::Result<()> {
    let client = client(api);
    for device in &told.devices {
        read_device(&client, &told.fleet, &device.device_id, |id, event, payload| {
            checker.stored(id, event, payload);
        })
        .await
        .with_context(|| format!("read {}", device.device_id))?;
    }
    Ok(())
}

/// Shows `each` (device, event id, payload) of one device, in the API's order.
///
/// # Errors
/// When the API does not answer as agreed, or pages are not in order.
pub async fn read_device(
    client: &Client,
    fleet: &str,
    device_id: &str,
    mut each: impl FnMut(&str, &str, &[u8]),
) -> anyhow::Result<()> {
    // All of time: simulated clocks may be days off.
    let first = format!(
        "/v1/raw?device={device_id}&fleet={fleet}&limit={PAGE_EVENTS}\
         &from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
    );
    let mut cursor: Option<String> = None;
    let mut last: Option<(penstock_common::event::UnixMicros, String)> = None;
    loop {
        let path = match &cursor {
            None => first.clone(),
            Some(cursor) => format!("{first}&cursor={}", percent_encode(cursor)),
        };
        let response = client.get(&path).await.with_context(|| format!("GET {path}"))?;
        let shown =
            || String::from_utf8_lossy(&response.body).chars().take(300).collect::<String>();
        ensure!(response.status == 200, "GET {path}: {} {}", response.status, shown());
        let page: Page<'_> =
            serde_json::from_slice(&response.body).with_context(|| format!("GET {path}"))?;
        ensure!(page.events.len() <= PAGE_EVENTS, "GET {path}: {} events", page.events.len());
        for event in &page.events {
            ensure!(event.device_id == device_id, "asked {device_id}, got {}", event.device_id);
            ensure!(event.fleet == fleet, "asked fleet {fleet}, got {}", event.fleet);
            let time = penstock_common::event::UnixMicros::parse_rfc3339(&event.effective_time)
                .with_context(|| format!("effective_time {}", event.effective_time))?;
            let place = (time, event.event_id.to_string());
            ensure!(last.as_ref().is_none_or(|last| *last <= place), "out of order: {place:?}");
            last = Some(place);
            each(&event.device_id, &event.event_id, event.payload.get().as_bytes());
        }
        match page.next_cursor {
            None => return Ok(()),
            Some(next) => {
                ensure!(cursor.as_ref() != Some(&next), "the cursor stands still: {next}");
                cursor = Some(next);
            }
        }
    }
}

fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // A String takes every write.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_the_payload_verbatim() {
        let text = r#"{"events":[{"event_id":"a","device_id":"d","fleet":"f","seq":1,
            "effective_time":"2026-01-01T00:00:00Z","payload":{ "x" : 1.0e0, "y":"\u00e9" }}],
            "next_cursor":null,"as_of":1}"#;
        let page: Page<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(page.events[0].payload.get(), r#"{ "x" : 1.0e0, "y":"\u00e9" }"#);
    }

    #[test]
    fn cursors_survive_a_query_string() {
        assert_eq!(percent_encode("aZ9-._~+/=&"), "aZ9-._~%2B%2F%3D%26");
    }
}
