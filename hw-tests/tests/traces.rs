//! An event's way through a gateway, as an OpenTelemetry collector sees it (spec O1). The collector
//! is the protocol's own message types behind an HTTP server; gateway and Kafka are real.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hw_tests::fleet::client::Client;
use hw_tests::oracle::{drain, topics};
use hw_tests::stack::{CoreConfig, Stack, StackConfig, repo_dir};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use penstock_common::codec;
use penstock_common::topic::Topic;
use prost::Message as _;
use tokio::net::TcpListener;

/// The device's own trace: its id, and the id of its span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// The spans that came, and of which service.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    async fn listen(&self) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let collector = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = collector.clone();
                let service = service_fn(move |request| {
                    let collector = collector.clone();
                    async move { Ok::<_, Infallible>(collector.take(request).await) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(address)
    }

    async fn take(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let is_right = request.uri().path() == "/v1/traces"
            && request
                .headers()
                .get("content-type")
                .is_some_and(|it| it == "application/x-protobuf");
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        let decoded = body.ok().and_then(|body| ExportTraceServiceRequest::decode(body).ok());
        let (true, Some(decoded)) = (is_right, decoded) else {
            let answer = Response::builder().status(400);
            return answer.body(Full::default()).expect("an answer");
        };
        for spans in decoded.resource_spans {
            let resource = spans.resource.unwrap_or_default();
            let service = text(&resource.attributes, "service.name");
            let all = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let mut known = self.0.lock().expect("no panic elsewhere");
            known.extend(all.map(|span| (service.clone(), span)));
        }
        Response::new(Full::default())
    }

    /// The spans of the trace, once there are so many.
    async fn spans(&self, count: usize) -> anyhow::Result<Vec<Span>> {
        let since = Instant::now();
        loop {
            let all = self.0.lock().expect("no panic elsewhere").clone();
            ensure!(all.iter().all(|(service, _)| service == "edge-gateway"), "{all:?}");
            let of_trace = all.into_iter().filter(|(_, span)| hex(&span.trace_id) == TRACE);
            let spans: Vec<Span> = of_trace.map(|(_, span)| span).collect();
            if spans.len() >= count {
                return Ok(spans);
            }
            ensure!(since.elapsed() < Duration::from_secs(60), "not within a minute: {spans:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_sees_the_way_of_an_event() {
    let collector = Collector::default();
    let address = collector.listen().await.unwrap();
    let mut config = StackConfig::from_env("traces").unwrap();
    config.cores = vec![CoreConfig::new("core", "raw,api")];
    config.tls = true;
    config.gateway_set.push(format!("traces.endpoint=\"http://{address}/v1/traces\""));
    config.gateway_set.push("traces.sample_ratio=0.0".into());
    let stack = Stack::start(config).await.unwrap();
    if let Err(error) = follow(&stack, &collector).await {
        panic!("{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn follow(stack: &Stack, collector: &Collector) -> anyhow::Result<()> {
    let post = async |traceparent: &str, sample: &str| {
        let client = Client::new(stack.gateway_http, 1, Duration::from_secs(10));
        let body = std::fs::read(repo_dir()?.join("schemas/samples").join(sample))?;
        let client = client.tracing(traceparent);
        let answer = client.post("/v1/events", "application/json", None, body.into()).await?;
        anyhow::Ok(answer.status)
    };
    ensure!(post(&format!("00-{TRACE}-{PARENT}-01"), "good/v1.json").await? == 202);
    // What its sender does not record is passed on, and recorded by nobody.
    let dark = format!("00-{}-{PARENT}-00", "5".repeat(32));
    ensure!(post(&dark, "good/v2.json").await? == 202);
    let spans = collector.spans(3).await?;
    let find = |name: &str| {
        let mut found = spans.iter().filter(|span| span.name == name);
        let first = found.next().with_context(|| format!("{name} in {spans:?}"))?;
        ensure!(found.next().is_none(), "{name} twice in {spans:?}");
        anyhow::Ok(first)
    };
    let (request, durable) = (find("POST /v1/events")?, find("make durable")?);
    let sent = find("send to the bus")?;
    ensure!(hex(&request.parent_span_id) == PARENT && request.kind == SpanKind::Server as i32);
    ensure!(durable.parent_span_id == request.span_id, "{durable:?}");
    ensure!(sent.parent_span_id == request.span_id && sent.kind == SpanKind::Producer as i32);
    ensure!(number(request, "http.response.status_code") == Some(202), "{request:?}");
    ensure!(number(request, "penstock.accepted") == Some(1), "{request:?}");
    ensure!(text(&sent.attributes, "messaging.destination.name") == "raw-events", "{sent:?}");
    for span in &spans {
        ensure!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        let code = span.status.as_ref().map_or(0, |status| status.code);
        ensure!(code == StatusCode::Unset as i32, "{span:?}");
    }
    ensure!(durable.end_time_unix_nano <= request.end_time_unix_nano, "acknowledged once durable");

    // What follows in the core goes on from the gateway's span, or from the device's.
    drain::spools(&stack.places()).await?;
    let places = stack.places();
    let contexts = tokio::task::block_in_place(|| {
        let (mut contexts, topic) = (Vec::new(), Topic::RawEvents.name(&places.topic_prefix));
        topics::read_topic(&places.kafka, &topic, |message| {
            let meta = codec::decode_event(topics::headers(message));
            contexts.push(meta.map(|meta| meta.traceparent.unwrap_or_default()));
        })?;
        anyhow::Ok(contexts.into_iter().collect::<Result<Vec<_>, _>>()?)
    })?;
    let recorded = format!("00-{TRACE}-{}-01", hex(&request.span_id));
    ensure!(contexts.len() == 2, "{contexts:?}");
    ensure!(contexts.contains(&recorded) && contexts.contains(&dark), "{contexts:?}");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn number(span: &Span, key: &str) -> Option<i64> {
    match value(&span.attributes, key)? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}
