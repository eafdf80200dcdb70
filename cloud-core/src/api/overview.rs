//! `GET /v1/overview`: how the whole installation is. What needs a database is asked at most once
//! in [`REMEMBERED`], however many look, and left out while that is away; the rest goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use penstock_common::topic::Topic;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::ledger::verdict::Verdict;
use crate::store::ledger::LedgerStore;
use crate::store::overview::GatewayStand;
use crate::store::positions::Position;
use crate::store::postgres::StoreError;

const REMEMBERED: Duration = Duration::from_secs(2);
/// The databases get no more time than this: somebody looks on.
const PATIENCE: Duration = Duration::from_secs(3);
const GATEWAYS_MAX: i64 = 1_000;
const REASONS_MAX: i64 = 50;

/// How the whole installation is. What is null can't be known at the moment: see `problems`.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Overview {
    at: String,
    /// Events that the bus took, over the last whole seconds.
    ingest_events_per_second: Option<f64>,
    /// Devices with an event in the last five minutes.
    live_devices: Option<u64>,
    freshness: Option<Fresh>,
    /// Events in the raw store, copies included.
    stored_rows: Option<i64>,
    /// Further copies of events, as far as they are known.
    duplicates: Option<u64>,
    /// Records on the bus that the raw writer has not stored.
    raw_lag_records: Option<i64>,
    /// Records on the bus that the aggregator has not counted.
    rollup_lag_records: Option<i64>,
    gateways: Option<Vec<Gateway>>,
    dead_letters: Option<DeadLetters>,
    ledger: Option<Ledger>,
    /// What is away: the name of the part, and why.
    problems: Vec<String>,
}

#[derive(Clone, Serialize, ToSchema)]
struct Fresh {
    /// From the append on the bus to being visible here.
    visible_ms_p50: u32,
    visible_ms_p99: u32,
    /// The oldest event in any spool had waited so long when its gateway last said so.
    spool_delay_ms_max: Option<i64>,
    /// Both together.
    total_ms: i64,
}

#[derive(Clone, Serialize, ToSchema)]
struct Gateway {
    gateway: String,
    status_at: String,
    status_age_s: i64,
    spool_pending: i64,
    spool_bytes: i64,
    spool_bytes_max: i64,
    oldest_age_s: Option<f64>,
    /// It has not been heard of for too long.
    silent: bool,
}

#[derive(Clone, Serialize, ToSchema)]
struct DeadLetters {
    open: i64,
    by_reason: Vec<Reason>,
}

#[derive(Clone, Serialize, ToSchema)]
struct Reason {
    reason: String,
    count: i64,
}

#[derive(Clone, Serialize, ToSchema)]
struct Ledger {
    received: u64,
    stored: u64,
    duplicates: u64,
    dead_lettered: u64,
    in_flight: u64,
    not_kept: u64,
    missing: u64,
    damaged: u64,
    /// `complete`, `in_flight` or `missing`.
    verdict: &'static str,
}

/// What the databases said, for all who ask.
#[derive(Clone, Default)]
pub(super) struct Remembered(Arc<Mutex<Option<Answer>>>);

type Answer = (Instant, Arc<Stored>);

#[derive(Default)]
struct Stored {
    rows: Option<i64>,
    gateways: Option<Vec<GatewayStand>>,
    reasons: Option<Vec<(String, i64)>>,
    ledger: Option<Verdict>,
    raw: Option<Vec<Position>>,
    rollup: Option<Vec<Position>>,
    problems: Vec<String>,
}

/// How the whole installation is.
#[utoipa::path(get, path = "/v1/overview", tag = "live", responses((status = 200, body = Overview),
    (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn get(State(api): State<Api>) -> Json<Overview> {
    let stored = Box::pin(stored(&api)).await;
    let now = SystemClock.now();
    let mut problems = stored.problems.clone();
    let (mut rate, mut devices, mut delays, mut ends) = (None, None, None, None);
    match &api.live {
        Some(live) => {
            let mut inner = live.lock();
            let now_ms = now.0 / 1_000;
            rate = Some(inner.events_per_second(now_ms));
            devices = Some(inner.window.devices() as u64);
            delays = inner.delays(now_ms);
            ends = Some(inner.ends.clone());
        }
        None => problems.push("live_devices: this process has no live view".to_owned()),
    }
    let lag = |positions: &Option<Vec<Position>>| {
        Some(lag_records(ends.as_ref()?, positions.as_ref()?)).flatten()
    };
    let spool_delay = stored.gateways.as_ref().map(|gateways| {
        gateways.iter().filter_map(|gateway| gateway.oldest_age).max().unwrap_or(0) / 1_000
    });
    Json(Overview {
        at: now.to_rfc3339(),
        ingest_events_per_second: rate,
        live_devices: devices,
        freshness: delays.map(|delays| Fresh {
            visible_ms_p50: delays.p50_ms,
            visible_ms_p99: delays.p99_ms,
            spool_delay_ms_max: spool_delay,
            total_ms: i64::from(delays.p99_ms) + spool_delay.unwrap_or(0),
        }),
        stored_rows: stored.rows,
        duplicates: stored.ledger.as_ref().map(|ledger| ledger.duplicates),
        raw_lag_records: lag(&stored.raw),
        rollup_lag_records: lag(&stored.rollup),
        gateways: stored.gateways.as_ref().map(|gateways| {
            gateways.iter().map(|stand| gateway(stand, now, api.silent_after_ms)).collect()
        }),
        dead_letters: stored.reasons.as_ref().map(|reasons| DeadLetters {
            open: reasons.iter().map(|(_, count)| count).sum(),
            by_reason: reasons
                .iter()
                .map(|(reason, count)| Reason { reason: reason.clone(), count: *count })
                .collect(),
        }),
        ledger: stored.ledger.as_ref().map(ledger),
        problems,
    })
}

async fn stored(api: &Api) -> Arc<Stored> {
    // Whoever comes while somebody asks waits for the same answer.
    let mut remembered = api.remembered.0.lock().await;
    if let Some((at, stored)) = &*remembered
        && at.elapsed() < REMEMBERED
    {
        return Arc::clone(stored);
    }
    let mut stored = Stored::default();
    let ledger = LedgerStore::new(api.catalog.pool().clone());
    let (catalog, rollups) = (api.catalog.positions(), api.rollups.positions());
    let (totals, gateways, reasons, ledger, raw, rollup) = tokio::join!(
        patiently(api.catalog.totals()),
        patiently(api.catalog.gateways(GATEWAYS_MAX)),
        patiently(api.catalog.open_dead_letters(REASONS_MAX)),
        patiently(ledger.totals()),
        patiently(catalog.of_role(crate::raw::ROLE)),
        patiently(rollups.of_role(crate::rollup::ROLE)),
    );
    let mut note = |part: &str, error: Option<String>| {
        if let Some(error) = error {
            tracing::warn!(part, error, "the overview is without it");
            let problem = format!("{part}: the database does not answer; it is asked again");
            stored.problems.push(problem);
        }
    };
    note("stored_rows", totals.as_ref().err().cloned());
    note("gateways", gateways.as_ref().err().cloned());
    note("dead_letters", reasons.as_ref().err().cloned());
    note("ledger", ledger.as_ref().err().cloned());
    note("duplicates", ledger.as_ref().err().cloned());
    note("raw_lag_records", raw.as_ref().err().cloned());
    note("rollup_lag_records", rollup.as_ref().err().cloned());
    stored.raw = raw.ok();
    stored.rollup = rollup.ok();
    stored.rows = totals.ok().map(|totals| totals.rows);
    stored.gateways = gateways.ok();
    stored.reasons = reasons.ok();
    stored.ledger = ledger.ok().map(|totals| {
        let mut sum = Verdict::default();
        totals.iter().for_each(|one| sum += &one.verdict);
        sum
    });
    let stored = Arc::new(stored);
    *remembered = Some((Instant::now(), Arc::clone(&stored)));
    stored
}

async fn patiently<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

/// What lies between the positions and the ends of the bus; none before the first position. A
/// partition that nobody has ever claimed counts from its beginning.
fn lag_records(ends: &BTreeMap<i32, i64>, positions: &[Position]) -> Option<i64> {
    let of_events = |position: &&Position| position.topic.ends_with(Topic::RawEvents.base_name());
    let next: BTreeMap<i32, i64> =
        positions.iter().filter(of_events).map(|at| (at.partition, at.next_offset)).collect();
    let lag = |(partition, end): (&i32, &i64)| (end - next.get(partition).unwrap_or(&0)).max(0);
    (!next.is_empty()).then(|| ends.iter().map(lag).sum())
}

fn gateway(stand: &GatewayStand, now: UnixMicros, silent_after_ms: u64) -> Gateway {
    let age = now.0.saturating_sub(stand.status_at).max(0);
    Gateway {
        gateway: stand.gateway.clone(),
        status_at: UnixMicros(stand.status_at).to_rfc3339(),
        status_age_s: age / 1_000_000,
        spool_pending: stand.pending,
        spool_bytes: stand.spool_bytes,
        spool_bytes_max: stand.spool_bytes_max,
        oldest_age_s: stand.oldest_age.map(|age| age.max(0) as f64 / 1e6),
        silent: age.unsigned_abs() / 1_000 > silent_after_ms,
    }
}

fn ledger(verdict: &Verdict) -> Ledger {
    let name = match (verdict.missing + verdict.damaged, verdict.in_flight) {
        (0, 0) => "complete",
        (0, _) => "in_flight",
        _ => "missing",
    };
    Ledger {
        received: verdict.received,
        stored: verdict.stored,
        duplicates: verdict.duplicates,
        dead_lettered: verdict.dead_lettered,
        in_flight: verdict.in_flight,
        not_kept: verdict.not_kept,
        missing: verdict.missing,
        damaged: verdict.damaged,
        verdict: name,
    }
}
