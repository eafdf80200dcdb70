//! Bytes that come from outside, changed in many ways: snapshot, configuration, request bodies,
//! records and entries of the spool. Whatever they are, nothing panics, memory stays within bounds,
//! and what was understood can be written and understood again.
//!
//! | variable | |
//! |---|---|
//! | `PENSTOCK_FUZZ_CASES` | cases of each parser; 20,000 without it |
//! | `PENSTOCK_TEST_SEED` | goes the same way again |
//! | `PENSTOCK_FUZZ_KEEP` | adds the cases that ended in a new way to `corpus/` |
//!
//! Every file of `corpus/` is tried as it is, and is what the changes begin with. A case that fails
//! is written beside the build's output, to be put there.

mod body;
mod config;
mod mutate;
mod snapshot;
mod spool;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The process at its largest, all parsers at once: each holds a body and what becomes of it.
const PEAK_BYTES_MAX: u64 = 256 << 20;
/// Cases that the changes begin with, beside those of the corpus.
const POOL_MAX: usize = 400;
/// Ways to end that are told apart.
const ENDINGS_MAX: usize = 50_000;
/// A longer one is not kept.
const KEPT_BYTES_MAX: usize = 2_048;

/// One parser.
pub(crate) trait Target {
    /// Its folder in the corpus.
    const NAME: &'static str;
    /// What means something to it.
    const PIECES: &'static [&'static [u8]];

    /// What the changes begin with, beside the corpus.
    fn seeds(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// Gives it to the parser, checks what comes back, and says in a few words how it ended.
    fn run(&mut self, random: &mut StdRng, case: &[u8]) -> String;
}

/// Tries as many cases as were asked for.
pub(crate) fn fuzz<T: Target>(mut target: T) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = number("PENSTOCK_FUZZ_CASES").unwrap_or(20_000);
    let seed = number("PENSTOCK_TEST_SEED").unwrap_or_else(rand::random);
    println!("{}: PENSTOCK_TEST_SEED={seed}", T::NAME);
    let mut random = StdRng::seed_from_u64(seed);
    let mut pool = target.seeds();
    pool.extend(corpus(T::NAME));
    let (began, known) = (Instant::now(), pool.len());
    let mut endings = HashSet::new();
    let (mut slowest_ms, mut tried) = (0, 0);
    while tried < cases {
        let as_it_is = (tried as usize) < known;
        let case = match as_it_is {
            true => pool[tried as usize].clone(),
            false => {
                let mut case = pool[random.random_range(0..pool.len())].clone();
                let other = &pool[random.random_range(0..pool.len())];
                mutate::mutate(&mut random, &mut case, T::PIECES, other);
                case
            }
        };
        let started = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| target.run(&mut random, &case)));
        let Ok(ending) = ended else {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{tried}", T::NAME));
            std::fs::write(&path, &case).unwrap();
            panic!("{}: case {tried} of seed {seed} fails: {}", T::NAME, path.display());
        };
        slowest_ms = slowest_ms.max(started.elapsed().as_millis());
        tried += 1;
        let is_new = endings.len() < ENDINGS_MAX && endings.insert(ending);
        if is_new && !as_it_is && pool.len() < known + POOL_MAX {
            keep(T::NAME, seed, tried, &case);
            pool.push(case);
        }
    }
    let peak_bytes = peak_bytes();
    println!(
        "{}: {tried} cases in {:.0} s, {} ways to end, the slowest took {slowest_ms} ms, \
         memory at most {} MiB",
        T::NAME,
        began.elapsed().as_secs_f64(),
        endings.len(),
        peak_bytes >> 20
    );
    assert!(peak_bytes < PEAK_BYTES_MAX, "{peak_bytes} bytes of memory");
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

/// In the order of their names, so that a seed goes the same way.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = folder(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn keep(name: &str, seed: u64, tried: u64, case: &[u8]) {
    if std::env::var_os("PENSTOCK_FUZZ_KEEP").is_some() && case.len() <= KEPT_BYTES_MAX {
        std::fs::write(folder(name).join(format!("{seed:016x}-{tried}")), case).unwrap();
    }
}

/// The largest that this process has been.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
    kib << 10
}

/// The begin of an error's text, without numbers and what it quotes: the way in which something
/// ended.
pub(crate) fn kind(error: &str) -> String {
    let plain = error.split(['"', '`', '\'']).next().unwrap_or_default();
    plain.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}
