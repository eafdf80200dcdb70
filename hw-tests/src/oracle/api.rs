//! The core's API as an analyst sees it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use penstock_common::event::UnixMicros;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::checker::Checker;
use super::record::ToldFleet;
use crate::fleet::client::Client;

const TIMEOUT: Duration = Duration::from_secs(60);
const PAGE_EVENTS: usize = 10_000;
const DEVICES_AT_ONCE: usize = 4;

/// A page of `GET /v1/raw`. `payload` is the event's bytes as the API returned them.
#[derive(Debug, Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<StoredEvent<'a>>,
}

#[derive(Debug, Deserialize)]
struct NextCursor {
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

/// Where the API is, and a token for it.
#[derive(Clone, Debug)]
pub struct CoreApi {
    /// Its address.
    pub address: SocketAddr,
    /// Of the role admin.
    pub token: String,
}

/// A client for the API.
pub fn client(api: &CoreApi) -> Client {
    Client::new(api.address, DEVICES_AT_ONCE, TIMEOUT).with_token(&api.token)
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
    api: &CoreApi,
    told: &ToldFleet,
    checker: &mut Checker<'_>,
) -> anyhow::Result<()> {
    let client = Arc::new(client(api));
    let mut waiting = told.devices.iter();
    let mut fetching = JoinSet::new();
    loop {
        for device in waiting.by_ref().take(DEVICES_AT_ONCE - fetching.len()) {
            let (client, fleet) = (Arc::clone(&client), told.fleet.clone());
            let device_id = device.device_id.clone();
            fetching.spawn(async move {
                let pages = fetch_pages(&client, &fleet, &device_id).await;
                (device_id, pages)
            });
        }
        let Some(fetched) = fetching.join_next().await else { return Ok(()) };
        let (device_id, pages) = fetched.context("a task of the oracle")?;
        let reading = || format!("read {device_id}");
        let pages = pages.with_context(reading)?;
        show(&pages, &told.fleet, &device_id, |event_id, payload| {
            checker.stored(&device_id, event_id, payload);
        })
        .with_context(reading)?;
    }
}

/// Shows `each` (event id, payload) of one device, in the API's order.
///
/// # Errors
/// When the API does not answer as agreed, or pages are not in order.
pub async fn read_device(
    client: &Client,
    fleet: &str,
    device_id: &str,
    each: impl FnMut(&str, &[u8]),
) -> anyhow::Result<()> {
    show(&fetch_pages(client, fleet, device_id).await?, fleet, device_id, each)
}

async fn fetch_pages(client: &Client, fleet: &str, device_id: &str) -> anyhow::Result<Vec<Bytes>> {
    // All of time: simulated clocks may be days off.
    let first = format!(
        "/v1/raw?device={device_id}&fleet={fleet}&limit={PAGE_EVENTS}\
         &from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
    );
    let mut cursor: Option<String> = None;
    let mut pages = Vec::new();
    loop {
        let path = match &cursor {
            None => first.clone(),
            Some(cursor) => format!("{first}&cursor={}", percent_encode(cursor)),
        };
        let response = client.get(&path).await.with_context(|| format!("GET {path}"))?;
        let shown =
            || String::from_utf8_lossy(&response.body).chars().take(300).collect::<String>();
        ensure!(response.status == 200, "GET {path}: {} {}", response.status, shown());
        let next: NextCursor =
            serde_json::from_slice(&response.body).with_context(|| format!("GET {path}"))?;
        pages.push(response.body);
        match next.next_cursor {
            None => return Ok(pages),
            Some(next) => {
                ensure!(cursor.as_ref() != Some(&next), "the cursor stands still: {next}");
                cursor = Some(next);
            }
        }
    }
}

fn show(
    pages: &[Bytes],
    fleet: &str,
    device_id: &str,
    mut each: impl FnMut(&str, &[u8]),
) -> anyhow::Result<()> {
    let mut last: Option<(UnixMicros, String)> = None;
    for body in pages {
        let page: Page<'_> = serde_json::from_slice(body).context("a page of /v1/raw")?;
        ensure!(page.events.len() <= PAGE_EVENTS, "{} events in a page", page.events.len());
        for event in &page.events {
            ensure!(event.device_id == device_id, "asked {device_id}, got {}", event.device_id);
            ensure!(event.fleet == fleet, "asked fleet {fleet}, got {}", event.fleet);
            let time = UnixMicros::parse_rfc3339(&event.effective_time)
                .with_context(|| format!("effective_time {}", event.effective_time))?;
            let place = (time, event.event_id.to_string());
            ensure!(last.as_ref().is_none_or(|last| *last <= place), "out of order: {place:?}");
            last = Some(place);
            each(&event.event_id, event.payload.get().as_bytes());
        }
    }
    Ok(())
}

/// A value for a query string.
pub(super) fn percent_encode(text: &str) -> String {
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

    fn page(events: &[(&str, &str)]) -> Bytes {
        let events: Vec<String> = events
            .iter()
            .map(|(time, id)| {
                format!(
                    r#"{{"event_id":"{id}","device_id":"d","fleet":"f","effective_time":"{time}","payload":{{}}}}"#
                )
            })
            .collect();
        format!(r#"{{"events":[{}],"next_cursor":null}}"#, events.join(",")).into()
    }

    #[test]
    fn pages_must_be_in_order_and_of_the_right_device() {
        let (early, late) = ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:10Z");
        let read = |device: &str, pages: &[Bytes]| {
            let mut events = 0;
            show(pages, "f", device, |_, _| events += 1).map(|()| events)
        };
        let good = [page(&[(early, "a"), (early, "b")]), page(&[(late, "a")])];
        assert_eq!(read("d", &good).unwrap(), 3);
        assert!(read("d", &[page(&[(late, "a")]), page(&[(early, "b")])]).is_err());
        assert!(read("d", &[page(&[(early, "b"), (early, "a")])]).is_err());
        assert!(read("e", &good).is_err());
    }

    #[test]
    fn cursors_survive_a_query_string() {
        assert_eq!(percent_encode("aZ9-._~+/=&"), "aZ9-._~%2B%2F%3D%26");
    }
}
