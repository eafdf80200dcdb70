//! One request: route, let in, read, admit, make durable, answer. The answer is written last.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderName};
use hyper::{Method, Request, Response};
use penstock_common::telemetry::traces::{Begun, Span, SpanKind, traceparent};

use super::access::Caller;
use super::body::{self, BodyBudget};
use super::limit::Standing;
use super::problem::{Kind, Problem};
use super::server::Connection;
use super::{Durable, Ingest, ListenConfig, answer};
use crate::admit::{self, Admission, Admitter};

/// Where events are posted.
const EVENTS_PATH: &str = "/v1/events";

/// What all connections share.
pub(super) struct Shared<D> {
    pub(super) ingest: Ingest<D>,
    pub(super) config: ListenConfig,
    pub(super) budget: BodyBudget,
}

impl<D: Durable> Shared<D> {
    /// Answers one request and counts it.
    pub(super) async fn handle(
        &self,
        mut request: Request<Incoming>,
        connection: &Connection,
    ) -> Response<Full<Bytes>> {
        let response = match self.route(&mut request, connection).await {
            Ok(response) => response,
            Err(problem) => {
                tracing::debug!(?problem, "refused");
                if Kind::REFUSED.contains(&problem.kind) {
                    self.ingest.refuse(problem.kind, connection.source);
                }
                problem.response(self.config.retry_after_s)
            }
        };
        self.ingest.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
        response
    }

    async fn route(
        &self,
        request: &mut Request<Incoming>,
        connection: &Connection,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        let problem = match (request.uri().path(), request.method()) {
            (EVENTS_PATH, &Method::POST) => match self.let_in(request, connection) {
                Ok((caller, standing)) => return self.traced(request, &caller, standing).await,
                // It was not asked for its body, so none comes.
                Err(problem) if request.headers().contains_key(EXPECT) => return Err(problem),
                Err(problem) => problem,
            },
            (EVENTS_PATH, method) => {
                let detail = format!("{EVENTS_PATH} takes POST, not {}", shown(method.as_str()));
                Problem::new(Kind::MethodNotAllowed, detail)
            }
            _ => Problem::new(Kind::NotFound, format!("events are posted to {EVENTS_PATH}")),
        };
        body::turn_away(request).await;
        Err(problem)
    }

    /// What the headers alone decide: whose the request is, whether the gateway can take one now,
    /// and whether the fleet may send.
    fn let_in(
        &self,
        request: &Request<Incoming>,
        connection: &Connection,
    ) -> Result<(Caller, Option<Standing>), Problem> {
        let caller = self.ingest.access.identify(request.headers(), self.ingest.clock.now())?;
        connection.trust();
        if let Some(gate) = &self.ingest.gate {
            gate.ask()?;
        }
        let standing = self.ingest.buckets.begin(&caller.fleet, Instant::now());
        Ok((caller, standing.map_err(Problem::limited)?))
    }

    /// Takes a request's events, and has it in a trace what became of them.
    async fn traced(
        &self,
        request: &mut Request<Incoming>,
        caller: &Caller,
        standing: Option<Standing>,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        let context = header(request, &TRACEPARENT).and_then(traceparent);
        let mut trace = self.ingest.traces.begin(context, "POST /v1/events", SpanKind::Server);
        let result = self.events(request, caller, standing, &mut trace).await;
        if let Some(span) = &mut trace.span {
            span.note("penstock.fleet", caller.fleet.name.to_string());
            match &result {
                Ok(response) => note_status(span, response.status().as_u16()),
                Err(problem) => {
                    note_status(span, problem.kind.status().as_u16());
                    span.fail(problem.kind.name());
                }
            }
        }
        result
    }

    async fn events(
        &self,
        request: &mut Request<Incoming>,
        caller: &Caller,
        mut standing: Option<Standing>,
        trace: &mut Begun,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        let started = Instant::now();
        let mut body = body::read(request, &self.config, &self.budget).await?;
        self.ingest.metrics.body_bytes.inc_by(body.bytes.len() as u64);
        let content_encoding = header(request, &CONTENT_ENCODING);
        if content_encoding.is_some() {
            body.grow(&self.budget, admit::BODY_BYTES_MAX)?;
        }
        let schemas = caller.snapshot.schemas.clone();
        let received = self.ingest.clock.reading();
        let mut admission =
            Admitter::new(schemas, caller.fleet.name.clone()).admit(admit::Request {
                content_type: header(request, &CONTENT_TYPE),
                content_encoding,
                received_at: received.at,
                is_clock_set: received.is_set,
                traceparent: trace.traceparent.take(),
                topic: None,
                body: body.bytes.clone(),
            })?;
        let events = admission.outcomes.len();
        let after = self.ingest.buckets.take(&caller.fleet, events, Instant::now());
        standing = after.map_err(Problem::limited)?.or(standing);
        if let Some(budget) = &self.ingest.budget {
            budget.apply(&mut admission, started);
        }
        let received = self.ingest.metrics.receive(&admission);
        if let Some(span) = &mut trace.span {
            note_admission(span, &admission);
        }
        let durable = trace.span.as_ref().map(|span| span.child("make durable"));
        let submitted = self.ingest.spool.submit(std::mem::take(&mut admission.entries)).await;
        drop(durable);
        received.settle(&admission, submitted.is_ok());
        submitted?;
        if let Some(budget) = &self.ingest.budget {
            budget.count(&admission.not_kept);
        }
        self.ingest.metrics.ack_latency.observe(started.elapsed().as_secs_f64());
        let mut response = answer::answer(&admission)?;
        if let Some(standing) = standing {
            standing.show(response.headers_mut());
        }
        Ok(response)
    }
}

fn note_status(span: &mut Span, status: u16) {
    span.note("http.response.status_code", i64::from(status));
}

/// How many events there were, and how many were accepted.
pub(super) fn note_admission(span: &mut Span, admission: &Admission) {
    let count = |events: usize| i64::try_from(events).unwrap_or(i64::MAX);
    span.note("messaging.batch.message_count", count(admission.outcomes.len()));
    span.note("penstock.accepted", count(admission.accepted()));
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A header's text; one that is not text counts as one that means nothing.
fn header<'a>(request: &'a Request<Incoming>, name: &HeaderName) -> Option<&'a str> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or("(not text)"))
}

fn shown(method: &str) -> &str {
    method.get(..16).unwrap_or(method)
}
