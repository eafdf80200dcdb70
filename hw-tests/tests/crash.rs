//! Kills the gateway and the core at random moments under load, and asks the oracle.
//!
//! `PENSTOCK_TEST_SEED` replays a seed; with `PENSTOCK_TEST_LONG=1` there are more of them, longer.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::{self, checker::Tolerance, rollups, verdict::Verdict};
use hw_tests::stack::{Stack, StackConfig};
use hw_tests::terms;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;

struct Plan {
    kills_of_each: u32,
    load_for: Duration,
    seeds: u32,
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Gateway,
    Core,
}

/// One kill: so long after the last one, and so long until the process comes back.
#[derive(Debug)]
struct Kill {
    victim: Victim,
    after: Duration,
    away: Duration,
}

fn plan() -> Plan {
    if terms::is_long() {
        Plan { kills_of_each: 25, load_for: Duration::from_secs(180), seeds: 6 }
    } else {
        Plan { kills_of_each: 6, load_for: Duration::from_secs(40), seeds: 1 }
    }
}

fn kills(plan: &Plan, rng: &mut ChaCha8Rng) -> Vec<Kill> {
    let mut victims = vec![Victim::Gateway; plan.kills_of_each as usize];
    victims.extend(vec![Victim::Core; plan.kills_of_each as usize]);
    // On average, pauses and absences fill the time of the load.
    let share = plan.load_for.as_millis() as u64 / victims.len() as u64;
    let mut kills = Vec::new();
    while !victims.is_empty() {
        let victim = victims.swap_remove(rng.random_range(0..victims.len()));
        // Often right after the last restart, while recovery is still going on.
        let after = if rng.random_bool(0.25) { share / 20 } else { share };
        let millis = |max: u64, rng: &mut ChaCha8Rng| {
            Duration::from_millis(rng.random_range(1..=max.max(1)))
        };
        kills.push(Kill { victim, after: millis(after, rng), away: millis(share / 3, rng) });
    }
    kills
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_altered_when_processes_are_killed() {
    let plan = plan();
    let given = env::var("PENSTOCK_TEST_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = if given.is_some() { 1 } else { plan.seeds };
    for _ in 0..seeds {
        let seed = given.unwrap_or_else(rand::random);
        println!("PENSTOCK_TEST_SEED={seed}");
        let mut config = StackConfig::from_env("crash").unwrap().impatient();
        // Several files a second of load, so that kills hit every step of publishing.
        config.raw_flush_interval = Duration::from_millis(700);
        // The group must let the next core in before that one is killed too.
        config.core_set.push("kafka.session_timeout_ms=1500".into());
        let mut stack = Stack::start(config).await.unwrap();
        if let Err(error) = crash(seed, &plan, &mut stack).await {
            let error = stack.explain(error);
            panic!("PENSTOCK_TEST_SEED={seed}\n{error:?}");
        }
        stack.stop().await.unwrap();
    }
}

async fn crash(seed: u64, plan: &Plan, stack: &mut Stack) -> anyhow::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let fleet = FleetConfig {
        // What a kill leaves open must be retried at once, not after a patient wait.
        request_timeout: Duration::from_secs(3),
        duplicate_share: 0.03,
        ..FleetConfig::mixed(seed, 60, 600.0)
    };
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    for kill in kills(plan, &mut rng) {
        tokio::time::sleep(kill.after).await;
        println!("{kill:?}");
        let process = match kill.victim {
            Victim::Gateway => &mut stack.gateway,
            Victim::Core => &mut stack.cores[0],
        };
        process.kill()?;
        tokio::time::sleep(kill.away).await;
        process.start().await?;
    }
    // By now compaction may have put some together.
    let catalog = rollups::connect(stack.catalog_dsn()).await?;
    let sql = "SELECT count(*) FROM raw_file WHERE catalog_seq IS NOT NULL AND NOT compacted";
    let published: i64 = catalog.query_one(sql, &[]).await?.get(0);
    anyhow::ensure!(published >= 5, "the kills left time for {published} files only");
    stop.cancel();
    let told = load.await?;
    let proof = oracle::prove(&stack.places(), &told, Tolerance::default()).await?;
    println!("{proof}");
    tally.check()?;
    enough_happened(&proof.verdict, &tally)
}

/// A run in which nothing was at stake proves nothing.
fn enough_happened(verdict: &Verdict, tally: &Tally) -> anyhow::Result<()> {
    let broken = tally.broken.get() + tally.timed_out.get();
    anyhow::ensure!(verdict.accepted > 1000, "only {} events accepted", verdict.accepted);
    anyhow::ensure!(verdict.rejected > 0, "nothing was rejected");
    anyhow::ensure!(broken > 0, "no request was hit by a kill");
    Ok(())
}
