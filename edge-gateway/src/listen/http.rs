//! One request: route, let in, read, admit, make durable, answer. The answer is written last.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderName};
use hyper::{Method, Request, Response};

use super::access::Caller;
use super::body::{self, BodyBudget};
use super::limit::Standing;
use super::problem::{Kind, Problem};
use super::server::Connection;
use super::{Durable, Ingest, ListenConfig, answer};
use crate::admit::{self, Admitter};

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
                Ok((caller, standing)) => return self.events(request, &caller, standing).await,
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

    async fn events(
        &self,
        request: &mut Request<Incoming>,
        caller: &Caller,
        mut standing: Option<Standing>,
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
                traceparent: header(request, &TRACEPARENT).and_then(traceparent),
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
        let submitted = self.ingest.spool.submit(std::mem::take(&mut admission.entries)).await;
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

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A header's text; one that is not text counts as one that means nothing.
fn header<'a>(request: &'a Request<Incoming>, name: &HeaderName) -> Option<&'a str> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or("(not text)"))
}

fn shown(method: &str) -> &str {
    method.get(..16).unwrap_or(method)
}

/// A W3C trace context that can be passed on; an invalid one is ignored, as the standard asks.
///
/// Version 00, and what later versions must begin with: 2, 32, 16 and 2 lower-case hexadecimal
/// digits joined by `-`; version ff and ids of zeros are invalid.
pub(super) fn traceparent(value: &str) -> Option<String> {
    let mut parts = value.split('-');
    let mut part = |digits: usize| {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == digits && part.bytes().all(hex))
    };
    let (version, trace_id, parent_id, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    let valid = version != "ff" && !zero(trace_id) && !zero(parent_id);
    let complete = version != "00" || parts.next().is_none();
    (valid && complete).then(|| value[..55].to_owned())
}

#[cfg(test)]
mod tests {
    use super::traceparent;

    #[test]
    fn trace_contexts_are_kept_or_ignored_as_the_standard_says() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(valid).as_deref(), Some(valid));
        let later = valid.replacen("00", "cc", 1);
        assert_eq!(traceparent(&format!("{later}-what-comes")).as_deref(), Some(later.as_str()));
        for invalid in [
            "",
            "00",
            &format!("{valid}-more"),
            &valid.replacen("00", "ff", 1),
            &valid.to_uppercase(),
            &valid.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &valid.replace("b7ad6b7169203331", &"0".repeat(16)),
            &valid.replace("-01", ""),
            &valid.replace("-01", "-0"),
        ] {
            assert_eq!(traceparent(invalid), None, "{invalid}");
        }
    }
}
