//! On the whole pipeline under load: the page in a real browser, with its database away at the end;
//! the examples of the documents; and every number of the serving API against the oracle (spec S1,
//! S2, S4).
//!
//! Screenshots: `.local/screenshots`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hw_tests::fleet::client::Client;
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::serving::{self, Whose};
use hw_tests::oracle::truth::Truth;
use hw_tests::oracle::{self, api, checker::Tolerance};
use hw_tests::stack::service::{Kind, Service, Stop};
use hw_tests::stack::{Stack, StackConfig, local_dir, repo_dir};
use tokio_util::sync::CancellationToken;

mod examples;

const GROUP: &str = "hall 2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_is_there_and_what_is_not() {
    let seed = hw_tests::terms::seed();
    let database = Service::start(Kind::Postgres).await.unwrap();
    let mut config = StackConfig::from_env("dashboard").unwrap().impatient();
    config.postgres = database.address().to_owned();
    let mut stack = Stack::start(config).await.unwrap();
    if let Err(error) = page(seed, &database, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn page(seed: u64, database: &Arc<Service>, stack: &mut Stack) -> anyhow::Result<()> {
    let (stop, tally) = (CancellationToken::new(), Arc::new(Tally::default()));
    // Each device sends every half second, so that lines move while somebody looks on.
    let fleet =
        FleetConfig { batch_max: 20, skewed_share: 0.0, ..FleetConfig::mixed(seed, 20, 400.0) };
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    let members: BTreeSet<String> = (0..5).map(|number| format!("sim-{number:05}")).collect();
    let csv: String = std::iter::once("group,fleet,device\n".to_owned())
        .chain(members.iter().map(|device| format!("{GROUP},sim,{device}\n")))
        .collect();
    let file = stack.dir.join("groups.csv");
    std::fs::write(&file, csv)?;
    let said = stack.core_command(&["groups", "import", &file.display().to_string()]).await?;
    ensure!(said.contains("1 groups with 5 members; 5 added"), "{said}");
    let token = stack.create_token("a test", "analyst").await?;

    // History needs some minutes' rows.
    rows_of(stack, "sim-00000").await?;
    browse(stack, &token, None).await.context("the specs of the page")?;

    let subject = examples::Subject { fleet: "sim", device: "sim-00000", group: GROUP };
    examples::run(stack, &token, &subject).await?;

    println!("the database goes away");
    let session = sign_in(stack, &token).await.context("sign in before the outage")?;
    database.stop(Stop::Kill).await?;
    let away = browse(stack, &token, Some(&session)).await;
    let away = away.context("the specs of the page in an outage");
    database.restart().await?;
    away?;

    stop.cancel();
    let told = load.await?;
    let places = stack.places();
    let proof = oracle::prove(&places, &told, Tolerance::default()).await?;
    println!("{proof}");
    tally.check()?;
    let truth = tokio::task::block_in_place(|| Truth::read(&places))?;
    let client = api::client(&stack.api);
    let mut points = 0;
    for metric in ["cpu_temp", "vibration_rms", "humidity", "bearing_temp"] {
        let devices = truth.events.keys().map(|device| Whose::Device(device));
        for whose in devices.chain([Whose::Group(GROUP, &members), Whose::Fleet]) {
            points += serving::check(&client, "sim", &truth, &whose, metric).await?;
        }
    }
    println!("{points} points of the API are the oracle's");
    ensure!(points > 100, "only {points} points were compared");
    Ok(())
}

/// Waits until a device has an hour's row.
async fn rows_of(stack: &Stack, device: &str) -> anyhow::Result<()> {
    let client = api::client(&stack.api);
    let path = format!(
        "/v1/series?fleet=sim&device={device}&metric=cpu_temp&resolution=1h\
         &from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z"
    );
    let limit = Duration::from_secs(120);
    let waiting = async {
        loop {
            if let Ok(answer) = client.get(&path).await
                && answer.status == 200
                && String::from_utf8_lossy(&answer.body).contains("\"count\"")
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let found = tokio::time::timeout(limit, waiting).await;
    found.with_context(|| format!("no row of {device} in {limit:?}"))
}

/// A browser's session; its secret. It is looked at once, so that the core knows it.
async fn sign_in(stack: &Stack, token: &str) -> anyhow::Result<String> {
    let client = || Client::new(stack.api.address, 1, Duration::from_secs(10));
    let body = format!(r#"{{"token":"{token}"}}"#);
    let answer = client().post("/v1/session", "application/json", None, body.into()).await?;
    ensure!(answer.status == 200, "{} {:?}", answer.status, answer.body);
    let cookie = answer.set_cookie.context("no cookie")?;
    let cookie = cookie.split(';').next().unwrap_or_default();
    let known = client().with_cookie(cookie).get("/v1/session").await?;
    ensure!(known.status == 200, "{} {:?}", known.status, known.body);
    let (_, secret) = cookie.split_once('=').context("a cookie")?;
    Ok(secret.to_owned())
}

/// Runs the specs of `cloud-core/ui/e2e` in Chromium; in an outage with a session from before it.
async fn browse(stack: &Stack, token: &str, outage: Option<&str>) -> anyhow::Result<()> {
    let screenshots: PathBuf = local_dir()?.join("screenshots");
    std::fs::create_dir_all(&screenshots)?;
    let mut command = tokio::process::Command::new("npx");
    command
        .args(["--no-install", "playwright", "test"])
        .current_dir(repo_dir()?.join("cloud-core/ui"))
        .env("PENSTOCK_UI_URL", format!("http://{}", stack.api.address))
        .env("PENSTOCK_UI_TOKEN", token)
        .env("PENSTOCK_UI_FLEET", "sim")
        .env("PENSTOCK_UI_DEVICE", "sim-00000")
        .env("PENSTOCK_UI_GROUP", GROUP)
        .env("PENSTOCK_UI_SCREENSHOTS", screenshots)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(session) = outage {
        command.env("PENSTOCK_UI_OUTAGE", "1").env("PENSTOCK_UI_COOKIE", session);
    }
    let output = command.output().await.context("run npx playwright")?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the specs failed: {}\n{text}\n{errors}", output.status);
    Ok(())
}
