//! Consumers join, leave and are killed all the time under load. In the end raw store, dead
//! letters, ledger and the rollups of all widths are exactly what a naive computation from what
//! the devices were told makes of it (spec P1, P2, P3, P4, N1, N2).
//!
//! `PENSTOCK_TEST_SEED` replays a seed; with `PENSTOCK_TEST_LONG=1` there are more than 1,000
//! kills.

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::{self, checker::Tolerance};
use hw_tests::stack::{CoreConfig, Stack, StackConfig};
use hw_tests::terms;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;

const REST: &str = "rebuild,compact,deadletter,ledger";

struct Plan {
    seeds: u32,
    kills: u32,
}

fn plan() -> Plan {
    if terms::is_long() { Plan { seeds: 4, kills: 260 } } else { Plan { seeds: 1, kills: 24 } }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_come_and_go_change_no_result() {
    let plan = plan();
    let given = env::var("PENSTOCK_TEST_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = if given.is_some() { 1 } else { plan.seeds };
    for _ in 0..seeds {
        let seed = given.unwrap_or_else(rand::random);
        println!("PENSTOCK_TEST_SEED={seed}");
        let mut config = StackConfig::from_env("rebalance").unwrap().impatient();
        config.cores = vec![
            CoreConfig::new("raw-1", "raw"),
            CoreConfig::new("raw-2", "raw"),
            CoreConfig::new("rollup-1", "rollup"),
            CoreConfig::new("rollup-2", "rollup"),
            CoreConfig::new("rest-1", REST),
            CoreConfig::new("rest-2", REST),
            CoreConfig::new("api", "api"),
        ];
        // Several files a second of load, so that kills hit every step of publishing.
        config.raw_flush_interval = Duration::from_millis(700);
        // A group must let the next one in before that one is killed too.
        config.core_set.push("kafka.session_timeout_ms=1500".into());
        let mut stack = Stack::start(config).await.unwrap();
        if let Err(error) = come_and_go(seed, &plan, &mut stack).await {
            let error = stack.explain(error);
            panic!("PENSTOCK_TEST_SEED={seed}\n{error:?}");
        }
        stack.stop().await.unwrap();
    }
}

async fn come_and_go(seed: u64, plan: &Plan, stack: &mut Stack) -> anyhow::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let fleet = FleetConfig { duplicate_share: 0.03, ..FleetConfig::mixed(seed, 60, 400.0) };
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    // The last core is the API, which stays.
    let victims = stack.cores.len() - 1;
    let mut away: BTreeMap<usize, Instant> = BTreeMap::new();
    let (mut kills, mut leaves) = (0, 0);
    while kills < plan.kills {
        let millis = |rng: &mut ChaCha8Rng, max| Duration::from_millis(rng.random_range(50..max));
        // Often right after the last one, while the group is still at it.
        let pause = if rng.random_bool(0.3) { 300 } else { 2_500 };
        tokio::time::sleep(millis(&mut rng, pause)).await;
        let due: Vec<usize> =
            away.iter().filter(|(_, until)| **until <= Instant::now()).map(|(n, _)| *n).collect();
        for back in due {
            away.remove(&back);
            stack.cores[back].start().await?;
        }
        let victim = rng.random_range(0..victims);
        if away.contains_key(&victim) {
            continue;
        }
        if rng.random_bool(0.75) {
            stack.cores[victim].kill()?;
            kills += 1;
        } else {
            stack.cores[victim].terminate().await?;
            leaves += 1;
        }
        away.insert(victim, Instant::now() + millis(&mut rng, 4_000));
    }
    for back in away.into_keys() {
        stack.cores[back].start().await?;
    }
    stop.cancel();
    let told = load.await?;
    println!("{kills} kills, {leaves} times a consumer left");
    let proof = oracle::prove(&stack.places(), &told, Tolerance::default()).await?;
    println!("{proof}");
    tally.check()?;
    anyhow::ensure!(proof.verdict.accepted > 5_000, "only {} accepted", proof.verdict.accepted);
    anyhow::ensure!(leaves > 0 || plan.kills < 20, "nobody ever left");
    stack.check_alive()
}
