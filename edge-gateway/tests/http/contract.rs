//! The written contract, `docs/contracts/ingest.openapi.yaml`, held against the running listener
//! (spec I1–I3): Schemathesis sends what is described, well and badly. No answer may be a server
//! error, have a status, header or type that is not described, or differ from its schema; what is
//! against the description must be rejected.

use std::env;
use std::path::Path;
use std::process::Stdio;

use edge_gateway::listen::ListenConfig;

use crate::server::{RealSpool, Server};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      negative_data_rejection,missing_required_header,unsupported_method,\
                      allow_header_conformance";

/// How what is against the description may be answered.
const SETTINGS: &str = "[checks.negative_data_rejection]\nexpected-statuses = [400, 413, 415]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_answers_as_it_is_described() {
    let program = env::var("PENSTOCK_SCHEMATHESIS").expect("PENSTOCK_SCHEMATHESIS: see ./dev test");
    let seed = env::var("PENSTOCK_TEST_SEED")
        .map_or_else(|_| std::process::id(), |seed| seed.parse().unwrap());
    println!("PENSTOCK_TEST_SEED={seed}");
    let examples = if env::var_os("PENSTOCK_TEST_LONG").is_some() { "1000" } else { "60" };
    let mut spool = RealSpool::open();
    let server = Server::start(ListenConfig::default(), spool.handle.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("schemathesis.toml"), SETTINGS).unwrap();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/contracts/ingest.openapi.yaml")
        .canonicalize()
        .unwrap();
    let output = tokio::process::Command::new(program)
        .current_dir(&dir)
        .args(["--no-color", "--config-file", "schemathesis.toml", "run"])
        .arg(contract)
        .args(["--url", &format!("http://{}", server.address), "--seed", &seed.to_string()])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", examples])
        .args(["--checks", CHECKS, "--continue-on-failure"])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "PENSTOCK_TEST_SEED={seed}\n{told}{errors}");
    // It was no run of refusals only: what was accepted and what was rejected is in the spool.
    let accepted = server.metric("penstock_gateway_events_accepted_total");
    let rejected = server.metric("penstock_gateway_events_rejected_total");
    assert!(accepted > 0.0 && rejected > 0.0, "{accepted} accepted, {rejected} rejected\n{told}");
    assert_eq!(spool.entries().len() as f64, accepted + rejected);
    server.stop().await;
}
