//! The bucket's layout is readable by others: DuckDB, with the macro that ships in
//! `deploy/cloud/duckdb`, counts what the oracle counts, in staged and in compacted files, with
//! copies of events among them (spec P3).

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::truth::Truth;
use hw_tests::oracle::{self, checker::Tolerance};
use hw_tests::stack::{Stack, StackConfig, repo_dir};
use tokio_util::sync::CancellationToken;

/// Prints `device count` for every device.
const COUNTS: &str = "\
import duckdb, sys
db = duckdb.connect()
db.execute(open(sys.argv[1]).read())
rows = db.execute(
    'SELECT device_id, count(*) FROM penstock_raw($1) GROUP BY ALL', [sys.argv[2]]
).fetchall()
for row in rows:
    print(*row)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_counts_what_the_oracle_counts() {
    let seed = hw_tests::terms::seed();
    let mut config = StackConfig::from_env("duckdb").unwrap().impatient();
    config.raw_flush_interval = Duration::from_millis(500);
    let stack = Stack::start(config).await.unwrap();
    if let Err(error) = counts(seed, &stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn counts(seed: u64, stack: &Stack) -> anyhow::Result<()> {
    let fleet = FleetConfig { duplicate_share: 0.1, ..FleetConfig::mixed(seed, 40, 600.0) };
    let (stop, tally) = (CancellationToken::new(), Arc::new(Tally::default()));
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    let store = stack.dir.join("store");
    let limit = Duration::from_secs(60);
    let compacted = async {
        while tally.accepted.get() < 5_000 || parquet_files(&store.join("raw")) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let compacted = tokio::time::timeout(limit, compacted).await;
    compacted.with_context(|| format!("nothing was compacted in {limit:?}"))?;
    stop.cancel();
    let told = load.await?;
    let places = stack.places();
    let verdict = oracle::judge(&places, &told, Tolerance::default()).await?;
    verdict.check()?;
    tally.check()?;
    let truth = tokio::task::block_in_place(|| Truth::read(&places))?;
    let wanted: BTreeMap<String, u64> =
        truth.events.iter().map(|(device, events)| (device.clone(), events.len() as u64)).collect();
    ensure!(verdict.transport_duplicates > 50, "hardly an event was sent twice");
    let found = ask_duckdb(&store)?;
    ensure!(found == wanted, "DuckDB counts {found:?}\nand the oracle {wanted:?}");
    println!(
        "{} events of {} devices; {} compacted files, {} staged",
        verdict.stored,
        found.len(),
        parquet_files(&store.join("raw")),
        parquet_files(&store.join("staging")),
    );
    Ok(())
}

fn ask_duckdb(store: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let python = env::var("PENSTOCK_ANALYST_PYTHON")
        .context("PENSTOCK_ANALYST_PYTHON is set by ./dev test")?;
    let output = std::process::Command::new(python)
        .args(["-c", COUNTS])
        .arg(repo_dir()?.join("deploy/cloud/duckdb/raw.sql"))
        .arg(store)
        .output()
        .context("run DuckDB")?;
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "DuckDB: {}\n{errors}", output.status);
    text.lines()
        .map(|line| {
            let (device, count) = line.rsplit_once(' ').context("a line of DuckDB's answer")?;
            Ok((device.to_owned(), count.parse()?))
        })
        .collect()
}

/// Files below a directory, at any depth.
fn parquet_files(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let count = |path: std::path::PathBuf| {
        let is_file = path.extension().is_some_and(|extension| extension == "parquet");
        if is_file { 1 } else { parquet_files(&path) }
    };
    entries.flatten().map(|entry| count(entry.path())).sum()
}
