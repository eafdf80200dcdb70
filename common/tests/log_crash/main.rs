//! The log against a model of what it acknowledged, over thousands of seeded crashes on the
//! simulated disk: power cuts in the middle of any operation (opening included), kills, failed
//! and short writes, failed syncs, a full disk.
//!
//! `PENSTOCK_TEST_SEED=n` replays one run; `PENSTOCK_TEST_LONG=1` makes ten times as many.

mod broken;
mod damage;
mod model;
mod told;

use std::sync::Arc;

use penstock_common::log::disk::Disk;
use penstock_common::log::sim::SimDisk;

use self::model::{Outcome, run};

const RUNS: u64 = 900;
const CRASHES_MIN: u64 = 10_000;

fn honest(disk: SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk)
}

fn given_seed() -> Option<u64> {
    let seed = std::env::var("PENSTOCK_TEST_SEED").ok()?;
    Some(seed.parse().expect("PENSTOCK_TEST_SEED is a number"))
}

/// A random range of seeds: the first, and how many.
fn seeds(runs: u64) -> (u64, u64) {
    let first = rand::random::<u64>() >> 16;
    let is_long = std::env::var_os("PENSTOCK_TEST_LONG").is_some();
    let runs = if is_long { 10 * runs } else { runs };
    println!("seeds {first}..{}", first + runs);
    (first, runs)
}

#[test]
fn nothing_acknowledged_is_lost_altered_or_renumbered() {
    if let Some(seed) = given_seed() {
        let outcome = run(seed, honest).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        println!("seed {seed}: {outcome:?}");
        return;
    }
    let (first, runs) = seeds(RUNS);
    let mut total = Outcome::default();
    for seed in first..first + runs {
        match run(seed, honest) {
            Ok(outcome) => total += outcome,
            Err(error) => panic!("{error}\nreplay with PENSTOCK_TEST_SEED={seed}"),
        }
    }
    println!("{total:?}");
    assert!(total.crashes >= CRASHES_MIN, "only {} crashes", total.crashes);
    // The test must have been where it claims to have been.
    assert!(total.acknowledged > 50 * runs && total.refused > runs, "{total:?}");
    assert!(total.segments_removed > runs && total.recovered_unacknowledged > 0, "{total:?}");
}
