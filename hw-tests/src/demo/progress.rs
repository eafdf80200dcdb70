//! The progress display: one line redrawn on a terminal, a plain line every 5 s elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fleet::Tally;
use crate::oracle::api::{self, CoreApi};

const REDRAW_EVERY: Duration = Duration::from_millis(500);
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// A display that runs until it is ended.
pub(crate) struct Progress {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Progress {
    /// Shows `tally`, and what the core at `api` has stored.
    pub(crate) fn start(tally: Arc<Tally>, api: Option<CoreApi>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(show(tally, api, stop.clone()));
        Self { stop, task }
    }

    /// Shows the last line and ends.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        // A display that failed has nothing more to show.
        let _ = self.task.await;
    }
}

async fn show(tally: Arc<Tally>, api: Option<CoreApi>, stop: CancellationToken) {
    let redraw = std::io::stdout().is_terminal();
    let client = api.as_ref().map(api::client);
    let start = Instant::now();
    let mut ticks = tokio::time::interval(if redraw { REDRAW_EVERY } else { PLAIN_EVERY });
    let mut before = (start, 0);
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let stored = match &client {
            None => None,
            Some(client) => api::status(client).await.ok().map(|status| status.rows_published),
        };
        let (now, answered) = (Instant::now(), tally.accepted.get() + tally.rejected.get());
        let rate = (answered - before.1) as f64 / (now - before.0).as_secs_f64().max(0.001);
        before = (now, answered);
        let text = line(&tally, start.elapsed(), rate, stored);
        if redraw {
            print!("\r\x1b[2K{text}");
            if last {
                println!();
            }
            // A display that can't be written to is not worth an error.
            let _ = std::io::stdout().flush();
        } else {
            println!("{text}");
        }
        if last {
            return;
        }
    }
}

fn line(tally: &Tally, since: Duration, rate: f64, stored: Option<u64>) -> String {
    use std::fmt::Write as _;
    let latency = tally.latencies();
    let mut line = format!(
        "{:>4} s  sent {}  accepted {}  rejected {}  {rate:.0}/s  ack p50 {}  p99 {}",
        since.as_secs(),
        tally.sent.get(),
        tally.accepted.get(),
        tally.rejected.get(),
        millis(latency.p50),
        millis(latency.p99),
    );
    let mut add = |name: &str, count: u64| {
        if count > 0 {
            // A String takes every write.
            let _ = write!(line, "  {name} {count}");
        }
    };
    add("429", tally.throttled.get());
    add("5xx", tally.server_errors.get());
    add("broken", tally.broken.get());
    add("timed out", tally.timed_out.get());
    add("unexpected", tally.unexpected.get());
    if let Some(stored) = stored {
        let _ = write!(line, "  stored {stored}");
    }
    line
}

/// Milliseconds with what precision is worth showing.
pub(crate) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 100.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}
