//! `GET /v1/series`: rollups of a metric, of a device, a group or a fleet.

use std::fmt::Write as _;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use serde::Serialize;
use utoipa::ToSchema;

use super::parameters::Parameters;
use super::problem::Problem;
use super::{Api, cursor, described, devices};
use crate::series::{self, AUTO_POINTS_MAX, Page, Point, Resolution, choose, label};
use crate::store::rollup::Table;
use crate::store::rollup::serve::SeriesRow;

const KNOWN: [&str; 10] =
    ["metric", "fleet", "device", "group", "from", "to", "resolution", "stat", "limit", "cursor"];
const STATS: [&str; 7] = ["count", "avg", "min", "max", "p50", "p95", "sum"];
const LIMIT_MAX: usize = 10_000;
/// How far p50 and p95 may be off, relative.
const QUANTILE_ERROR: f64 = 0.01;

/// Rollups of one metric.
#[derive(Serialize, ToSchema)]
pub(super) struct Series {
    fleet: Option<String>,
    device: Option<String>,
    group: Option<String>,
    metric: String,
    /// `1m`, `1h` or `1d`.
    resolution: &'static str,
    from: String,
    to: String,
    points: Vec<SeriesPoint>,
    gaps: Vec<SeriesGap>,
    /// How far p50 and p95 may be off, relative.
    quantile_error: f64,
    /// For the next page.
    next_cursor: Option<String>,
}

/// A bucket with values.
#[derive(Serialize, ToSchema)]
struct SeriesPoint {
    /// Its begin.
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    avg: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    p95: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sum: Option<f64>,
    /// How often it changed since it was first written.
    revision: i32,
    /// It was corrected after its time.
    revised: bool,
    /// It may still grow as a matter of course.
    provisional: bool,
}

/// A range without values.
#[derive(Serialize, ToSchema)]
struct SeriesGap {
    from: String,
    to: String,
}

/// Which form the answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
    Arrow,
}

/// A question, read.
struct Asked<'a> {
    metric: String,
    fleet: Option<&'a str>,
    device: Option<&'a str>,
    group: Option<&'a str>,
    range: (i64, i64),
    resolution: Resolution,
    stats: Vec<&'static str>,
    limit: usize,
    begin: i64,
    question: String,
}

/// Rollups of one metric, of a device, a group, or a whole fleet.
#[utoipa::path(get, path = "/v1/series", tag = "series", params(
    ("metric" = String, Query, example = "cpu_temp"),
    ("fleet" = Option<String>, Query, description = "needed unless there is a group"),
    ("device" = Option<String>, Query, description = "neither device nor group: the whole fleet"),
    ("group" = Option<String>, Query),
    ("from" = String, Query, format = DateTime, description = "RFC 3339, included"),
    ("to" = String, Query, format = DateTime, description = "RFC 3339, not included"),
    ("resolution" = inline(Option<described::Resolution>), Query, description = "auto by default: the finest with at most 1,500 points"),
    ("stat" = inline(Option<Vec<described::Stat>>), Query, description = "all by default; repeated, or with commas"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 10000, description = "1,500 points by default"),
    ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, content((Series = "application/json"), (String = "text/csv"),
        (Vec<u8> = "application/vnd.apache.arrow.stream"))),
    (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem),
    (status = 406, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem)))]
pub(super) async fn get(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let form = form(&headers)?;
    let asked = parse(&given)?;
    let _slot = api.slots.take().await?;
    let (table, page) = api.in_time(answer(&api, &asked)).await?;
    let next = page.next.map(|at| cursor::encode(&[&at.to_string()], &asked.question));
    Ok(match form {
        Form::Json => axum::Json(json(&asked, table, &page, next)).into_response(),
        Form::Csv => with_cursor(next, "text/csv; charset=utf-8", csv(&asked.stats, &page)),
        Form::Arrow => {
            let bytes = super::arrow::stream(&asked.stats, &page.points).map_err(|error| {
                tracing::error!(%error, "a series could not be written as Arrow");
                Problem::new(500, "Internal error", "the answer could not be written as Arrow")
            })?;
            with_cursor(next, "application/vnd.apache.arrow.stream", bytes)
        }
    })
}

fn parse(given: &[(String, String)]) -> Result<Asked<'_>, Problem> {
    let mut parameters = Parameters::new(given, &KNOWN, &["stat"]);
    let metric = parameters.required("metric", "cpu_temp");
    let [fleet, device, group] = ["fleet", "device", "group"].map(|name| parameters.text(name));
    match (fleet, device, group) {
        (_, Some(_), Some(_)) => {
            parameters.problems.push("device, group: one of them, not both".into());
        }
        (Some(_), None, Some(_)) => {
            parameters
                .problems
                .push("fleet, group: a group may be of several fleets; leave fleet out".into());
        }
        (None, _, None) => parameters.problems.push("fleet: missing, e.g. fleet=press-line".into()),
        _ => {}
    }
    let range = parameters.range();
    let resolution = match parameters.text("resolution") {
        None => Some(Resolution::Auto),
        Some(name) => Resolution::from_name(name),
    };
    if resolution.is_none() {
        parameters.problems.push("resolution: want 1m, 1h, 1d or auto".into());
    }
    let resolution = resolution.unwrap_or(Resolution::Auto);
    let wanted: Vec<&str> = parameters.list("stat").collect();
    if let Some(wrong) = wanted.iter().find(|stat| !STATS.contains(stat)) {
        parameters
            .problems
            .push(format!("stat: unknown {wrong:?}; known are {}", STATS.join(", ")));
    }
    let is_wanted = |stat: &&str| wanted.is_empty() || wanted.contains(stat);
    let stats = STATS.into_iter().filter(is_wanted).collect();
    let limit = parameters.limit(AUTO_POINTS_MAX as usize, LIMIT_MAX);
    // Pages of a chain have the width of the first: it follows from the range, not the cursor.
    let question =
        format!("series {metric:?} {fleet:?} {device:?} {group:?} {range:?} {resolution:?}");
    let cursor = parameters.cursor(&question);
    let begin = cursor.and_then(|keys| keys.first()?.parse().ok()).unwrap_or(range.0);
    let asked =
        Asked { metric, fleet, device, group, range, resolution, stats, limit, begin, question };
    parameters.end(asked)
}

async fn answer(api: &Api, asked: &Asked<'_>) -> Result<(Table, Page), Problem> {
    let members = match asked.group {
        Some(group) => Some(devices::members(api, group).await?),
        None => None,
    };
    let devices = members.as_ref().map_or(1, Vec::len);
    let table = choose(asked.resolution, asked.range, devices)
        .map_err(|problem| Problem::bad_request(vec![problem]))?;
    let rest = (asked.begin.max(asked.range.0), asked.range.1);
    let (rows, closed) = match &members {
        Some(members) => {
            let fleets: Vec<&str> = members.iter().map(|member| member.fleet.as_str()).collect();
            let names: Vec<&str> = members.iter().map(|member| member.device.as_str()).collect();
            let rows = api.rollups.merged_rows(table, (&fleets, &names), &asked.metric, rest);
            (rows.await?, None)
        }
        None => {
            let (fleet, device) =
                (asked.fleet.unwrap_or_default(), asked.device.unwrap_or_default());
            let name = (fleet, device, asked.metric.as_str());
            let rows = api.rollups.series_rows(table, name, rest, asked.limit + 1).await?;
            let closed = match asked.device {
                Some(device) => api.rollups.closed_through(fleet, device).await?,
                None => None,
            };
            (rows, closed)
        }
    };
    let now = SystemClock.now().0;
    Ok((table, series::page(rows, table.width(), rest, asked.limit, now, closed)))
}

/// The value of a statistic.
pub(super) fn stat(row: &SeriesRow, name: &str) -> f64 {
    match name {
        "avg" => row.sum / row.count.max(1) as f64,
        "min" => row.min,
        "max" => row.max,
        "p50" => row.p50,
        "p95" => row.p95,
        "sum" => row.sum,
        _ => row.count as f64,
    }
}

fn json(asked: &Asked<'_>, table: Table, page: &Page, next_cursor: Option<String>) -> Series {
    let time = |micros: i64| UnixMicros(micros).to_rfc3339();
    let point = |point: &Point| {
        let of = |name: &str| asked.stats.contains(&name).then(|| stat(&point.row, name));
        SeriesPoint {
            at: time(point.row.bucket),
            count: asked.stats.contains(&"count").then_some(point.row.count),
            avg: of("avg"),
            min: of("min"),
            max: of("max"),
            p50: of("p50"),
            p95: of("p95"),
            sum: of("sum"),
            revision: point.row.revision,
            revised: point.revised,
            provisional: point.provisional,
        }
    };
    let gap = |gap: &series::Gap| SeriesGap { from: time(gap.from), to: time(gap.to) };
    Series {
        fleet: asked.fleet.map(str::to_owned),
        device: asked.device.map(str::to_owned),
        group: asked.group.map(str::to_owned),
        metric: asked.metric.clone(),
        resolution: label(table),
        from: time(asked.range.0),
        to: time(asked.range.1),
        points: page.points.iter().map(point).collect(),
        gaps: page.gaps.iter().map(gap).collect(),
        quantile_error: QUANTILE_ERROR,
        next_cursor,
    }
}

fn csv(stats: &[&str], page: &Page) -> String {
    let mut text = format!("at,{},revision,revised,provisional\n", stats.join(","));
    for Point { row, revised, provisional } in &page.points {
        text.push_str(&UnixMicros(row.bucket).to_rfc3339());
        for name in stats {
            // A String takes every write.
            let _ = match *name {
                "count" => write!(text, ",{}", row.count),
                name => write!(text, ",{}", stat(row, name)),
            };
        }
        let _ = writeln!(text, ",{},{revised},{provisional}", row.revision);
    }
    text
}

fn with_cursor(
    next: Option<String>,
    content_type: &'static str,
    body: impl IntoResponse,
) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(Ok(next)) = next.map(|next| HeaderValue::from_str(&next)) {
        headers.insert(HeaderName::from_static("next-cursor"), next);
    }
    response
}

/// The first form that the client takes and we have.
fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let forms = accept.split(',').filter_map(|range| {
        match range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" | "" => Some(Form::Json),
            "text/csv" | "text/*" => Some(Form::Csv),
            "application/vnd.apache.arrow.stream" => Some(Form::Arrow),
            _ => None,
        }
    });
    forms.into_iter().next().ok_or_else(|| {
        let detail = "Accept: we have application/json, text/csv and \
                      application/vnd.apache.arrow.stream";
        Problem::new(406, "Not acceptable", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Vec<(String, String)> {
        let pair = |pair: &str| pair.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
        text.split('&').filter_map(pair).collect()
    }

    const RANGE: &str = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z";

    #[test]
    fn a_question_is_read() {
        let given = given(&format!("metric=m&fleet=f&device=d&stat=p95,avg&{RANGE}"));
        let asked = parse(&given).unwrap_or_else(|_| panic!());
        assert_eq!((asked.device, asked.limit), (Some("d"), 1_500));
        assert_eq!(asked.stats, ["avg", "p95"]);
        assert_eq!(asked.begin, asked.range.0);
    }

    #[test]
    fn whose_it_is_must_be_clear() {
        for (whose, is_good) in [
            ("fleet=f", true),
            ("fleet=f&device=d", true),
            ("group=g", true),
            ("device=d", false),
            ("group=g&device=d", false),
            ("group=g&fleet=f", false),
        ] {
            let given = given(&format!("metric=m&{whose}&{RANGE}"));
            assert_eq!(parse(&given).is_ok(), is_good, "{whose}");
        }
    }

    #[test]
    fn the_form_is_the_first_that_is_known() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            form(&headers).ok()
        };
        assert_eq!(of("text/html, text/csv;q=0.9, */*"), Some(Form::Csv));
        assert_eq!(of("*/*"), Some(Form::Json));
        assert_eq!(of("application/vnd.apache.arrow.stream"), Some(Form::Arrow));
        assert_eq!(of("image/png"), None);
        assert_eq!(form(&HeaderMap::new()).ok(), Some(Form::Json));
    }
}
