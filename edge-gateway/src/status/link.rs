//! Whether the bus answers, as people want to know it: seen from what it has acknowledged.
//!
//! A status goes to the bus every few seconds, so that a link that works is never silent for long,
//! also when no device sends anything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use penstock_common::telemetry::Complaint;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The part of the program whose complaints are about the link.
const TARGET: &str = "edge_gateway::forward";
/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How the link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// The bus answered lately.
    Up,
    /// It has not answered yet, and there was little time for it.
    Starting,
    /// It should have answered.
    Silent,
}

/// The link at a moment.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) state: LinkState,
    pub(super) silent_s: Option<u64>,
    acknowledged_at: Option<UnixMicros>,
    acknowledged_age_s: Option<u64>,
    acknowledged_total: u64,
    complaint: Option<String>,
}

/// Watches a count of acknowledgements.
#[derive(Clone)]
pub struct LinkWatch(Arc<Watched>);

struct Watched {
    /// Acknowledgements so far: records and statuses.
    total: Box<dyn Fn() -> u64 + Send + Sync>,
    /// After how long without one the link is silent.
    patience: Duration,
    started: Instant,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    total: u64,
    last: Option<(Instant, UnixMicros)>,
}

impl LinkWatch {
    /// Watches `total`; something is acknowledged at least every `interval` while the link is up.
    pub fn new(interval: Duration, total: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(Watched {
            total: Box::new(total),
            patience: interval * 2 + Duration::from_secs(10),
            started: Instant::now(),
            seen: Mutex::default(),
        }))
    }

    /// Looks every second until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.look();
        }
    }

    fn look(&self) -> Seen {
        let total = (self.0.total)();
        let mut seen = self.lock();
        if total != seen.total {
            *seen = Seen { total, last: Some((Instant::now(), SystemClock.now())) };
        }
        *seen
    }

    pub(super) fn read(&self, complaints: &[Complaint]) -> Link {
        let seen = self.look();
        let since = seen.last.map_or(self.0.started, |(at, _)| at).elapsed();
        let state = match seen.last {
            _ if since > self.0.patience => LinkState::Silent,
            None => LinkState::Starting,
            Some(_) => LinkState::Up,
        };
        let is_news = |complaint: &&Complaint| {
            complaint.target.starts_with(TARGET)
                && seen.last.is_none_or(|(_, at)| complaint.last_at > at)
        };
        Link {
            state,
            silent_s: (state == LinkState::Silent).then_some(since.as_secs()),
            acknowledged_at: seen.last.map(|(_, at)| at),
            acknowledged_age_s: seen.last.map(|_| since.as_secs()),
            acknowledged_total: seen.total,
            complaint: complaints.iter().find(is_news).map(|complaint| complaint.text.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    pub(super) fn json(&self, bootstrap: &str) -> Value {
        let state = match self.state {
            LinkState::Up => "up",
            LinkState::Starting => "starting",
            LinkState::Silent => "silent",
        };
        json!({
            "state": state,
            "bootstrap": bootstrap,
            "acknowledged_at": self.acknowledged_at.map(UnixMicros::to_rfc3339),
            "acknowledged_age_s": self.acknowledged_age_s,
            "acknowledged_total": self.acknowledged_total,
            "silent_s": self.silent_s,
            "complaint": self.complaint,
        })
    }
}
