//! The snapshot and the certificate on the status page (spec I11, I13).

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_knows_no_key_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = format!("snapshot.file={}", dir.path().join("snapshot.json").display());
    let gateway = Gateway::start(&["http.auth=required", &file]).await;
    let status = gateway.status().await;
    let says = status["says"].as_array().unwrap();
    for (level, words) in
        [("fail", "The snapshot can't be used"), ("fail", "The fleet press-line has no good key")]
    {
        let told = says.iter().find(|say| say["found"].as_str().unwrap().starts_with(words));
        let told = told.unwrap_or_else(|| panic!("{status:#}"));
        assert!(told["level"] == level && told["todo"].as_str().is_some_and(|t| !t.is_empty()));
    }
    let snapshot = &status["more"]["snapshot"];
    assert_eq!(snapshot["origin"], "built in");
    assert!(snapshot["fault"].as_str().is_some_and(|fault| fault.contains("No such file")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificates_end_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(dir.path().join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let set = ["cert", "key"].map(|part| {
        let file = dir.path().join(format!("{part}.pem"));
        format!("http.tls.{part}_file={}", file.display())
    });
    let gateway = Gateway::start(&[&set[0], &set[1]]).await;
    let status = gateway.status().await;
    let certificate = &status["more"]["certificate"];
    assert_eq!(certificate["ends_at"], "2021-01-01T00:00:00Z");
    assert_eq!(
        (&certificate["left_s"], &certificate["fault"]),
        (&0.into(), &serde_json::Value::Null)
    );
    let says = status["says"].as_array().unwrap();
    let ended = |say: &serde_json::Value| say["found"].as_str().unwrap().contains("has ended");
    assert!(says.iter().any(|say| say["level"] == "fail" && ended(say)), "{status:#}");
    gateway.stop().await;
}
