//! Whether an answer is complete.

use std::borrow::Cow;

use anyhow::{Context, ensure};
use penstock_common::event::UnixMicros;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::data::{DAY, HOUR, MINUTE};
use super::question::{Expected, Question};
use crate::fleet::client::Response;

#[derive(Deserialize)]
struct Series<'a> {
    resolution: &'a str,
    #[serde(borrow)]
    points: Vec<Point<'a>>,
    gaps: Vec<IgnoredAny>,
    next_cursor: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Point<'a> {
    #[serde(borrow)]
    at: Cow<'a, str>,
    count: u64,
    p95: f64,
    min: Option<f64>,
    max: Option<f64>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    events: Vec<Event<'a>>,
    next_cursor: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    device_id: Cow<'a, str>,
    #[serde(borrow)]
    effective_time: Cow<'a, str>,
}

/// What a right answer holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Points or events.
    pub(super) rows: usize,
    /// Bytes without compression.
    pub(super) bytes: usize,
}

/// Reads an answer.
///
/// # Errors
/// When it is no answer, or not complete.
pub(super) fn check(question: &Question, response: &Response) -> anyhow::Result<Held> {
    let body = response.decoded().context("decompress")?;
    let shown = || String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
    ensure!(response.status == 200, "{}: {}", response.status, shown());
    let rows = match &question.expected {
        Expected::Series { from, to, width, devices, changes_at, every } => {
            let answer: Series<'_> = serde_json::from_slice(&body).with_context(shown)?;
            let said = width_of(answer.resolution).context("an unknown resolution")?;
            ensure!(width.is_none_or(|width| width == said), "by {}", answer.resolution);
            ensure!(answer.gaps.is_empty(), "{} gaps: {}", answer.gaps.len(), shown());
            ensure!(answer.next_cursor.is_none(), "another page follows");
            let buckets = ((to - from) / said) as usize;
            let found = answer.points.len();
            ensure!(found == buckets, "{found} points, not {buckets}");
            for (point, bucket) in answer.points.iter().zip((*from..).step_by(said as usize)) {
                let every = if bucket < *changes_at { every.0 } else { every.1 };
                let count = devices * (said / every).unsigned_abs();
                point.check(bucket, count).with_context(|| format!("the point at {}", point.at))?;
            }
            found
        }
        Expected::Raw { device, from, to, events } => {
            let answer: Raw<'_> = serde_json::from_slice(&body).with_context(shown)?;
            ensure!(answer.next_cursor.is_none(), "another page follows");
            let found = answer.events.len();
            ensure!(found as u64 == *events, "{found} events, not {events}");
            answer.check(device, (*from, *to))?;
            found
        }
    };
    Ok(Held { rows, bytes: body.len() })
}

impl Point<'_> {
    fn check(&self, bucket: i64, count: u64) -> anyhow::Result<()> {
        ensure!(time(&self.at)? == bucket, "not at {}", UnixMicros(bucket).to_rfc3339());
        ensure!(self.count == count, "{} values, not {count}", self.count);
        let is_within = self.min.is_none_or(|min| min <= self.p95)
            && self.max.is_none_or(|max| self.p95 <= max);
        ensure!(is_within, "p95 {} is not between the extremes", self.p95);
        Ok(())
    }
}

impl Raw<'_> {
    /// In order, of that device, one an interval, none twice.
    fn check(&self, device: &str, (from, to): (i64, i64)) -> anyhow::Result<()> {
        let every = (to - from) / self.events.len().max(1) as i64;
        for (event, begin) in self.events.iter().zip((from..).step_by(every as usize)) {
            ensure!(event.device_id == device, "an event of {}", event.device_id);
            let at = time(&event.effective_time)?;
            ensure!((begin..begin + every).contains(&at), "an event at {}", event.effective_time);
        }
        let mut ids: Vec<&str> = self.events.iter().map(|event| &*event.event_id).collect();
        ids.sort_unstable();
        ensure!(ids.windows(2).all(|pair| pair[0] != pair[1]), "an event comes twice");
        Ok(())
    }
}

fn width_of(resolution: &str) -> Option<i64> {
    match resolution {
        "1m" => Some(MINUTE),
        "1h" => Some(HOUR),
        "1d" => Some(DAY),
        _ => None,
    }
}

fn time(text: &str) -> anyhow::Result<i64> {
    Ok(UnixMicros::parse_rfc3339(text).with_context(|| format!("a time {text:?}"))?.0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bench::query::question::Kind;

    fn answer(body: &str) -> Response {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let (retry_after, set_cookie, content_encoding) = (None, None, None);
        Response { status: 200, retry_after, set_cookie, content_encoding, body }
    }

    fn asked(expected: Expected) -> Question {
        Question { kind: Kind::DeviceDay, path: String::new(), expected }
    }

    #[test]
    fn a_series_with_a_hole_or_a_wrong_count_is_not_complete() {
        let question = asked(Expected::Series {
            from: 0,
            to: 120_000_000,
            width: Some(MINUTE),
            devices: 2,
            changes_at: MINUTE,
            every: (MINUTE, MINUTE / 3),
        });
        let point = |minute: u32, count| {
            format!(r#"{{"at":"1970-01-01T00:0{minute}:00Z","count":{count},"p95":1.5,"min":1}}"#)
        };
        let of = |points: &[String]| {
            let points = points.join(",");
            answer(&format!(
                r#"{{"resolution":"1m","points":[{points}],"gaps":[],"next_cursor":null}}"#
            ))
        };
        let good = of(&[point(0, 2), point(1, 6)]);
        assert_eq!(check(&question, &good).unwrap().rows, 2);
        for bad in [
            of(&[point(0, 2)]),
            of(&[point(0, 2), point(2, 6)]),
            of(&[point(0, 2), point(1, 5)]),
            answer(r#"{"resolution":"1m","points":[],"gaps":[{}],"next_cursor":null}"#),
            answer(r#"{"resolution":"1h","points":[],"gaps":[],"next_cursor":null}"#),
            Response { status: 503, ..of(&[point(0, 2), point(1, 6)]) },
        ] {
            assert!(check(&question, &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn events_are_all_there_once_and_in_order() {
        let question =
            asked(Expected::Raw { device: "d".into(), from: 0, to: 20_000_000, events: 2 });
        let of = |events: &[(&str, u32)]| {
            let event = |(id, second): &(&str, u32)| {
                format!(
                    r#"{{"event_id":"{id}","device_id":"d",
                        "effective_time":"1970-01-01T00:00:{second:02}Z"}}"#
                )
            };
            let events: Vec<String> = events.iter().map(event).collect();
            answer(&format!(r#"{{"events":[{}],"next_cursor":null}}"#, events.join(",")))
        };
        assert!(check(&question, &of(&[("a", 3), ("b", 13)])).is_ok());
        for bad in [&[("a", 3)][..], &[("a", 3), ("a", 13)], &[("a", 13), ("b", 3)]] {
            assert!(check(&question, &of(bad)).is_err(), "{bad:?}");
        }
    }
}
