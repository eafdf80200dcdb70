//! Bare syncs beside the load, on the same disk: what the disk itself can do at that moment.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use hdrhistogram::Histogram;

use crate::fleet::{Latency, quantiles};

/// About a commit group.
const WRITE_BYTES: usize = 32 << 10;
/// Seldom enough that it is no load of its own.
const PAUSE: Duration = Duration::from_millis(50);
/// The file begins anew at this size.
const FILE_BYTES_MAX: usize = 16 << 20;

/// A running measurement.
pub(super) struct Syncs {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Histogram<u64>>>,
}

impl Syncs {
    /// Begins to append and sync in a file of its own in `dir`.
    pub(super) fn start(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("bare-syncs");
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        Ok(Self { stop, thread: std::thread::spawn(move || measure(file, &until)) })
    }

    /// Ends it; the time of a write and its `fdatasync`.
    pub(super) fn end(self) -> anyhow::Result<Latency> {
        self.stop.store(true, Ordering::Relaxed);
        let histogram = self.thread.join().map_err(|_| anyhow!("the measuring thread panicked"))?;
        Ok(quantiles(&histogram?))
    }
}

fn measure(mut file: File, until: &AtomicBool) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, 600_000_000, 2).context("a histogram")?;
    let bytes = [0x5a; WRITE_BYTES];
    let mut written = 0;
    while !until.load(Ordering::Relaxed) {
        let start = Instant::now();
        file.write_all(&bytes).context("write")?;
        rustix::fs::fdatasync(&file).context("fdatasync")?;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        histogram.saturating_record(micros.max(1));
        written += WRITE_BYTES;
        if written >= FILE_BYTES_MAX {
            file.set_len(0).context("truncate")?;
            std::io::Seek::rewind(&mut file).context("rewind")?;
            written = 0;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(histogram)
}
