//! What the status page tells (spec I14): read from the parts of the gateway at each request, as
//! JSON of the format in `docs/contracts/admin.md`, and judged in words.
//!
//! A part that is not always there adds a section of its own by [`Board::add`], and says by
//! [`Board::advise`] what people should do about it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use penstock_common::clock::Clock;
use penstock_common::event::UnixMicros;
use penstock_common::telemetry;
use serde_json::{Map, Value, json};

use super::advice::{self, Advice, Facts};
use super::link::LinkWatch;
use super::ready::Readiness;
use crate::spool::SpoolHandle;

/// The version of the JSON.
const FORMAT: u32 = 1;

/// What the gateway is made of, as far as the page tells of it.
pub struct Parts {
    /// The gateway's name.
    pub name: String,
    /// Its fleet.
    pub fleet: String,
    /// The broker's address, as configured.
    pub bootstrap: String,
    /// The spool's directory: its disk is the one that matters.
    pub spool_dir: PathBuf,
    /// The spool.
    pub spool: SpoolHandle,
    /// The link to the bus.
    pub link: LinkWatch,
    /// The versions of the schemas in use.
    pub schemas: Box<dyn Fn() -> Vec<u32> + Send + Sync>,
    /// Whether it takes events.
    pub readiness: Readiness,
    /// The gateway's clock.
    pub clock: Arc<dyn Clock>,
}

/// Reads one section at the time of asking.
type Read = Box<dyn Fn() -> Value + Send + Sync>;
/// Says what is to be done about something, if anything is.
type Advise = Box<dyn Fn() -> Option<Advice> + Send + Sync>;

/// What the page is filled from; cheap to clone.
#[derive(Clone)]
pub struct Board(Arc<Inner>);

struct Inner {
    parts: Parts,
    started: Instant,
    started_at: UnixMicros,
    added: Mutex<Added>,
}

#[derive(Default)]
struct Added {
    sections: Vec<(&'static str, Read)>,
    advice: Vec<Advise>,
}

impl Board {
    /// A board without further sections.
    pub fn new(parts: Parts) -> Self {
        let started_at = parts.clock.now();
        let started = Instant::now();
        Self(Arc::new(Inner { parts, started, started_at, added: Mutex::default() }))
    }

    /// Adds a section: an object of numbers, texts and truths, shown as it is. Durations end in
    /// `_s`, sizes in `_bytes`, moments (RFC 3339) in `_at`.
    pub fn add(&self, section: &'static str, read: impl Fn() -> Value + Send + Sync + 'static) {
        self.lock().sections.push((section, Box::new(read)));
    }

    /// Adds something that people may have to be told about.
    pub fn advise(&self, advise: impl Fn() -> Option<Advice> + Send + Sync + 'static) {
        self.lock().advice.push(Box::new(advise));
    }

    /// Everything at present.
    pub fn json(&self) -> Value {
        let Inner { parts, started, started_at, .. } = &*self.0;
        let reading = parts.clock.reading();
        let now = reading.at;
        let is_clock_set = reading.is_set && advice::is_plausible(now);
        let spool = parts.spool.stat();
        let disk = advice::disk(&parts.spool_dir);
        let complaints = telemetry::recent().complaints();
        let link = parts.link.read(&complaints);
        let facts = Facts {
            is_ready: parts.readiness.is_ready(),
            spool: &spool,
            disk,
            link: &link,
            bootstrap: &parts.bootstrap,
            now,
            is_clock_set,
        };
        let mut says = advice::judge(&facts);
        let added = self.lock();
        says.extend(added.advice.iter().filter_map(|advise| advise()));
        says.sort_by_key(|advice| std::cmp::Reverse(advice.level));
        let mut page = json!({
            "format": FORMAT,
            "says": says,
            "gateway": {
                "name": parts.name,
                "fleet": parts.fleet,
                "version": env!("CARGO_PKG_VERSION"),
                "is_ready": facts.is_ready,
                "started_at": started_at.to_rfc3339(),
                "up_s": started.elapsed().as_secs(),
            },
            "link": link.json(&parts.bootstrap),
            "spool": {
                "pending_entries": spool.pending_entries,
                "disk_bytes": spool.disk_bytes,
                "max_bytes": spool.bytes_max,
                "oldest_received_at": spool.oldest_received_at.map(UnixMicros::to_rfc3339),
                "oldest_age_s": spool.oldest_received_at.map(|at| (now.0 - at.0).max(0) / 1_000_000),
                "damaged_entries": spool.damaged_entries,
                "locked_entries": spool.locked_entries,
                "dead_pending_entries": spool.dead_pending_entries,
                "evicted_entries_total": spool.evicted_entries_total,
                "is_failing": spool.is_failing,
            },
            "disk": {
                "dir": parts.spool_dir.display().to_string(),
                "free_bytes": disk.map(|disk| disk.free_bytes),
                "total_bytes": disk.map(|disk| disk.total_bytes),
            },
            "clock": { "now_at": now.to_rfc3339(), "is_set": is_clock_set },
            "schemas": { "versions": (parts.schemas)() },
            "complaints": complaints.iter().map(advice::complaint_json).collect::<Vec<_>>(),
        });
        let more: Map<String, Value> =
            added.sections.iter().map(|(name, read)| ((*name).to_owned(), read())).collect();
        page["more"] = more.into();
        page
    }

    fn lock(&self) -> MutexGuard<'_, Added> {
        self.0.added.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
