//! The HTTP API for analysts, and the admin listener that every process has.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::deadletter::replay::Replayer;
use crate::ledger::LedgerConfig;
use crate::query::Queries;
use crate::store::catalog::Catalog;

pub mod admin;
mod dead_letters;
pub(crate) mod ledger;
pub mod problem;
mod raw;
mod status;

use problem::Problem;

/// Where the API listens, and what it allows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Address and port; port 0 takes any.
    pub listen: String,
    /// Queries answered at the same time; more are told to come back.
    pub queries_max: usize,
    /// A query that takes longer is given up.
    pub query_timeout_ms: u64,
}

impl Default for ApiConfig {
    fn default() -> Self {
        let (queries_max, query_timeout_ms) = (16, 30_000);
        Self { listen: "127.0.0.1:8090".into(), queries_max, query_timeout_ms }
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
    }
}

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    queries: Queries,
    catalog: Catalog,
    replayer: Option<Replayer>,
    running: Arc<Semaphore>,
    timeout: Duration,
    silent_after_ms: u64,
}

impl Api {
    /// An API over these stores.
    pub fn new(queries: Queries, catalog: Catalog, config: &ApiConfig) -> Self {
        Self {
            queries,
            catalog,
            replayer: None,
            running: Arc::new(Semaphore::new(config.queries_max)),
            timeout: Duration::from_millis(config.query_timeout_ms),
            silent_after_ms: LedgerConfig::default().silent_after_ms,
        }
    }

    /// Lets it replay dead letters.
    #[must_use]
    pub fn with_replays(self, replayer: Replayer) -> Self {
        Self { replayer: Some(replayer), ..self }
    }

    /// With gateways said to be silent after so long without a status.
    #[must_use]
    pub fn silent_after_ms(self, silent_after_ms: u64) -> Self {
        Self { silent_after_ms, ..self }
    }

    /// Its routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/raw", get(raw::get))
            .route("/v1/dead-letters", get(dead_letters::list::get))
            .route("/v1/dead-letters/{id}", get(dead_letters::one::get))
            .route("/v1/dead-letters/replay", post(dead_letters::replay::post))
            .route("/v1/ledger", get(ledger::get))
            .route("/v1/status", get(status::get))
            .fallback(not_found)
            .method_not_allowed_fallback(not_allowed)
            .with_state(self)
    }
}

async fn not_found(uri: Uri) -> Problem {
    let detail = format!(
        "there is nothing at {}; try /v1/raw, /v1/dead-letters, /v1/ledger or /v1/status",
        uri.path()
    );
    Problem::new(404, "Not found", detail)
}

async fn not_allowed(method: Method) -> Problem {
    Problem::new(
        405,
        "Method not allowed",
        format!("{method} is not allowed here; queries are GET, replays are POST"),
    )
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
