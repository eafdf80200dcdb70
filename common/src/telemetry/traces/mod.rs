//! Traces of some events' way (O1), sent to an OpenTelemetry collector.
//!
//! An event carries its W3C trace context from stage to stage, through the spool and over the bus.
//! A trace is begun for a part of the requests, and for those whose caller records one, up to a
//! number a second: what a stranger can send must not decide what is spent on it. Spans are best
//! effort: what the collector does not take is dropped, and counted.

mod context;
mod export;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    Span as _, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use prometheus::Registry;
use serde::{Deserialize, Serialize};

pub use self::context::traceparent;
use self::export::Exporter;

/// Whose work a span is.
pub use opentelemetry::trace::SpanKind;

/// Spans that may wait for the collector; about 1 KiB each.
const QUEUE_SPANS_MAX: usize = 8_192;

/// How long spans wait for others.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

/// `[traces]`: what is traced, and who is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TracesConfig {
    /// Where spans are posted, by OTLP over HTTP: `http://127.0.0.1:4318/v1/traces`. None: no
    /// traces.
    pub endpoint: Option<String>,
    /// The part of the requests without a trace that begin one, 0 to 1.
    pub sample_ratio: f64,
    /// Requests a second that may be traced, those included whose callers ask for it.
    pub requests_per_second_max: u32,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self { endpoint: None, sample_ratio: 0.001, requests_per_second_max: 20 }
    }
}

impl TracesConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        if let Some(endpoint) = &self.endpoint
            && !endpoint.strip_prefix("http://").is_some_and(|rest| rest.contains('/'))
        {
            problems.push(format!(
                "traces.endpoint: {endpoint:?}; expected a whole address such as \
                 http://127.0.0.1:4318/v1/traces (for TLS, put an OpenTelemetry collector on this \
                 machine, which sends on over it)"
            ));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            let ratio = self.sample_ratio;
            problems.push(format!("traces.sample_ratio: {ratio}; expected 0 to 1"));
        }
        let most = self.requests_per_second_max;
        if !(1..=10_000).contains(&most) {
            problems.push(format!("traces.requests_per_second_max: {most}; expected 1 to 10000"));
        }
    }
}

/// Makes spans, or none where traces are off.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sample_ratio: f64,
    limit: Mutex<Limit>,
}

/// The trace of a request.
#[derive(Debug, Default)]
pub struct Begun {
    /// Its span here, if it is recorded.
    pub span: Option<Span>,
    /// The context for whatever comes after.
    pub traceparent: Option<String>,
}

impl Traces {
    /// Starts to send spans of `service` (`edge-gateway`), the one named `instance`. To be called
    /// on a runtime, which must outlive [`Self::close`].
    ///
    /// # Errors
    /// When the address can't be one, or the metrics are registered already.
    pub fn start(
        config: &TracesConfig,
        service: &'static str,
        instance: &str,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let Some(endpoint) = &config.endpoint else { return Ok(Self(None)) };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_scheduled_delay(EXPORT_INTERVAL)
            .build();
        let processor = BatchSpanProcessor::builder(Exporter::new(endpoint, registry)?)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder_empty()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .build();
        let limit = Mutex::new(Limit::new(config.requests_per_second_max, Instant::now()));
        let tracer = provider.tracer(service);
        let sample_ratio = config.sample_ratio;
        Ok(Self(Some(Arc::new(Recorder { provider, tracer, sample_ratio, limit }))))
    }

    /// A request begins: with the valid context of its caller, or none.
    pub fn begin(&self, caller: Option<String>, name: &'static str, kind: SpanKind) -> Begun {
        let Some(recorder) = &self.0 else { return Begun { span: None, traceparent: caller } };
        let is_chosen = match &caller {
            Some(caller) => context::is_sampled(caller),
            None => rand::random::<f64>() < recorder.sample_ratio,
        };
        if !is_chosen {
            return Begun { span: None, traceparent: caller };
        }
        if !recorder.limit.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            let traceparent = caller.as_deref().map(context::not_recorded);
            return Begun { span: None, traceparent };
        }
        let parent = caller.as_deref().and_then(context::parent);
        let cx = parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let span = Span::start(recorder, name, kind, &cx);
        let traceparent = Some(context::of_span(span.span.span_context()));
        Begun { span: Some(span), traceparent }
    }

    /// The next stage of an event's way, if its valid context says that it is recorded.
    pub fn go_on(
        &self,
        traceparent: Option<&str>,
        name: &'static str,
        kind: SpanKind,
    ) -> Option<Span> {
        let recorder = self.0.as_ref()?;
        let parent = context::parent(traceparent.filter(|it| context::is_sampled(it))?)?;
        let cx = Context::new().with_remote_span_context(parent);
        Some(Span::start(recorder, name, kind, &cx))
    }

    /// Sends what is left, for up to `timeout`. Blocks.
    pub fn close(&self, timeout: Duration) {
        if let Some(recorder) = &self.0
            && let Err(error) = recorder.provider.shutdown_with_timeout(timeout)
        {
            tracing::debug!(%error, "the last spans");
        }
    }
}

/// A recorded piece of work; ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    recorder: Arc<Recorder>,
    span: opentelemetry_sdk::trace::Span,
}

impl Span {
    fn start(recorder: &Arc<Recorder>, name: &'static str, kind: SpanKind, cx: &Context) -> Self {
        let builder = recorder.tracer.span_builder(name).with_kind(kind);
        let span = recorder.tracer.build_with_context(builder, cx);
        Self { recorder: recorder.clone(), span }
    }

    /// A part of this work.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        let cx = Context::new().with_remote_span_context(self.span.span_context().clone());
        Self::start(&self.recorder, name, SpanKind::Internal, &cx)
    }

    /// Notes something of it, under a name of OpenTelemetry's semantic conventions where there is
    /// one.
    pub fn note(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        self.span.set_attribute(KeyValue::new(key, value));
    }

    /// It failed.
    pub fn fail(&mut self, why: impl Into<std::borrow::Cow<'static, str>>) {
        self.span.set_status(Status::error(why));
    }
}

/// So many in every second.
#[derive(Debug)]
struct Limit {
    most: u32,
    left: u32,
    since: Instant,
}

impl Limit {
    const fn new(most: u32, now: Instant) -> Self {
        Self { most, left: most, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now - self.since >= Duration::from_secs(1) {
            (self.since, self.left) = (now, self.most);
        }
        let is_free = self.left > 0;
        self.left -= u32::from(is_free);
        is_free
    }
}

#[cfg(test)]
mod tests;
