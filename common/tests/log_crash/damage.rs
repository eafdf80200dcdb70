//! Random damage to closed files: what can't be read is reported, everything else comes back.

use std::sync::Arc;
use std::time::Duration;

use penstock_common::event::Epoch;
use penstock_common::log::disk::Disk;
use penstock_common::log::sim::SimDisk;
use penstock_common::log::{self, DamagedRange, Group, LogConfig, Position};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::model::keys;
use super::{given_seed, seeds};

const RUNS: u64 = 300;

/// Entries that span several chunks of the search for the next record now and then.
fn content(n: u64, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let length = match rng.random_range(0..40) {
        0 => rng.random_range(50_000..200_000),
        _ => rng.random_range(8..400),
    };
    let mut out = vec![0; length];
    rng.fill(&mut out[..]);
    out[..8].copy_from_slice(&n.to_le_bytes());
    out
}

fn write_log(disk: &SimDisk, config: &LogConfig, rng: &mut ChaCha8Rng) -> Vec<(Position, Vec<u8>)> {
    let mut written: Vec<(Position, Vec<u8>)> = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let epoch = Epoch(rng.random_range(1..=i64::MAX as u64));
        let opened = log::open(Arc::new(disk.clone()), config.clone(), 0, move || epoch).unwrap();
        let mut writer = opened.writer;
        for _ in 0..rng.random_range(1..30) {
            let (mut group, mut entries) = (Group::new(), Vec::new());
            for _ in 0..rng.random_range(1..6) {
                entries.push(content((written.len() + entries.len()) as u64, rng));
                group.push(&entries[entries.len() - 1]);
            }
            let first = writer.append(&group).unwrap().first;
            let seqs = first.seq..;
            written.extend(seqs.zip(entries).map(|(seq, e)| (Position { seq, ..first }, e)));
        }
    }
    written
}

/// Returns the damaged segment's ordinal and words for a failed check.
fn damage(disk: &SimDisk, rng: &mut ChaCha8Rng) -> (u64, String) {
    let names = disk.list().unwrap();
    if names.is_empty() {
        return (0, "nothing left".into());
    }
    let name = &names[rng.random_range(0..names.len())];
    let length = disk.open(name).unwrap().length().unwrap();
    let at = rng.random_range(0..length.max(1));
    match rng.random_range(0..10) {
        0 => disk.remove(name).unwrap(),
        1 => {
            let mut head = vec![0; at as usize];
            disk.open(name).unwrap().read_at(0, &mut head).unwrap();
            disk.remove(name).unwrap();
            disk.create(name).unwrap().write_at(0, &head).unwrap();
        }
        2..5 => disk.damage(name, at, &vec![rng.random(); rng.random_range(1..100_000)]),
        _ => drop(disk.flip_bit(name, at, rng.random())),
    }
    (u64::from_str_radix(&name[..16], 16).unwrap(), format!("{name} at {at} of {length}"))
}

fn run(seed: u64) -> Result<(u64, u64), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let disk = SimDisk::new(rng.random());
    let config = LogConfig {
        segment_bytes: rng.random_range(1_000..300_000),
        retired_segment_bytes_max: u64::MAX,
        compress: rng.random(),
        keys: keys(rng.random_range(0..3)),
        untold_bytes_max: 0,
    };
    let written = write_log(&disk, &config, &mut rng);
    let (ordinals, what): (Vec<u64>, Vec<String>) =
        (0..rng.random_range(1..4)).map(|_| damage(&disk, &mut rng)).unzip();
    let epoch = Epoch(rng.random_range(1..=i64::MAX as u64));
    // A missing oldest segment looks like a retired one.
    let names = disk.list().unwrap();
    let oldest_left =
        names.iter().filter_map(|name| u64::from_str_radix(&name[..16], 16).ok()).min();
    let opened = log::open(Arc::new(disk), config, 0, move || epoch)
        .map_err(|error| format!("{what:?}: does not open: {error}"))?;
    let mut reader = opened.log.reader(None);
    let mut read = Vec::new();
    while let Some(batch) = reader.next(Duration::ZERO).map_err(|error| error.to_string())? {
        read.extend(batch.entries().map(|(position, entry)| (position, entry.to_vec())));
    }
    let damaged = opened.log.stat().damaged;
    let last_read = read.last().map(|(position, _)| *position);
    // How the newest segment ended is known to nobody but itself.
    let newest = last_read.map_or(0, |position| position.segment);
    let mut read = read.into_iter().peekable();
    let mut lost = 0;
    for (position, entry) in &written {
        if read.next_if(|next| next == &(*position, entry.clone())).is_some() {
            continue;
        }
        let covers = |range: &DamagedRange| {
            range.epoch == position.epoch
                && (range.first_seq..range.next_seq).contains(&position.seq)
        };
        let is_tail = position.segment >= newest && Some(*position) > last_read;
        let is_retired = Some(position.segment) < oldest_left;
        // Where a segment ended is written in the next one's header; both are damaged.
        let is_unknown =
            ordinals.contains(&position.segment) && ordinals.contains(&(position.segment + 1));
        if !is_unknown && !is_tail && !damaged.iter().any(covers) && !is_retired {
            return Err(format!("{what:?}: {position:?} is lost silently; damaged: {damaged:?}"));
        }
        lost += 1;
    }
    match read.next() {
        None => Ok((written.len() as u64, lost)),
        Some((position, _)) => Err(format!("{what:?}: {position:?} is altered or spurious")),
    }
}

#[test]
fn damage_costs_what_it_covers_and_is_reported() {
    if let Some(seed) = given_seed() {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let (first, runs) = seeds(RUNS);
    let (mut written, mut lost) = (0, 0);
    for seed in first..first + runs {
        let one = run(seed)
            .unwrap_or_else(|error| panic!("{error}\nreplay with PENSTOCK_TEST_SEED={seed}"));
        written += one.0;
        lost += one.1;
    }
    println!("{lost} of {written} entries lost to damage");
    assert!(lost > runs && lost < written / 3);
}
