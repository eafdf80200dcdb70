//! Which devices, fleets and metrics there are.

use axum::Json;
use axum::extract::{Query, State};
use penstock_common::event::UnixMicros;
use serde::Serialize;
use utoipa::ToSchema;

use super::parameters::Parameters;
use super::problem::Problem;
use super::{Api, cursor};
use crate::store::groups::DeviceName;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Members of a group that are looked through.
const MEMBERS_MAX: usize = 100_000;

/// Devices.
#[derive(Serialize, ToSchema)]
pub(super) struct Devices {
    devices: Vec<Device>,
    /// For the next page.
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Device {
    fleet: String,
    device: String,
    /// The metrics that it ever had.
    metrics: Vec<String>,
    /// The newest event of the last five minutes, RFC 3339.
    last_seen: Option<String>,
}

/// Devices by fleet and name.
#[utoipa::path(get, path = "/v1/devices", tag = "devices", params(
    ("fleet" = Option<String>, Query, description = "only this fleet"),
    ("q" = Option<String>, Query, description = "the name contains it, in any case"),
    ("group" = Option<String>, Query, description = "only devices of this group"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "100 by default"),
    ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = Devices), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn get(
    State(api): State<Api>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Json<Devices>, Problem> {
    let known = ["fleet", "q", "group", "limit", "cursor"];
    let mut parameters = Parameters::new(&given, &known, &[]);
    let (fleet, group) = (parameters.text("fleet"), parameters.text("group"));
    let q = parameters.text("q").unwrap_or_default();
    let limit = parameters.limit(LIMIT_DEFAULT, LIMIT_MAX);
    let question = format!("devices {fleet:?} {q:?} {group:?}");
    let after = parameters.cursor(&question);
    let after = match after.as_deref() {
        Some([fleet, device]) => (fleet.as_str(), device.as_str()),
        _ => ("", ""),
    };
    parameters.end(())?;
    let (mut found, members) = api
        .in_time(async {
            let members = match group {
                None => None,
                Some(group) => Some(members(&api, group).await?),
            };
            // Of a group there may be few among many: they are looked for one page of all after
            // the other.
            let found = match &members {
                None => api.rollups.known_devices(fleet, q, after, limit + 1).await?,
                Some(members) => {
                    of_group(&api, members, fleet, &q.to_lowercase(), after, limit + 1).await?
                }
            };
            Ok::<_, Problem>((found, members))
        })
        .await?;
    drop(members);
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found
        .last()
        .filter(|_| more)
        .map(|last| cursor::encode(&[&last.fleet, &last.device], &question));
    let live = api.live.as_ref().map(crate::live::stage::Live::lock);
    let devices = found
        .into_iter()
        .map(|known| {
            let seen =
                live.as_ref().and_then(|live| live.window.last_seen(&known.fleet, &known.device));
            Device {
                last_seen: seen.map(|ms| UnixMicros(ms.saturating_mul(1_000)).to_rfc3339()),
                fleet: known.fleet,
                device: known.device,
                metrics: known.metrics,
            }
        })
        .collect();
    Ok(Json(Devices { devices, next_cursor }))
}

/// The devices of a group.
pub(super) async fn members(api: &Api, group: &str) -> Result<Vec<DeviceName>, Problem> {
    let none = DeviceName { fleet: String::new(), device: String::new() };
    let members = api.groups.members(group, &none, MEMBERS_MAX).await?;
    members.ok_or_else(|| Problem::not_found(format!("there is no group {group:?}")))
}

async fn of_group(
    api: &Api,
    members: &[DeviceName],
    fleet: Option<&str>,
    q: &str,
    after: (&str, &str),
    limit: usize,
) -> Result<Vec<crate::store::rollup::serve::KnownDevice>, Problem> {
    let wanted = members.iter().filter(|member| {
        fleet.is_none_or(|fleet| member.fleet == fleet)
            && (member.fleet.as_str(), member.device.as_str()) > after
            && member.device.to_lowercase().contains(q)
    });
    let wanted: Vec<&DeviceName> = wanted.take(limit).collect();
    Ok(api.rollups.devices_named(&wanted).await?)
}

/// Fleets.
#[derive(Serialize, ToSchema)]
pub(super) struct Fleets {
    fleets: Vec<String>,
}

/// The fleets that have rollups.
#[utoipa::path(get, path = "/v1/fleets", tag = "devices", responses((status = 200, body = Fleets),
    (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem),
    (status = 504, body = Problem)))]
pub(super) async fn fleets(State(api): State<Api>) -> Result<Json<Fleets>, Problem> {
    let fleets = api.in_time(async { Ok::<_, Problem>(api.rollups.fleets().await?) }).await?;
    Ok(Json(Fleets { fleets }))
}

/// Metrics.
#[derive(Serialize, ToSchema)]
pub(super) struct Metrics {
    metrics: Vec<Metric>,
}

#[derive(Serialize, ToSchema)]
struct Metric {
    name: String,
    /// For people.
    title: Option<String>,
    description: Option<String>,
    unit: Option<String>,
    /// New devices no longer send it.
    deprecated: bool,
    /// The first schema version that knows it.
    since_schema: u32,
}

/// The metrics that a schema knows.
#[utoipa::path(get, path = "/v1/metrics", tag = "devices", responses(
    (status = 200, body = Metrics), (status = 401, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem)))]
pub(super) async fn metrics(State(api): State<Api>) -> Json<Metrics> {
    let metric = |metric: &crate::series::catalogue::KnownMetric| Metric {
        name: metric.name.clone(),
        title: metric.title.clone(),
        unit: metric.unit.clone(),
        description: metric.description.clone(),
        deprecated: metric.deprecated,
        since_schema: metric.since_schema,
    };
    Json(Metrics { metrics: api.known_metrics.iter().map(metric).collect() })
}
