//! One live stream, read as a page reads it: what it showed, and when.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;
use penstock_common::clock::{Clock, SystemClock};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::oracle::api::CoreApi;

/// What a stream follows.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// A device, with all its metrics.
    Device(String),
    /// Devices side by side.
    Group { group: String, members: BTreeSet<String>, metric: &'static str },
    /// All devices as one line: the mean of each second.
    Fleet { metric: &'static str },
}

/// Device (empty for the mean), metric, time in ms.
pub(super) type Key = (Arc<str>, Arc<str>, i64);

/// What was shown.
#[derive(Default)]
pub(super) struct Seen {
    /// When each point was, µs since the Unix epoch, in the order in which they came.
    pub(super) points: HashMap<Key, Vec<i64>>,
    /// The worst that the stream itself said, ms.
    pub(super) said_ms_max: u32,
    /// How often it began anew.
    pub(super) snapshots: u32,
    names: HashMap<String, Arc<str>>,
}

/// An open stream.
pub(super) struct Stream {
    pub(super) whose: Whose,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<anyhow::Result<()>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    series: Vec<Series<'a>>,
    freshness_ms: Option<u32>,
}

#[derive(Deserialize)]
struct Series<'a> {
    device: &'a str,
    metric: &'a str,
    points: Vec<(i64, f64)>,
}

impl Stream {
    /// Opens it and waits for its snapshot.
    pub(super) async fn open(
        api: &CoreApi,
        whose: Whose,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let path = match &whose {
            Whose::Device(device) => format!("/v1/live?fleet=sim&device={device}"),
            Whose::Group { group, metric, .. } => format!("/v1/live?group={group}&metric={metric}"),
            Whose::Fleet { metric } => {
                format!("/v1/live?fleet=sim&metric={metric}&aggregate=avg")
            }
        };
        let mut body = connect(api, &path).await.with_context(|| format!("GET {path}"))?;
        let (seen, mut buffer) = (Arc::new(Mutex::new(Seen::default())), Vec::new());
        while lock(&seen).snapshots == 0 {
            ensure!(read(&mut body, &mut buffer, &seen).await?, "{path}: the stream ended at once");
        }
        let into = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    more = read(&mut body, &mut buffer, &into) => {
                        ensure!(more?, "{path}: the stream ended");
                    }
                }
            }
        });
        Ok(Self { whose, seen, task })
    }

    /// A look at what it has shown so far.
    pub(super) fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&lock(&self.seen))
    }

    /// What it showed. It must have been told to stop.
    pub(super) async fn end(self) -> anyhow::Result<(Whose, Seen)> {
        self.task.await.context("a task that follows")??;
        let seen = std::mem::take(&mut *lock(&self.seen));
        Ok((self.whose, seen))
    }
}

async fn connect(api: &CoreApi, path: &str) -> anyhow::Result<Incoming> {
    let stream = TcpStream::connect(api.address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Its error is also the end of the body.
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(path)
        .header(HOST, api.address.to_string())
        .header(AUTHORIZATION, format!("Bearer {}", api.token))
        .header(ACCEPT, "text/event-stream")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if !status.is_success() {
        let body = response.into_body().collect().await?.to_bytes();
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(response.into_body())
}

/// Reads a piece and takes the events that are whole; whether there may be more.
async fn read(
    body: &mut Incoming,
    buffer: &mut Vec<u8>,
    seen: &Mutex<Seen>,
) -> anyhow::Result<bool> {
    let Some(frame) = body.frame().await else { return Ok(false) };
    let now = SystemClock.now().0;
    buffer.extend_from_slice(frame?.data_ref().map_or(&[], |data| data));
    while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
        let event: Vec<u8> = buffer.drain(..end + 2).collect();
        lock(seen).take(std::str::from_utf8(&event)?, now)?;
    }
    Ok(true)
}

impl Seen {
    fn take(&mut self, event: &str, now: i64) -> anyhow::Result<()> {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        let (Some(name), Some(data)) = (field("event: "), field("data: ")) else {
            // A comment keeps the connection open.
            return Ok(());
        };
        let data: Data<'_> = serde_json::from_str(data).with_context(|| data.to_owned())?;
        self.said_ms_max = self.said_ms_max.max(data.freshness_ms.unwrap_or(0));
        let is_snapshot = name == "snapshot";
        self.snapshots += u32::from(is_snapshot);
        for Series { device, metric, points } in data.series {
            let (device, metric) = (self.name(device), self.name(metric));
            for (at_ms, _) in points {
                let key = (Arc::clone(&device), Arc::clone(&metric), at_ms);
                let times = self.points.entry(key).or_default();
                // A snapshot shows again what was there.
                if !is_snapshot || times.is_empty() {
                    times.push(now);
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        match self.names.get(text) {
            Some(known) => Arc::clone(known),
            None => {
                let name: Arc<str> = text.into();
                self.names.insert(text.to_owned(), Arc::clone(&name));
                name
            }
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_a_page_reads_them() {
        let mut seen = Seen::default();
        let event = |name: &str, points: &str| {
            format!(
                "event: {name}\ndata: {{\"series\":[{{\"fleet\":\"f\",\"device\":\"d\",\
                 \"metric\":\"m\",\"points\":{points}}}],\"freshness_ms\":7}}\n\n"
            )
        };
        seen.take(&event("snapshot", "[[1,0.5]]"), 10).unwrap();
        seen.take(&event("points", "[[2,0.5],[3,1]]"), 20).unwrap();
        seen.take(&event("snapshot", "[[1,0.5],[2,0.5],[4,1]]"), 30).unwrap();
        seen.take(": keep alive\n\n", 40).unwrap();
        let at = |ms| seen.points[&("d".into(), "m".into(), ms)].clone();
        assert_eq!([at(1), at(2), at(3), at(4)], [[10], [20], [20], [30]]);
        assert_eq!((seen.snapshots, seen.said_ms_max), (2, 7));
        assert!(seen.take("event: points\ndata: {\n\n", 50).is_err());
    }
}
