//! Accepts connections and drains them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::Told;
use super::body::BodyBudget;
use super::http::Shared;
use super::sources::{self, Sources};
use super::stall::WriteLimit;
use super::tls::Tls;
use super::{Durable, Ingest, ListenConfig, ListenMetrics};

/// Largest request head, in bytes, and most headers.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// Most bytes read from a connection at a time.
const READ_BYTES_MAX: usize = 64 << 10;

/// Why a connection was closed: it brought no request that was let in.
pub(super) const NO_REQUEST: &str = "no-request";

/// After a failed accept (no file descriptors, usually), until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, then answers the open requests within the drain time and returns.
pub async fn serve<D: Durable>(
    listener: TcpListener,
    config: ListenConfig,
    tls: Option<Tls>,
    ingest: Ingest<D>,
    stop: CancellationToken,
) {
    let places = Places::new(&config, ingest.metrics.clone());
    let drain_timeout = Duration::from_millis(config.drain_timeout_ms);
    let budget = BodyBudget::new(config.bodies_bytes_max);
    let builder = builder(&config);
    let shared = Arc::new(Shared { ingest, config, budget });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = places.accept(&listener) => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Some((stream, place)) = accepted else { continue };
        let connection = Connection::new(place.source);
        let opened = Opened {
            shared: shared.clone(),
            builder: builder.clone(),
            tls: tls.clone(),
            watcher: graceful.watcher(),
            stop: stop.clone(),
        };
        connections.spawn(async move {
            opened.serve(stream, connection).await;
            drop(place);
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

/// Where new connections find a place.
struct Places {
    all: Arc<Semaphore>,
    sources: Arc<Sources>,
    metrics: ListenMetrics,
    told: Told,
}

/// An open connection's place; counted for as long as it lives.
struct Place {
    source: IpAddr,
    open: IntGauge,
    _of_all: OwnedSemaphorePermit,
    _of_source: sources::Place,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Places {
    fn new(config: &ListenConfig, metrics: ListenMetrics) -> Self {
        let ListenConfig { connections_per_source_max, connections_per_source_per_second, .. } =
            *config;
        Self {
            all: Arc::new(Semaphore::new(config.connections_max)),
            sources: Sources::new(connections_per_source_max, connections_per_source_per_second),
            metrics,
            told: Told::default(),
        }
    }

    /// The next connection, once there is a place for it; `None` if it was not to be.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, Place)> {
        // The semaphore is never closed.
        let of_all = self.all.clone().acquire_owned().await.ok()?;
        let (stream, source) = match listener.accept().await {
            Ok((stream, source)) => (stream, source.ip()),
            Err(error) => {
                tracing::warn!(%error, "accept on the devices' port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return None;
            }
        };
        match self.sources.admit(source, Instant::now()) {
            Ok(of_source) => {
                // Answers are small and awaited.
                let _ = stream.set_nodelay(true);
                let open = self.metrics.connections.clone();
                open.inc();
                let place = Place { source, open, _of_all: of_all, _of_source: of_source };
                Some((stream, place))
            }
            Err(refused) => {
                // Neither an answer nor TLS: that would cost more than it cost them.
                let reason = refused.as_str();
                self.metrics.closed.with_label_values(&[reason]).inc();
                self.told.tell(|count| {
                    tracing::warn!(count, reason, %source, "connections closed; the last one is shown");
                });
                None
            }
        }
    }
}

/// A connection that has found a place.
struct Opened<D> {
    shared: Arc<Shared<D>>,
    builder: http1::Builder,
    tls: Option<Tls>,
    watcher: Watcher,
    stop: CancellationToken,
}

impl<D: Durable> Opened<D> {
    /// Serves it to its end.
    async fn serve(self, stream: TcpStream, connection: Connection) {
        let config = &self.shared.config;
        let stream = WriteLimit::new(stream, Duration::from_millis(config.write_timeout_ms));
        let Some(tls) = &self.tls else { return self.converse(stream, connection).await };
        let acceptor = TlsAcceptor::from(tls.current());
        let accepted = tokio::select! {
            () = self.stop.cancelled() => return,
            accepted = timeout(config.tls.handshake_timeout(), acceptor.accept(stream)) => accepted,
        };
        let error = match accepted {
            Ok(Ok(stream)) => return Box::pin(self.converse(stream, connection)).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        self.shared.ingest.metrics.failed_handshakes.inc();
        tracing::debug!(error, source = %connection.source, "handshake failed");
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        connection: Connection,
    ) {
        let Self { shared, builder, watcher, .. } = self;
        let service = service_fn(|request| {
            let (shared, connection) = (&shared, &connection);
            async move { Ok::<_, Infallible>(shared.handle(request, connection).await) }
        });
        let serving = watcher.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::pin!(serving);
        let until =
            connection.opened + Duration::from_millis(shared.config.first_request_timeout_ms);
        let ended = match timeout_at(until.into(), &mut serving).await {
            Ok(ended) => ended,
            Err(_) if connection.is_trusted.load(Ordering::Relaxed) => serving.await,
            Err(_) => {
                shared.ingest.metrics.closed.with_label_values(&[NO_REQUEST]).inc();
                return;
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }
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

/// What is known of a connection.
pub(super) struct Connection {
    pub(super) source: IpAddr,
    opened: Instant,
    is_trusted: AtomicBool,
}

impl Connection {
    fn new(source: IpAddr) -> Self {
        Self { source, opened: Instant::now(), is_trusted: AtomicBool::new(false) }
    }

    /// A request on it was let in.
    pub(super) fn trust(&self) {
        self.is_trusted.store(true, Ordering::Relaxed);
    }
}
