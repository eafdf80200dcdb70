//! Who may send, on the real processes: keys are made, changed and revoked while devices send,
//! and a gateway that is left alone with a broken file still knows them (spec I4, I11).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hw_tests::fleet::client::Client;
use hw_tests::fleet::{self, FleetConfig, Tally, Target};
use hw_tests::oracle::{self, checker::Tolerance};
use hw_tests::stack::{CoreConfig, Stack, StackConfig};
use hw_tests::wait::until;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_while_devices_send() {
    let mut config = StackConfig::from_env("access").unwrap();
    config.cores = vec![CoreConfig::new("core", "raw,api")];
    config.gateway_set.push("gateway.other_fleets=[\"sim-b\"]".into());
    let mut stack = Stack::start(config.impatient()).await.unwrap();
    if let Err(error) = keys_change(&mut stack).await {
        panic!("{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn keys_change(stack: &mut Stack) -> anyhow::Result<()> {
    let seed = rand::random();
    println!("seed {seed}");
    let tally = Arc::new(Tally::default());
    let stop = CancellationToken::new();
    let fleet = FleetConfig::mixed(seed, 20, 200.0);
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));

    // A key of a fleet that this gateway serves, one of a fleet that it does not, and none.
    let (second, other) = (stack.create_key("sim-b").await?, stack.create_key("elsewhere").await?);
    let target = |key: &str| Target::with_key(stack.gateway_http.address, key);
    let status = async |target: Target| -> anyhow::Result<u16> {
        let client = Client::new(target, 1, Duration::from_secs(10));
        let body = Bytes::from(json!([]).to_string());
        Ok(client.post("/v1/events", "application/json", None, body).await?.status)
    };
    ensure!(status(target(&second)?).await? == 401, "a key is known before any snapshot has it");
    stack.write_snapshot().await?;
    // An empty batch is refused for what it is by whoever was let in.
    until(PATIENCE, "the key is known", async || Ok(status(target(&second)?).await? == 400))
        .await?;
    ensure!(status(target(&other)?).await? == 403, "a fleet of other gateways");
    ensure!(status(stack.gateway_http.address.into()).await? == 401, "without a key");

    // Revoked with the next snapshot, and not with one that is broken.
    let listed = stack.core_command(&["keys", "list", "--fleet", "sim-b"]).await?;
    let id = listed.split_whitespace().next().context("the key's number")?;
    stack.core_command(&["keys", "revoke", id]).await?;
    let file: PathBuf = stack.dir.join("snapshot.json");
    let before = std::fs::read(&file)?;
    std::fs::write(&file, &before[..before.len() / 2])?;
    until(PATIENCE, "the broken file is noticed", async || {
        Ok(log(stack)?.contains("can't be used"))
    })
    .await?;
    ensure!(status(target(&second)?).await? == 400, "the snapshot of before holds");
    // A restart beside it: the copy has the keys, and the devices go on.
    stack.gateway.kill()?;
    stack.gateway.start().await?;
    ensure!(status(target(&second)?).await? == 400, "the copy holds");
    stack.write_snapshot().await?;
    until(PATIENCE, "the key is revoked", async || Ok(status(target(&second)?).await? == 401))
        .await?;

    stop.cancel();
    let told = load.await.context("the fleet")?;
    let key = stack.gateway_http.key().context("the fleet's key")?;
    for name in ["gateway.log", "core.log", "snapshot.json", "snapshot.json.kept"] {
        let text = std::fs::read(stack.dir.join(name)).with_context(|| name.to_owned())?;
        let text = String::from_utf8_lossy(&text);
        ensure!([key, &second, &other].iter().all(|key| !text.contains(key)), "a key is in {name}");
    }
    let verdict = oracle::judge(&stack.places(), &told, Tolerance::default()).await?;
    println!("{verdict}");
    verdict.check()?;
    tally.check()
}

fn log(stack: &Stack) -> anyhow::Result<String> {
    let path = stack.dir.join("gateway.log");
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
