use std::collections::BTreeSet;

use super::problem::{Kind, Problem};
use super::*;

#[test]
fn every_problem_has_a_type_of_its_own_and_load_is_never_a_server_error() {
    let mut statuses = BTreeSet::new();
    let mut heads = BTreeSet::new();
    for kind in Kind::ALL {
        let response = Problem::new(kind, "x").response(3);
        assert_eq!(response.status(), kind.status());
        let status = kind.status().as_u16();
        assert!(status < 500 || kind == Kind::Stopping, "{kind:?}");
        let retry = response.headers().get("retry-after").is_some();
        assert_eq!(retry, matches!(status, 429 | 503), "{kind:?}");
        statuses.insert(status);
        heads.insert(format!("{:?}", response.into_body()));
    }
    assert_eq!(heads.len(), Kind::ALL.len());
    assert_eq!(
        statuses.into_iter().collect::<Vec<_>>(),
        [400, 401, 403, 404, 405, 408, 413, 415, 429, 503]
    );
}

#[test]
fn the_defaults_are_valid_and_wrong_limits_are_named() {
    let problems = |config: &ListenConfig| {
        let mut problems = Vec::new();
        config.validate(&mut problems);
        problems
    };
    assert_eq!(problems(&ListenConfig::default()), Vec::<String>::new());
    let wrong = ListenConfig {
        connections_max: 0,
        head_timeout_ms: 1,
        body_timeout_ms: 0,
        write_timeout_ms: 0,
        first_request_timeout_ms: 0,
        connections_per_source_max: 0,
        connections_per_source_per_second: 0,
        body_bytes_max: 2 << 20,
        bodies_bytes_max: 1,
        retry_after_s: 0,
        ..ListenConfig::default()
    };
    let problems = problems(&wrong).join("\n");
    for key in [
        "connections_max",
        "head_timeout_ms",
        "body_timeout_ms",
        "write_timeout_ms",
        "first_request_timeout_ms",
        "connections_per_source_max",
        "connections_per_source_per_second",
        "body_bytes_max",
        "bodies_bytes_max",
        "retry_after_s",
    ] {
        assert!(problems.contains(&format!("http.{key}: ")), "{key} is not in:\n{problems}");
    }
}
