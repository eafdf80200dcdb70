//! Who may do what: every route, with every role and with none (spec S5).

use std::collections::BTreeSet;

use axum::http::Method;
use cloud_core::access::Role;
use cloud_core::api::ApiConfig;
use cloud_core::api::guard::{Needs, Route};
use cloud_core::api::openapi::description;
use serde_json::{Value, json};

use crate::support::api::TestApi;
use crate::support::http::{self, Answer};
use crate::support::{Rig, Store, eventually};

async fn ask(api: &TestApi, route: &Route, authorization: Option<&str>) -> Answer {
    let path = route.path.replace("{id}", "x:0:0").replace("{name}", "x").replace("{*path}", "x");
    let bearer = authorization.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> =
        bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
    http::call(&api.base, route.method.as_str(), &path, &headers, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let rig = Rig::new(Store::Directory).await;
    let api = TestApi::start(&rig, None).await;
    let tokens = [
        (Role::Viewer, api.token_of(Role::Viewer, None).await),
        (Role::Analyst, api.token_of(Role::Analyst, None).await),
        (Role::Admin, api.token_of(Role::Admin, None).await),
    ];
    let expired = api.token_of(Role::Admin, Some(1_000_000)).await;
    let mut guarded = 0;
    for route in api.routes.clone() {
        let name = format!("{} {}", route.method, route.path);
        let Needs::Role(needed) = route.needs else {
            // 400 and 404 are answers of the route itself.
            let answer = ask(&api, &route, None).await;
            assert!(![401, 403].contains(&answer.status), "{name}: {}", answer.status);
            continue;
        };
        guarded += 1;
        for wrong in [None, Some("pst_nonsense"), Some(expired.as_str())] {
            let answer = ask(&api, &route, wrong).await;
            assert_eq!(answer.status, 401, "{name} with {wrong:?}: {}", answer.body);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{name}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
        }
        for (role, token) in &tokens {
            // A stream does not end by itself.
            if route.path == "/v1/live" && *role >= needed {
                continue;
            }
            let answer = ask(&api, &route, Some(token)).await;
            if *role >= needed {
                assert!(![401, 403].contains(&answer.status), "{name} as {role}: {}", answer.body);
            } else {
                assert_eq!(answer.status, 403, "{name} as {role}");
                assert!(answer.body.contains(needed.name()), "{name}: {}", answer.body);
            }
        }
    }
    assert!(guarded >= 15, "only {guarded} routes need a role");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_has_every_route_and_no_other() {
    let rig = Rig::new(Store::Directory).await;
    let api = TestApi::start(&rig, None).await;
    let description: Value = serde_json::to_value(description()).unwrap();
    let described: Vec<(String, String)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|m| (path.clone(), m.to_uppercase()))
        })
        .collect();
    let is_page = |route: &Route| !route.path.starts_with("/v1/") || route.path.ends_with(".json");
    let mut routes: Vec<(String, String)> = api
        .routes
        .iter()
        .filter(|route| !is_page(route))
        .map(|route| (route.path.to_owned(), route.method.to_string()))
        .collect();
    routes.sort();
    let operations = description["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|methods| methods.as_object().unwrap().values());
    let ids: BTreeSet<&str> = operations.filter_map(|one| one["operationId"].as_str()).collect();
    assert_eq!(ids.len(), described.len(), "an operation without an id of its own: {ids:?}");
    let mut described_sorted = described;
    described_sorted.sort();
    assert_eq!(described_sorted, routes);
    assert!(api.routes.iter().any(|route| route.method == Method::PUT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_a_session_that_ends() {
    let rig = Rig::new(Store::Directory).await;
    let api = TestApi::start(&rig, None).await;
    let call = async |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        http::call(&api.base, method, path, headers, body).await
    };
    let wrong = call("POST", "/v1/session", &[], r#"{"token":"pst_x"}"#).await;
    assert_eq!(wrong.status, 401, "{}", wrong.body);
    let body = json!({ "token": api.token }).to_string();
    let begun = call("POST", "/v1/session", &[], &body).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let cookie = begun.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains(&api.token), "the cookie is not the token");
    let cookie = cookie.split(';').next().unwrap();
    let who = call("GET", "/v1/session", &[("Cookie", cookie)], "").await;
    assert_eq!(who.status, 200);
    assert!(who.body.contains("\"admin\""), "{}", who.body);

    // A foreign page could send the cookie, but not the header.
    let foreign = call("PUT", "/v1/groups", &[("Cookie", cookie)], "").await;
    assert_eq!(foreign.status, 403, "{}", foreign.body);
    let own = [("Cookie", cookie), ("X-Penstock-Request", "1")];
    assert_eq!(call("PUT", "/v1/groups", &own, "").await.status, 415);

    assert_eq!(call("DELETE", "/v1/session", &own, "").await.status, 204);
    assert_eq!(call("GET", "/v1/session", &[("Cookie", cookie)], "").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends() {
    let rig = Rig::new(Store::Directory).await;
    let api = TestApi::start(&rig, None).await;
    let tokens = api.access().tokens().await.unwrap();
    assert_eq!(http::get_as(&api.base, &api.token, "/v1/session").await.0, 200);
    assert!(api.access().revoke_token(tokens[0].token_id, "a test").await.unwrap());
    assert!(!api.access().revoke_token(tokens[0].token_id, "a test").await.unwrap());
    eventually("its end", async || {
        http::get_as(&api.base, &api.token, "/v1/session").await.0 == 401
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let rig = Rig::new(Store::Directory).await;
    let config = ApiConfig { requests_per_second: 0.5, requests_burst: 3, ..ApiConfig::default() };
    let api = TestApi::with(&rig, None, &config).await;
    let authorization = format!("Bearer {}", api.token);
    let headers = [("Authorization", authorization.as_str())];
    for left in ["2", "1", "0"] {
        let answer = http::call(&api.base, "GET", "/v1/session", &headers, "").await;
        assert_eq!((answer.status, answer.header("ratelimit-remaining")), (200, Some(left)));
    }
    let refused = http::call(&api.base, "GET", "/v1/session", &headers, "").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("ratelimit-limit"), Some("3"));
    assert_eq!(refused.header("retry-after"), refused.header("ratelimit-reset"));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_in_the_audit_log_and_stay_there() {
    let rig = Rig::new(Store::Directory).await;
    let api = TestApi::start(&rig, None).await;
    let authorization = format!("Bearer {}", api.token);
    let import = async |method: &str, content_type: &str, body: &str| {
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", content_type)];
        let answer = http::call(&api.base, method, "/v1/groups", &headers, body).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body)
    };
    let csv = "group,fleet,device\nhall-2,f,a\nhall-2,f,b\nall,f,a\n";
    let (status, done) = import("PUT", "text/csv", csv).await;
    assert_eq!((status, &done["groups"], &done["added"]), (200, &json!(2), &json!(3)), "{done}");
    let patch = json!({"groups": [{"name": "hall-2", "devices": [{"fleet": "f", "device": "c"}]},
                                  {"name": "all", "devices": []}]});
    let (status, done) = import("PATCH", "application/json", &patch.to_string()).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!([&done["groups"], &done["members"], &done["added"], &done["removed"]], [1, 1, 1, 3]);
    let (status, problem) = import("PUT", "text/csv", "a,b\n").await;
    assert_eq!(status, 400);
    assert!(problem["hints"][0].as_str().unwrap().contains("group, fleet and device"), "{problem}");

    let (_, groups) = api.get("/v1/groups").await;
    assert_eq!(groups["groups"], json!([{"name": "hall-2", "devices": 1}]));
    let (_, group) = api.get("/v1/groups/hall-2").await;
    assert_eq!(group["devices"], json!([{"fleet": "f", "device": "c"}]));
    assert_eq!(api.get("/v1/groups/all").await.0, 404);

    let (_, first) = api.get("/v1/audit?limit=1").await;
    assert_eq!(first["entries"][0]["action"], "groups.patch");
    assert_eq!(first["entries"][0]["who"], "test-admin");
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, rest) = api.get(&format!("/v1/audit?cursor={cursor}")).await;
    let actions: Vec<&str> =
        rest["entries"].as_array().unwrap().iter().filter_map(|e| e["action"].as_str()).collect();
    assert_eq!(actions, ["groups.replace", "tokens.create"]);
    let database = rig.database.client().await;
    for sql in
        ["DELETE FROM audit_entry", "UPDATE audit_entry SET who = 'x'", "TRUNCATE audit_entry"]
    {
        let error = database.batch_execute(sql).await.unwrap_err();
        assert!(error.as_db_error().unwrap().message().contains("append-only"), "{sql}");
    }
}
