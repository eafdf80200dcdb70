//! The HTTP API for analysts and the dashboard, and the admin listener that every process has.
//!
//! - `guard.rs`, `limits.rs`, `session.rs`: who may, and how often.
//! - `series.rs`, `devices.rs`, `groups.rs`, `following.rs`, `overview.rs`: what the page shows.
//! - `raw.rs`, `dead_letters/`, `ledger.rs`, `status.rs`, `audit.rs`: for those who look closer.
//! - `parameters.rs`, `cursor.rs`, `arrow.rs`, `respond.rs`, `problem.rs`: reading and answering.
//! - `openapi.rs`, `described.rs`: the description of all of it; `ui.rs`: the page itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, map_response};
use axum::routing::{delete, get, patch, post, put};
use penstock_common::schema::SchemaSet;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;

use crate::access::Role;
use crate::access::identify::Identities;
use crate::deadletter::replay::Replayer;
use crate::ledger::LedgerConfig;
use crate::live::stage::Live;
use crate::query::Queries;
use crate::series::catalogue::{KnownMetric, known_metrics};
use crate::store::access::AccessStore;
use crate::store::catalog::Catalog;
use crate::store::groups::GroupStore;
use crate::store::rollup::RollupStore;

pub mod admin;
mod arrow;
mod audit;
mod cursor;
mod dead_letters;
mod described;
mod devices;
mod following;
mod groups;
pub mod guard;
pub(crate) mod ledger;
mod limits;
pub mod openapi;
mod overview;
mod parameters;
pub mod problem;
mod raw;
mod respond;
mod series;
mod session;
mod slots;
mod status;
mod ui;

use guard::{Guard, Needs, Route, Routes};
use limits::Limits;
use problem::Problem;
use slots::Slots;

/// Where the API listens, and what it allows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Address and port; port 0 takes any.
    pub listen: String,
    /// Queries answered at the same time; more wait for a second, then are told to come back.
    pub queries_max: usize,
    /// A query that takes longer is given up.
    pub query_timeout_ms: u64,
    /// So often may a token ask.
    pub requests_per_second: f64,
    /// And so many times at once.
    pub requests_burst: u32,
    /// A browser's session ends after so many hours.
    pub session_hours: u32,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8090".into(),
            queries_max: 16,
            query_timeout_ms: 30_000,
            requests_per_second: 50.0,
            requests_burst: 200,
            session_hours: 12,
        }
    }
}

impl ApiConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        if self.listen.parse::<std::net::SocketAddr>().is_err() {
            problems.push(format!("api.listen {:?}: want address:port", self.listen));
        }
        if self.queries_max == 0 || self.query_timeout_ms == 0 {
            problems.push("api.queries_max and api.query_timeout_ms: at least 1".into());
        }
        if !(0.1..=1e6).contains(&self.requests_per_second) || self.requests_burst == 0 {
            problems.push(
                "api.requests_per_second: 0.1 to 1000000; api.requests_burst: at least 1".into(),
            );
        }
        if !(1..=8_760).contains(&self.session_hours) {
            problems.push("api.session_hours: 1 to 8760".into());
        }
    }
}

/// The stores that it reads.
#[derive(Clone)]
pub struct Stores {
    /// Raw events.
    pub queries: Queries,
    /// The catalog.
    pub catalog: Catalog,
    /// The rollups.
    pub rollups: RollupStore,
}

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    queries: Queries,
    catalog: Catalog,
    rollups: RollupStore,
    groups: GroupStore,
    guard: Guard,
    live: Option<Live>,
    known_metrics: Arc<[KnownMetric]>,
    remembered: overview::Remembered,
    replayer: Option<Replayer>,
    slots: Slots,
    timeout: Duration,
    session_seconds: i64,
    silent_after_ms: u64,
    stop: CancellationToken,
}

impl Api {
    /// An API over these stores.
    pub fn new(stores: Stores, schemas: &SchemaSet, config: &ApiConfig) -> Self {
        let Stores { queries, catalog, rollups } = stores;
        let pool = catalog.pool().clone();
        let guard = Guard {
            identities: Identities::new(AccessStore::new(pool.clone())),
            limits: Limits::new(config.requests_per_second, config.requests_burst),
        };
        Self {
            queries,
            catalog,
            rollups,
            groups: GroupStore::new(pool),
            guard,
            live: None,
            known_metrics: known_metrics(schemas).into(),
            remembered: overview::Remembered::default(),
            replayer: None,
            slots: Slots::new(config.queries_max),
            timeout: Duration::from_millis(config.query_timeout_ms),
            session_seconds: i64::from(config.session_hours) * 3_600,
            silent_after_ms: LedgerConfig::default().silent_after_ms,
            stop: CancellationToken::new(),
        }
    }

    /// Lets it replay dead letters.
    #[must_use]
    pub fn with_replays(self, replayer: Replayer) -> Self {
        Self { replayer: Some(replayer), ..self }
    }

    /// With live values.
    #[must_use]
    pub fn with_live(self, live: Live) -> Self {
        Self { live: Some(live), ..self }
    }

    /// Streams end then.
    #[must_use]
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// With gateways said to be silent after so long without a status.
    #[must_use]
    pub fn silent_after_ms(self, silent_after_ms: u64) -> Self {
        Self { silent_after_ms, ..self }
    }

    /// Its routes, and the table of what each needs.
    pub fn router(self) -> (Router, Vec<Route>) {
        let [viewer, analyst, admin] = Role::ALL.map(Needs::Role);
        let open = Needs::Nothing;
        let import_max = axum::extract::DefaultBodyLimit::max(groups::BODY_BYTES_MAX);
        let (router, table) = Routes::new(self.guard.clone())
            .on(Method::POST, "/v1/session", open, post(session::post))
            .on(Method::GET, "/v1/session", viewer, get(session::get))
            .on(Method::DELETE, "/v1/session", viewer, delete(session::delete))
            .on(Method::GET, "/v1/devices", viewer, get(devices::get))
            .on(Method::GET, "/v1/fleets", viewer, get(devices::fleets))
            .on(Method::GET, "/v1/metrics", viewer, get(devices::metrics))
            .on(Method::GET, "/v1/groups", viewer, get(groups::list))
            .on(Method::GET, "/v1/groups/{name}", viewer, get(groups::one))
            .on(Method::PUT, "/v1/groups", admin, put(groups::put).layer(import_max))
            .on(Method::PATCH, "/v1/groups", admin, patch(groups::patch).layer(import_max))
            .on(Method::GET, "/v1/series", viewer, get(series::get))
            .on(Method::GET, "/v1/latest", viewer, get(following::latest))
            .on(Method::GET, "/v1/live", viewer, get(following::stream))
            .on(Method::GET, "/v1/overview", viewer, get(overview::get))
            .on(Method::GET, "/v1/status", viewer, get(status::get))
            .on(Method::GET, "/v1/raw", analyst, get(raw::get))
            .on(Method::GET, "/v1/dead-letters", analyst, get(dead_letters::list::get))
            .on(Method::GET, "/v1/dead-letters/{id}", analyst, get(dead_letters::one::get))
            .on(Method::POST, "/v1/dead-letters/replay", admin, post(dead_letters::replay::post))
            .on(Method::GET, "/v1/ledger", analyst, get(ledger::get))
            .on(Method::GET, "/v1/audit", admin, get(audit::get))
            .on(Method::GET, "/v1/openapi.json", open, get(openapi::get))
            .on(Method::GET, "/docs", open, get(ui::docs))
            .on(Method::GET, "/", open, get(ui::page))
            .on(Method::GET, "/assets/{*path}", open, get(ui::asset))
            .build();
        let router = router
            .fallback(not_found)
            .method_not_allowed_fallback(not_allowed)
            .layer(from_fn(respond::etag))
            .layer(map_response(respond::secure))
            .layer(CompressionLayer::new())
            .with_state(self);
        (router, table)
    }

    /// Gives a question its time; the databases are told when it is up.
    async fn in_time<T>(
        &self,
        question: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        tokio::time::timeout(self.timeout, question).await.map_err(|_| Problem::timeout())?
    }
}

async fn not_found(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; see /docs for what there is", uri.path());
    Problem::not_found(detail)
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not allowed at {}; see /docs for what is", uri.path());
    Problem::new(405, "Method not allowed", detail)
}

/// A client that does not take its answer must not keep the process from ending.
const DRAIN: Duration = Duration::from_secs(30);

/// Serves until told to stop, then finishes the requests under way.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let stopped = stop.clone().cancelled_owned();
    tokio::select! {
        ended = axum::serve(listener, router).with_graceful_shutdown(stopped).into_future() => ended,
        () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}
