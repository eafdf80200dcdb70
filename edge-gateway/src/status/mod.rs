//! What operators and probes see, on a port of its own: `/healthz` (the process serves),
//! `/readyz` (it takes events), `/metrics`, and for technicians a page at `/` with its numbers at
//! `/status.json` (spec I14).

pub mod advice;
pub mod board;
pub mod certificate;
pub mod link;
pub mod manager;
pub mod mqtt;
mod page;
pub mod pressure;
pub mod ready;
pub mod snapshot;
pub mod spool;

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::board::Board;
use self::ready::Readiness;

/// What the admin port answers from.
#[derive(Clone)]
pub struct Status {
    /// Whether the gateway takes events.
    pub readiness: Readiness,
    /// Every metric of the process.
    pub registry: Registry,
    /// What the page tells.
    pub board: Board,
}

/// Serves until `stop`; open connections end with the process.
pub async fn serve(listener: TcpListener, status: Status, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept on the admin port");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let status = status.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = status.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection");
            }
        });
    }
}

impl Status {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                let (status, says) = match self.readiness.is_ready() {
                    true => (StatusCode::OK, "ready"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "starting or draining"),
                };
                let lines = [says.to_owned()].into_iter().chain(self.readiness.notes());
                text(status, lines.map(|line| line + "\n").collect::<String>())
            }
            "/metrics" => match TextEncoder::new().encode_to_string(&self.registry.gather()) {
                Ok(body) => text(StatusCode::OK, body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            "/" => page::page(),
            "/status.json" => page::json(&self.board.json()),
            _ => {
                text(StatusCode::NOT_FOUND, "try /, /status.json, /healthz, /readyz or /metrics\n")
            }
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let value = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}
