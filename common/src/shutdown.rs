//! One way to stop: SIGTERM or SIGINT cancels a token, every task drains and returns.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT.
///
/// A second signal ends the process at once with status 130: whoever sends it does not want to
/// wait for the drain, and everything acknowledged is already on disk.
///
/// # Errors
/// When the signal handlers can't be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut wait = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = wait().await;
        tracing::info!(signal = name, "draining; a second signal stops at once");
        cancel.cancel();
        wait().await;
        std::process::exit(130);
    });
    Ok(token)
}
