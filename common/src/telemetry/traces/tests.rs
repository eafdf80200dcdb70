use prometheus::TextEncoder;

use super::*;

const RECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_RECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// With a collector that does not listen: what it does not take costs nobody but the collector.
fn traces(registry: &Registry, sample_ratio: f64, requests_per_second_max: u32) -> Traces {
    let endpoint = Some("http://127.0.0.1:9/v1/traces".to_owned());
    let config = TracesConfig { endpoint, sample_ratio, requests_per_second_max };
    Traces::start(&config, "test", "one", registry).expect("traces")
}

fn begin(traces: &Traces, caller: Option<&str>) -> Begun {
    traces.begin(caller.map(str::to_owned), "request", SpanKind::Server)
}

#[test]
fn without_an_endpoint_contexts_are_passed_on_and_nothing_is_recorded() {
    let traces = Traces::default();
    let Begun { span, traceparent } = begin(&traces, Some(RECORDED));
    assert!(span.is_none());
    assert_eq!(traceparent.as_deref(), Some(RECORDED));
    assert!(begin(&traces, None).traceparent.is_none());
    assert!(traces.go_on(Some(RECORDED), "send", SpanKind::Producer).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_s_trace_goes_on_through_this_process() {
    let traces = traces(&Registry::new(), 0.0, 100);
    let Begun { span, traceparent } = begin(&traces, Some(RECORDED));
    let (span, here) = (span.expect("recorded"), traceparent.expect("a context"));
    assert_eq!((&here[..36], &here[52..]), (&RECORDED[..36], "-01"));
    assert_ne!(here[36..52], RECORDED[36..52], "the parent of what follows is this span");
    let next = traces.go_on(Some(&here), "send", SpanKind::Producer).expect("recorded");
    let ids = |span: &Span| span.span.span_context().trace_id();
    assert_eq!((ids(&span.child("part")), ids(&next)), (ids(&span), ids(&span)));
    // Neither what its caller does not record, nor, at a ratio of 0, what has no trace.
    let Begun { span, traceparent } = begin(&traces, Some(NOT_RECORDED));
    assert!(span.is_none());
    assert_eq!(traceparent.as_deref(), Some(NOT_RECORDED));
    assert!(traces.go_on(Some(NOT_RECORDED), "send", SpanKind::Producer).is_none());
    assert!(traces.go_on(None, "send", SpanKind::Producer).is_none());
    assert!(begin(&traces, None).span.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_limit_is_recorded_by_nobody_from_here_on() {
    let traces = traces(&Registry::new(), 1.0, 1);
    let first = begin(&traces, None);
    assert!(first.span.is_some() && first.traceparent.is_some());
    // All in the same second, but for a machine that is very slow.
    let rest: Vec<Begun> = (0..3).map(|_| begin(&traces, Some(RECORDED))).collect();
    let dark = rest.iter().filter(|begun| begun.span.is_none());
    let contexts: Vec<&str> = dark.filter_map(|begun| begun.traceparent.as_deref()).collect();
    assert!(!contexts.is_empty());
    assert!(contexts.iter().all(|it| it.ends_with("-00") && it[..35] == RECORDED[..35]));
}

#[test]
fn so_many_in_every_second() {
    let start = Instant::now();
    let mut limit = Limit::new(2, start);
    let taken = |limit: &mut Limit, ms| limit.take(start + Duration::from_millis(ms));
    assert_eq!([0, 1, 2].map(|ms| taken(&mut limit, ms)), [true, true, false]);
    assert_eq!([999, 1000, 1001, 1002].map(|ms| taken(&mut limit, ms)), [false, true, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_the_collector_does_not_take_are_counted() {
    let registry = Registry::new();
    let traces = traces(&registry, 1.0, 100);
    drop((begin(&traces, None), begin(&traces, None)));
    let closing = traces.clone();
    tokio::task::spawn_blocking(move || closing.close(Duration::from_secs(20)))
        .await
        .expect("closed");
    let page = TextEncoder::new().encode_to_string(&registry.gather()).expect("metrics");
    for line in ["outcome=\"sent\"} 0", "outcome=\"dropped\"} 2"] {
        assert!(page.contains(&format!("penstock_trace_spans_total{{{line}")), "{page}");
    }
}

#[test]
fn an_endpoint_that_can_not_work_is_named() {
    let problems = |endpoint: &str, sample_ratio, requests_per_second_max| {
        let endpoint = Some(endpoint.to_owned());
        let mut problems = Vec::new();
        TracesConfig { endpoint, sample_ratio, requests_per_second_max }.validate(&mut problems);
        problems
    };
    assert!(problems("http://collector:4318/v1/traces", 0.5, 1).is_empty());
    for endpoint in ["collector:4318", "https://collector/v1/traces", "http://collector"] {
        let found = problems(endpoint, 0.0, 20);
        assert!(found.len() == 1 && found[0].starts_with("traces.endpoint"), "{found:?}");
    }
    assert_eq!(problems("http://collector/v1/traces", 1.5, 0).len(), 2);
    assert_eq!(problems("http://collector/v1/traces", f64::NAN, 1).len(), 1);
}
