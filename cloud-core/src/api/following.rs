//! Live values over HTTP: the newest of each metric, and a stream of server-sent events.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use utoipa::ToSchema;

use super::parameters::Parameters;
use super::problem::Problem;
use super::{Api, described, devices};
use crate::live::feed::{Fed, Following, Wanted};
use crate::live::mean::Means;
use crate::live::stage::{Inner, Live};
use crate::live::window::Points;
use crate::rollup::counted::Metric;

/// How often points are sent.
const SEND_EVERY: Duration = Duration::from_millis(500);
/// After so many ticks without points there is a ping.
const PING_TICKS: u32 = 10;
/// Series of one stream at most; beyond it devices become one line.
const SERIES_MAX: usize = 100;

/// The newest values.
#[derive(Serialize, ToSchema)]
pub(super) struct Latest {
    values: Vec<LatestValue>,
    as_of: String,
}

#[derive(Serialize, ToSchema)]
struct LatestValue {
    fleet: String,
    device: String,
    metric: String,
    /// The time of its event.
    at: String,
    value: f64,
}

/// Points of some series, or none.
#[derive(Serialize, ToSchema)]
pub(super) struct LivePoints {
    series: Vec<LiveSeries>,
    /// From the append on the bus to being visible here, the worst of the last seconds; null when
    /// nothing came.
    freshness_ms: Option<u32>,
}

#[derive(Serialize, ToSchema)]
struct LiveSeries {
    fleet: String,
    /// Empty: the mean of many devices.
    device: String,
    metric: String,
    /// Milliseconds since the Unix epoch, and the value.
    #[schema(value_type = Vec<Vec<f64>>)]
    points: Points,
}

/// Which devices and metrics.
struct Asked {
    wanted: Wanted,
    /// What the means are called after.
    fleet: String,
    metrics: Vec<Metric>,
    is_mean: bool,
}

/// The newest value of each metric in the last five minutes.
#[utoipa::path(get, path = "/v1/latest", tag = "live", params(
    ("fleet" = Option<String>, Query, description = "with device"),
    ("device" = Option<String>, Query), ("group" = Option<String>, Query)),
    responses((status = 200, body = Latest), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn latest(
    State(api): State<Api>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Json<Latest>, Problem> {
    let live = live(&api)?;
    let parameters = Parameters::new(&given, &["fleet", "device", "group"], &[]);
    let asked = asked(&api, parameters, false).await?;
    let inner = live.lock();
    let mut values = Vec::new();
    for (fleet, device) in devices_of(&asked.wanted, &inner) {
        for (metric, points) in inner.window.points(&fleet, &device, &asked.metrics) {
            let Some((at_ms, value)) = points.last() else { continue };
            values.push(LatestValue {
                fleet: fleet.to_string(),
                device: device.to_string(),
                metric: live.metrics().name(metric).to_string(),
                at: UnixMicros(at_ms.saturating_mul(1_000)).to_rfc3339(),
                value: *value,
            });
        }
    }
    Ok(Json(Latest { values, as_of: SystemClock.now().to_rfc3339() }))
}

/// The last five minutes, then what comes: server-sent events `snapshot`, `points` and `ping`.
#[utoipa::path(get, path = "/v1/live", tag = "live", params(
    ("fleet" = Option<String>, Query), ("device" = Option<String>, Query),
    ("group" = Option<String>, Query),
    ("metric" = Option<Vec<String>>, Query, description = "all by default; repeated, or with commas"),
    ("aggregate" = inline(Option<described::Aggregate>), Query, description = "many devices as one line")),
    responses((status = 200, body = described::LiveEvent, content_type = "text/event-stream"),
    (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem),
    (status = 429, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn stream(
    State(api): State<Api>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let live = live(&api)?.clone();
    let known = ["fleet", "device", "group", "metric", "aggregate"];
    let parameters = Parameters::new(&given, &known, &["metric"]);
    let asked = asked(&api, parameters, true).await?;
    let following = live.follow(asked.wanted.clone()).ok_or_else(|| {
        Problem::new(503, "Service unavailable", "too many live streams are open; try again")
    })?;
    let follower = Follower::new(live, asked, following);
    let stop = api.stop.clone();
    let events = futures::stream::unfold((follower, stop), |(mut follower, stop)| async {
        let event = tokio::select! {
            () = stop.cancelled() => return None,
            event = follower.next() => event,
        };
        Some((Ok(event), (follower, stop)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn live(api: &Api) -> Result<&Live, Problem> {
    api.live.as_ref().ok_or_else(|| Problem::unavailable("this process has no live view"))
}

async fn asked(
    api: &Api,
    mut parameters: Parameters<'_>,
    fleet_is_enough: bool,
) -> Result<Asked, Problem> {
    let [fleet, device, group] = ["fleet", "device", "group"].map(|name| parameters.text(name));
    match (fleet, device, group) {
        (Some(_), Some(_), None) | (None, None, Some(_)) => {}
        (Some(_), None, None) if fleet_is_enough => {}
        _ => {
            let want = "fleet, device, group: want fleet and device, or group";
            parameters.problems.push(want.into());
        }
    }
    let live = live(api)?;
    let mut metrics = Vec::new();
    for name in parameters.list("metric").collect::<BTreeSet<_>>() {
        match (0..).zip(&*api.known_metrics).find(|(_, known)| known.name == name) {
            Some((metric, _)) => metrics.push(metric),
            None => parameters.problems.push(format!("metric: no schema knows {name:?}")),
        }
    }
    debug_assert_eq!(live.metrics().len(), api.known_metrics.len());
    let is_mean = match parameters.text("aggregate") {
        None => false,
        Some("avg") => true,
        Some(_) => {
            parameters.problems.push("aggregate: want avg, or leave it out".into());
            false
        }
    };
    parameters.end(())?;
    let (wanted, fleet) = match (fleet, device, group) {
        (Some(fleet), Some(device), _) => {
            let wanted = Wanted::Device { fleet: fleet.into(), device: device.into() };
            (wanted, fleet.to_owned())
        }
        (Some(fleet), None, _) => (Wanted::Fleet(fleet.into()), fleet.to_owned()),
        _ => {
            let group = group.unwrap_or_default();
            let members = api.in_time(devices::members(api, group)).await?;
            let pair = |m: crate::store::groups::DeviceName| (m.fleet.into(), m.device.into());
            (Wanted::Devices(members.into_iter().map(pair).collect()), String::new())
        }
    };
    let is_many = !matches!(wanted, Wanted::Device { .. });
    Ok(Asked { wanted, fleet, metrics, is_mean: is_mean && is_many })
}

/// The devices that are wanted and in the window, in order.
fn devices_of(wanted: &Wanted, inner: &Inner) -> Vec<(Arc<str>, Arc<str>)> {
    match wanted {
        Wanted::Device { fleet, device } => vec![(Arc::clone(fleet), Arc::clone(device))],
        Wanted::Devices(devices) => {
            let mut devices: Vec<_> = devices.iter().cloned().collect();
            devices.sort_unstable();
            devices
        }
        Wanted::Fleet(fleet) => {
            let devices = inner.window.devices_of(fleet);
            devices.into_iter().map(|device| (Arc::clone(fleet), device)).collect()
        }
    }
}

/// One stream.
struct Follower {
    live: Live,
    asked: Asked,
    following: Following,
    ticks: tokio::time::Interval,
    means: Means,
    needs_snapshot: bool,
    silent_ticks: u32,
}

type Lines = BTreeMap<(Arc<str>, Arc<str>, Metric), Points>;

impl Follower {
    fn new(live: Live, asked: Asked, following: Following) -> Self {
        let mut ticks = tokio::time::interval(SEND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let means = Means::new();
        Self { live, asked, following, ticks, means, needs_snapshot: true, silent_ticks: 0 }
    }

    async fn next(&mut self) -> Event {
        loop {
            self.ticks.tick().await;
            let now_ms = SystemClock.now().0 / 1_000;
            if self.needs_snapshot {
                self.needs_snapshot = false;
                let lines = self.snapshot(now_ms);
                return self.event("snapshot", lines, now_ms);
            }
            let Some(fed) = self.following.take() else {
                self.needs_snapshot = true;
                continue;
            };
            let lines = self.points(fed, now_ms);
            if !lines.is_empty() {
                return self.event("points", lines, now_ms);
            }
            self.silent_ticks += 1;
            if self.silent_ticks >= PING_TICKS {
                return self.event("ping", lines, now_ms);
            }
        }
    }

    fn snapshot(&mut self, now_ms: i64) -> Lines {
        let live = self.live.clone();
        let inner = live.lock();
        // Under the lock nothing can come between: what was fed before is in the window.
        while self.following.take().is_none() {}
        let devices = devices_of(&self.asked.wanted, &inner);
        let metrics = self.asked.metrics.len().max(1);
        // A stream that would be too wide is one line, from the beginning on.
        self.asked.is_mean |= devices.len() * metrics > SERIES_MAX;
        let mut lines = Lines::new();
        self.means = Means::new();
        for (fleet, device) in devices {
            for (metric, points) in inner.window.points(&fleet, &device, &self.asked.metrics) {
                if self.asked.is_mean {
                    points.iter().for_each(|(at_ms, value)| self.means.add(metric, *at_ms, *value));
                } else {
                    lines.insert((Arc::clone(&fleet), Arc::clone(&device), metric), points);
                }
            }
        }
        if self.asked.is_mean { self.take_means(now_ms) } else { lines }
    }

    fn points(&mut self, fed: Vec<Fed>, now_ms: i64) -> Lines {
        let mut lines = Lines::new();
        for Fed { fleet, device, sample } in fed {
            for (metric, value) in &sample.values {
                if !self.asked.metrics.is_empty() && !self.asked.metrics.contains(metric) {
                    continue;
                }
                if self.asked.is_mean {
                    self.means.add(*metric, sample.at_ms, *value);
                } else {
                    let line = lines.entry((Arc::clone(&fleet), Arc::clone(&device), *metric));
                    line.or_default().push((sample.at_ms, *value));
                }
            }
        }
        if self.asked.is_mean { self.take_means(now_ms) } else { lines }
    }

    fn take_means(&mut self, now_ms: i64) -> Lines {
        let fleet: Arc<str> = self.asked.fleet.as_str().into();
        let means = self.means.take(now_ms).into_iter();
        means.map(|(metric, points)| ((Arc::clone(&fleet), "".into(), metric), points)).collect()
    }

    fn event(&mut self, name: &str, lines: Lines, now_ms: i64) -> Event {
        self.silent_ticks = 0;
        let freshness_ms = self.live.lock().delays(now_ms).map(|delays| delays.max_ms);
        let series = lines
            .into_iter()
            .map(|((fleet, device, metric), points)| LiveSeries {
                fleet: fleet.to_string(),
                device: device.to_string(),
                metric: self.live.metrics().name(metric).to_string(),
                points,
            })
            .collect();
        let data = serde_json::to_string(&LivePoints { series, freshness_ms });
        // Numbers and strings can always be written.
        Event::default().event(name).data(data.unwrap_or_default())
    }
}
