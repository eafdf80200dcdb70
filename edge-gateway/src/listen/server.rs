//! Accepts connections and drains them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::body::BodyBudget;
use super::http::Shared;
use super::{Durable, Ingest, ListenConfig};

/// Largest request head, in bytes, and most headers.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// Most bytes read from a connection at a time.
const READ_BYTES_MAX: usize = 64 << 10;

/// After a failed accept (no file descriptors, usually), until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, then answers the open requests within the drain time and returns.
pub async fn serve<D: Durable>(
    listener: TcpListener,
    config: ListenConfig,
    ingest: Ingest<D>,
    stop: CancellationToken,
) {
    let connections_max = Arc::new(Semaphore::new(config.connections_max));
    let drain_timeout = Duration::from_millis(config.drain_timeout_ms);
    let budget = BodyBudget::new(config.bodies_bytes_max);
    let shared = Arc::new(Shared { ingest, config, budget });
    let builder = builder(&shared.config);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &connections_max) => accepted,
        };
        let Some((stream, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (shared, builder, watcher) = (shared.clone(), builder.clone(), graceful.watcher());
        connections.spawn(async move {
            let open = OpenConnection::new(&shared);
            let service = service_fn(|request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(shared.handle(request).await) }
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, "connection ended");
            }
            drop((open, place));
        });
    }
    drop(listener);
    if tokio::time::timeout(drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "requests were still open at the end of the drain"
        );
    }
    connections.shutdown().await;
}

fn builder(config: &ListenConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.head_timeout_ms))
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(READ_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .pipeline_flush(true);
    builder
}

/// The next connection, once there is a place for it; `None` if the system refused one.
async fn accept(
    listener: &TcpListener,
    connections_max: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let place = connections_max.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Answers are small and awaited.
            let _ = stream.set_nodelay(true);
            Some((stream, place))
        }
        Err(error) => {
            tracing::warn!(%error, "accept on the devices' port");
            None
        }
    }
}

/// Counts an open connection for as long as it lives.
struct OpenConnection(prometheus::IntGauge);

impl OpenConnection {
    fn new<D>(shared: &Shared<D>) -> Self {
        let gauge = shared.ingest.metrics.connections.clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
