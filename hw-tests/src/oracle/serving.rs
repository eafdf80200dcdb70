//! The serving API's numbers against the naive ones: series of devices, groups and fleets, in every
//! width.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use penstock_common::event::UnixMicros;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::percent_encode;
use super::naive::{self, Figures};
use super::truth::Truth;
use crate::fleet::client::Client;

const HOUR: i64 = 3_600_000_000;
/// Resolutions and the length of their windows, µs.
const RESOLUTIONS: [(&str, i64); 3] = [("1m", HOUR / 60), ("1h", HOUR), ("1d", 24 * HOUR)];

#[derive(Deserialize)]
struct Series {
    points: Vec<Point>,
    gaps: Vec<Gap>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Point {
    at: String,
    count: i64,
    // As text: serde_json's own reading of a float can be off by its last bit.
    sum: Box<RawValue>,
    min: Box<RawValue>,
    max: Box<RawValue>,
    p50: Box<RawValue>,
    p95: Box<RawValue>,
    avg: Box<RawValue>,
}

#[derive(Deserialize)]
struct Gap {
    from: String,
    to: String,
}

/// Whose series.
#[derive(Clone, Debug)]
pub enum Whose<'a> {
    /// A device's.
    Device(&'a str),
    /// A group's, which has these devices.
    Group(&'a str, &'a BTreeSet<String>),
    /// The whole fleet's.
    Fleet,
}

/// Compares a metric in all widths; how many points there were.
///
/// # Errors
/// When a point is missing, invented or wrong, or a gap is not what it says.
pub async fn check(
    client: &Client,
    fleet: &str,
    truth: &Truth,
    whose: &Whose<'_>,
    metric: &str,
) -> anyhow::Result<usize> {
    let mut points = 0;
    for (resolution, length) in RESOLUTIONS {
        let wanted = windows(truth, whose, metric, length);
        let (Some((first, _)), Some((last, _))) =
            (wanted.first_key_value(), wanted.last_key_value())
        else {
            continue;
        };
        let (from, to) = (first - length, last + 2 * length);
        let of = match whose {
            Whose::Device(device) => format!("fleet={fleet}&device={device}"),
            Whose::Group(group, _) => format!("group={}", percent_encode(group)),
            Whose::Fleet => format!("fleet={fleet}"),
        };
        let path = format!(
            "/v1/series?{of}&metric={metric}&resolution={resolution}&from={}&to={}&limit=700",
            UnixMicros(from).to_rfc3339(),
            UnixMicros(to).to_rfc3339()
        );
        points += check_windows(client, &path, &wanted, length).await?;
    }
    Ok(points)
}

/// Compares the series at `path`, all pages of it, with the values of every window (µs) that it
/// must have; how many those are.
///
/// # Errors
/// As [`check`].
pub async fn check_windows(
    client: &Client,
    path: &str,
    wanted: &BTreeMap<i64, Vec<f64>>,
    length: i64,
) -> anyhow::Result<usize> {
    let found = fetch(client, path).await?;
    compare(wanted, &found, length).with_context(|| path.to_owned())?;
    Ok(wanted.len())
}

fn windows(truth: &Truth, whose: &Whose<'_>, metric: &str, length: i64) -> BTreeMap<i64, Vec<f64>> {
    let is_of = |device: &String| match whose {
        Whose::Device(name) => device == name,
        Whose::Group(_, devices) => devices.contains(device),
        Whose::Fleet => true,
    };
    let mut windows: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for (_, events) in truth.events.iter().filter(|(device, _)| is_of(device)) {
        for event in events.values() {
            let begin = event.effective_time.0.div_euclid(length) * length;
            let values = event.metrics.iter().filter(|(name, _)| name == metric);
            for (_, value) in values {
                windows.entry(begin).or_default().push(*value);
            }
        }
    }
    windows
}

async fn fetch(client: &Client, path: &str) -> anyhow::Result<Vec<Series>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("{path}{cursor}");
        let response = client.get(&path).await.with_context(|| format!("GET {path}"))?;
        let body = response.decoded().with_context(|| format!("GET {path}"))?;
        let shown = String::from_utf8_lossy(&body);
        ensure!(response.status == 200, "GET {path}: {} {shown}", response.status);
        let page: Series = serde_json::from_slice(&body)?;
        let next = page.next_cursor.clone();
        pages.push(page);
        match next {
            None => return Ok(pages),
            Some(next) => cursor = format!("&cursor={}", percent_encode(&next)),
        }
    }
}

fn compare(wanted: &BTreeMap<i64, Vec<f64>>, pages: &[Series], length: i64) -> anyhow::Result<()> {
    let time = |text: &str| Ok::<_, anyhow::Error>(UnixMicros::parse_rfc3339(text)?.0);
    let mut found = BTreeMap::new();
    for point in pages.iter().flat_map(|page| &page.points) {
        let bucket = time(&point.at)?;
        ensure!(found.insert(bucket, point).is_none(), "{} comes twice", point.at);
    }
    ensure!(
        found.keys().eq(wanted.keys()),
        "buckets {:?}, expected {:?}",
        found.keys(),
        wanted.keys()
    );
    for (bucket, values) in wanted {
        let truth = naive::figures(values).context("the naive figures can't be computed")?;
        let point = found[bucket];
        let number = |raw: &RawValue| raw.get().parse::<f64>().context("a number");
        let said = Figures {
            count: point.count,
            sum: number(&point.sum)?,
            min: number(&point.min)?,
            max: number(&point.max)?,
            p50: number(&point.p50)?,
            p95: number(&point.p95)?,
        };
        let faults = truth.faults(&said);
        ensure!(faults.is_empty(), "{}: {}", point.at, faults.join(", "));
        let mean = truth.sum / truth.count as f64;
        ensure!(number(&point.avg)? == mean, "{}: avg is not {mean}", point.at);
    }
    for gap in pages.iter().flat_map(|page| &page.gaps) {
        let (from, to) = (time(&gap.from)?, time(&gap.to)?);
        ensure!(from < to && from % length == 0 && to % length == 0, "a gap {from} to {to}");
        let inside = wanted.range(from..to).next();
        ensure!(inside.is_none(), "a gap {} to {} has values", gap.from, gap.to);
    }
    Ok(())
}
