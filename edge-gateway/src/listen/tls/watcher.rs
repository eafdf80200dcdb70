//! Watches the files of the certificate and replaces the configuration.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_common::clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Loaded, Tls, TlsConfig, TlsError, TlsMetrics, load};

/// People are told so long before the end, and every day then.
const TOLD_BEFORE_MICROS: i64 = 14 * DAY_MICROS;
const DAY_MICROS: i64 = 86_400 * 1_000_000;

/// Looks at the files.
pub struct Watcher {
    config: TlsConfig,
    clock: Arc<dyn Clock>,
    metrics: TlsMetrics,
    current: watch::Sender<Arc<Loaded>>,
    fault: Arc<Mutex<Option<String>>>,
    seen: Stamps,
    /// The files could not be used at the last look: perhaps one of two is replaced yet.
    in_doubt: bool,
    /// When people were last told of the end.
    told_at: Option<i64>,
}

/// What changes when files are written or replaced: device, inode, size, modified.
type Stamps = Vec<Option<(u64, u64, u64, i64, i64)>>;

/// The certificate as it is, and who looks for newer ones.
///
/// # Errors
/// When it can't be used: there is no other yet.
pub fn open(
    config: TlsConfig,
    clock: Arc<dyn Clock>,
    metrics: TlsMetrics,
) -> Result<(Tls, Watcher), TlsError> {
    let seen = stamps(&config);
    let loaded = load(&config)?;
    let (current, receiver) = watch::channel(Arc::new(loaded));
    let fault = Arc::default();
    let tls = Tls { current: receiver, fault: Arc::clone(&fault) };
    let mut watcher =
        Watcher { config, clock, metrics, current, fault, seen, in_doubt: false, told_at: None };
    watcher.tell_of_the_end();
    Ok((tls, watcher))
}

impl Watcher {
    /// Looks until `stop`. Nothing that it finds ends it.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut interval =
            tokio::time::interval(Duration::from_millis(self.config.poll_interval_ms));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(watcher) => self = watcher,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
    }

    fn look(&mut self) {
        // Before they are read: a change meanwhile is seen at the next look.
        let stamps = stamps(&self.config);
        let changed = stamps != self.seen;
        self.seen = stamps;
        if changed || self.in_doubt {
            match load(&self.config).and_then(|loaded| self.refuse_ended(loaded)) {
                // Read before its files had all been seen to change, or put back as they were.
                Ok(loaded) if loaded.digest == self.current.borrow().digest => self.settle(),
                Ok(loaded) => self.replace(loaded),
                Err(_) if changed => self.in_doubt = true,
                Err(error) => self.refuse(&error),
            }
        }
        self.tell_of_the_end();
    }

    /// A certificate that has ended does not take the place of one that has not.
    fn refuse_ended(&self, loaded: Loaded) -> Result<Loaded, TlsError> {
        let now = self.clock.now();
        let has_ended = |loaded: &Loaded| loaded.validity.is_some_and(|v| v.not_after < now);
        if has_ended(&loaded) && !has_ended(&self.current.borrow()) {
            let path = self.config.cert_file.as_deref().map(Path::display);
            return Err(TlsError {
                key: "http.tls.cert_file",
                path: path.map(|path| path.to_string()).unwrap_or_default(),
                problem: "has ended already, and the one in use has not: put a newer one there"
                    .into(),
            });
        }
        Ok(loaded)
    }

    fn replace(&mut self, loaded: Loaded) {
        let ends = loaded.validity.map(|validity| validity.not_after.to_rfc3339());
        tracing::info!(?ends, "certificate taken; new connections get it");
        self.current.send_replace(Arc::new(loaded));
        self.metrics.taken.inc();
        self.told_at = None;
        self.settle();
    }

    /// The files are good.
    fn settle(&mut self) {
        self.in_doubt = false;
        self.set_fault(None);
    }

    fn refuse(&mut self, error: &TlsError) {
        self.in_doubt = false;
        self.metrics.refused.inc();
        tracing::error!(%error, "the certificate can't be replaced; the present one stays");
        self.set_fault(Some(error.to_string()));
    }

    fn set_fault(&self, fault: Option<String>) {
        self.metrics.faulty.set(i64::from(fault.is_some()));
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn tell_of_the_end(&mut self) {
        let validity = self.current.borrow().validity;
        self.metrics.expiry.set(validity.map_or(0, |v| v.not_after.0 / 1_000_000));
        let Some(validity) = validity else { return };
        let now = self.clock.now().0;
        let is_due = self.told_at.is_none_or(|at| now - at >= DAY_MICROS);
        let (begins, ends) = (validity.not_before, validity.not_after);
        if !is_due || (begins.0 <= now && now < ends.0 - TOLD_BEFORE_MICROS) {
            return;
        }
        self.told_at = Some(now);
        let (begins, ends) = (begins.to_rfc3339(), ends.to_rfc3339());
        if now < validity.not_before.0 {
            tracing::warn!(
                begins,
                "the certificate is not good yet: see whether the clock is right"
            );
        } else if now < validity.not_after.0 {
            tracing::warn!(ends, "the certificate ends soon: put a newer one in its place");
        } else {
            tracing::error!(ends, "the certificate has ended: devices that look will not connect");
        }
    }
}

fn stamps(config: &TlsConfig) -> Stamps {
    let files = [&config.cert_file, &config.key_file, &config.client_ca_file];
    let stamp = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    files.into_iter().flatten().map(|path| stamp(path)).collect()
}
