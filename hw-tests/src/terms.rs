//! How a test is asked to run, by its environment.

/// The seed to begin with: `PENSTOCK_TEST_SEED` replays a run, otherwise it is random. It is
/// printed, so that a failure can be replayed.
///
/// # Panics
/// When the variable is no number.
pub fn seed() -> u64 {
    let seed = std::env::var("PENSTOCK_TEST_SEED").map_or_else(
        |_| rand::random(),
        |seed| seed.parse().expect("PENSTOCK_TEST_SEED is a number"),
    );
    println!("PENSTOCK_TEST_SEED={seed}");
    seed
}

/// Whether it may take long: `PENSTOCK_TEST_LONG=1`.
pub fn is_long() -> bool {
    std::env::var("PENSTOCK_TEST_LONG").is_ok_and(|long| long == "1")
}
