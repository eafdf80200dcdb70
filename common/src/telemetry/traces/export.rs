//! Spans on their way to a collector: OTLP over HTTP, in protobuf
//! (<https://opentelemetry.io/docs/specs/otlp/>).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::runtime::Handle;

/// How long the collector may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Its answers say next to nothing.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends spans, counts them, and says when it can't.
#[derive(Debug)]
pub(super) struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    spans: IntCounterVec,
    is_failing: AtomicBool,
}

impl Exporter {
    /// To the collector's full address; on the runtime this is called in.
    pub(super) fn new(endpoint: &str, registry: &Registry) -> anyhow::Result<Self> {
        let client = OnRuntime {
            client: Client::builder(TokioExecutor::new()).build_http(),
            runtime: Handle::try_current()?,
        };
        let inner = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            .build()?;
        let help = "Spans that the collector took, and that were dropped because it did not";
        let opts = Opts::new("penstock_trace_spans_total", help);
        let spans = IntCounterVec::new(opts, &["outcome"])?;
        for outcome in ["sent", "dropped"] {
            spans.with_label_values(&[outcome]).inc_by(0);
        }
        registry.register(Box::new(spans.clone()))?;
        Ok(Self { inner, spans, is_failing: AtomicBool::new(false) })
    }

    fn count(&self, spans: usize, sent: &OTelSdkResult) {
        let outcome = if sent.is_ok() { "sent" } else { "dropped" };
        self.spans.with_label_values(&[outcome]).inc_by(spans as u64);
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        match sent {
            Err(error) if !was_failing => tracing::warn!(
                %error,
                "the collector of traces.endpoint takes no spans; they are dropped, events are not"
            ),
            Ok(()) if was_failing => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.inner.export(batch).await;
        self.count(spans, &sent);
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// A client whose work is done on a runtime: batches are sent from a thread that has none.
#[derive(Debug)]
struct OnRuntime {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        // Time-outs, too, are made where there is a runtime.
        self.runtime.spawn(async { tokio::time::timeout(TIMEOUT, exchange).await }).await??
    }
}
