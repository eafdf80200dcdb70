//! One run: a seeded life of a log and a model of what must be in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use penstock_common::event::Epoch;
use penstock_common::log::disk::Disk;
use penstock_common::log::seal::{KEY_BYTES, Key, KeyId, Keys};
use penstock_common::log::sim::{Faults, SimDisk};
use penstock_common::log::{
    self, DamagedRange, Group, Log, LogConfig, Opened, Position, Reader, Writer,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::told::Told;

const LIVES: usize = 16;
const OPERATIONS_MAX: usize = 40;

/// What a run went through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) crashes: u64,
    pub(crate) kills: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) recovered_unacknowledged: u64,
    pub(crate) damaged_unacknowledged: u64,
    pub(crate) segments_removed: u64,
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.kills += other.kills;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.recovered_unacknowledged += other.recovered_unacknowledged;
        self.damaged_unacknowledged += other.damaged_unacknowledged;
        self.segments_removed += other.segments_removed;
    }
}

type Check = Result<(), String>;

struct Run {
    rng: ChaCha8Rng,
    sim: SimDisk,
    disk: Arc<dyn Disk>,
    config: LogConfig,
    has_faults: bool,
    /// How many keys there are by now; 0: nothing is sealed.
    keys: u32,
    /// Entries are their id and bytes that follow from it.
    submitted: u64,
    numbers: HashMap<(Epoch, u64), u64>,
    places: HashMap<u64, (Epoch, u64)>,
    /// Acknowledged and not retired.
    required: BTreeMap<Position, u64>,
    retired: Option<Position>,
    told: Told,
    outcome: Outcome,
}

/// One opening of the log.
struct Life {
    writer: Writer,
    log: Log,
    reader: Reader,
    /// What the reader must read, in order.
    expected: Vec<(Position, u64)>,
    read: usize,
}

/// Runs one seed on the disk that `wrap` makes of the simulated one.
pub(crate) fn run(seed: u64, wrap: impl Fn(SimDisk) -> Arc<dyn Disk>) -> Result<Outcome, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sim = SimDisk::new(rng.random());
    let config = LogConfig {
        segment_bytes: rng.random_range(500..12_000),
        retired_segment_bytes_max: rng.random_range(0..4_000),
        compress: rng.random(),
        keys: keys(0),
        untold_bytes_max: if rng.random() { u64::MAX } else { 0 },
    };
    let has_faults = rng.random_bool(0.6);
    let mut run = Run {
        disk: wrap(sim.clone()),
        rng,
        sim,
        config,
        has_faults,
        keys: 0,
        submitted: 0,
        numbers: HashMap::new(),
        places: HashMap::new(),
        required: BTreeMap::new(),
        retired: None,
        told: Told::default(),
        outcome: Outcome::default(),
    };
    for life in 0..LIVES {
        run.live().map_err(|error| format!("life {life}: {error}"))?;
    }
    Ok(run.outcome)
}

/// So many keys, of which the last one seals.
pub(crate) fn keys(count: u32) -> Keys {
    let key = |id: u32| Key::new(KeyId(id), &[id as u8; KEY_BYTES]);
    match count {
        0 => Keys::none(),
        count => Keys::new((1..=count).map(key).collect()),
    }
}

fn content(id: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(id);
    let length = match rng.random_range(0..20) {
        0 => 0,
        1 => rng.random_range(0..3_000),
        _ => rng.random_range(0..150),
    };
    let mut out = id.to_le_bytes().to_vec();
    // Compressible, but different for each id.
    out.extend((0..length).map(|i| (id as u8).wrapping_add((i / 7) as u8)));
    out
}

fn id_of(entry: &[u8]) -> Result<u64, String> {
    let id = entry.first_chunk().map(|id| u64::from_le_bytes(*id));
    id.filter(|id| content(*id) == entry).ok_or_else(|| format!("spurious entry {entry:?}"))
}

impl Run {
    fn live(&mut self) -> Check {
        // Rotated, or introduced, now and then.
        if self.rng.random_bool(0.2) {
            self.keys += 1;
            self.config.keys = keys(self.keys);
        }
        let Some(Opened { writer, log, report }) = self.open()? else { return Ok(()) };
        self.sim.cut_after(u64::MAX);
        self.sim.set_faults(Faults::default());
        let expected = self.verify(&log, &report.damaged)?;
        self.told.check(&log, &self.config, &self.required)?;
        let after = self.retired.filter(|_| self.rng.random_bool(0.7));
        if let Some(after) = after {
            log.mark_retired(after);
        }
        let reader = log.reader(after);
        let expected =
            expected.into_iter().filter(|(position, _)| Some(*position) > after).collect();
        let mut life = Life { writer, log, reader, expected, read: 0 };
        self.set_faults();
        if self.rng.random_bool(0.8) {
            self.sim.cut_after(self.rng.random_range(0..120));
        }
        for _ in 0..self.rng.random_range(0..OPERATIONS_MAX) {
            self.operate(&mut life)?;
            if !self.sim.is_powered() {
                break;
            }
        }
        if self.sim.is_powered() && self.rng.random_bool(0.4) {
            self.outcome.kills += 1;
            self.sim.kill();
        } else {
            self.outcome.crashes += 1;
            self.sim.power_cut();
        }
        Ok(())
    }

    /// Opens the log, often with the power going off meanwhile; `None` when it did.
    fn open(&mut self) -> Result<Option<Opened>, String> {
        self.sim.set_space_bytes(u64::MAX);
        if self.rng.random_bool(0.3) {
            self.sim.cut_after(self.rng.random_range(0..40));
        }
        self.set_faults();
        for _ in 0..2 {
            let mut epochs = ChaCha8Rng::seed_from_u64(self.rng.random());
            let epochs = move || Epoch(epochs.random_range(1..=i64::MAX as u64));
            let floor = self.retired.map_or(0, |retired| retired.segment);
            match log::open(self.disk.clone(), self.config.clone(), floor, epochs) {
                Ok(opened) if self.sim.is_powered() => return Ok(Some(opened)),
                Err(error) if self.sim.is_powered() => {
                    if !self.has_faults {
                        return Err(format!("the log does not open: {error}"));
                    }
                    self.sim.set_faults(Faults::default());
                }
                _ => {
                    self.outcome.crashes += 1;
                    self.sim.power_cut();
                    return Ok(None);
                }
            }
        }
        Err("the log does not open on a disk without faults".into())
    }

    fn set_faults(&mut self) {
        let mut faults = Faults::default();
        if self.has_faults {
            let mut some = || match self.rng.random_range(0..4) {
                0 => self.rng.random_range(0.0..0.3),
                _ => 0.0,
            };
            faults.write = some();
            faults.sync = some();
            faults.sync_dir = some();
            faults.create = some();
            faults.remove = some();
        }
        self.sim.set_faults(faults);
    }

    fn operate(&mut self, life: &mut Life) -> Check {
        match self.rng.random_range(0..100) {
            0..60 => self.append(life),
            60..85 => self.read(life),
            85..95 => {
                self.retire(life);
                Ok(())
            }
            95..97 => {
                self.told.check(&life.log, &self.config, &self.required)?;
                self.told.tell(&life.log);
                Ok(())
            }
            97 => {
                self.set_faults();
                Ok(())
            }
            _ => {
                let space = if self.has_faults && self.rng.random() { 20_000 } else { u64::MAX };
                self.sim.set_space_bytes(space);
                Ok(())
            }
        }
    }

    fn append(&mut self, life: &mut Life) -> Check {
        let mut group = Group::new();
        let first_id = self.submitted;
        for _ in 0..self.rng.random_range(1..8) {
            group.push(&content(self.submitted));
            self.submitted += 1;
        }
        let Ok(appended) = life.writer.append(&group) else {
            self.outcome.refused += 1;
            return Ok(());
        };
        if appended.count != group.count() {
            return Err(format!("{} of {} entries appended", appended.count, group.count()));
        }
        for (seq, id) in (appended.first.seq..).zip(first_id..self.submitted) {
            let position = Position { seq, ..appended.first };
            self.identify(position, id)?;
            self.required.insert(position, id);
            life.expected.push((position, id));
            self.told.acknowledged(position);
            self.outcome.acknowledged += 1;
        }
        Ok(())
    }

    /// A number never names two entries, an entry never has two numbers.
    fn identify(&mut self, position: Position, id: u64) -> Check {
        let number = (position.epoch, position.seq);
        let (known_id, known_number) =
            (*self.numbers.entry(number).or_insert(id), *self.places.entry(id).or_insert(number));
        if known_id != id || known_number != number {
            return Err(format!(
                "entry {id} at {number:?}, which was entry {known_id}; it was at {known_number:?}"
            ));
        }
        Ok(())
    }

    fn read(&mut self, life: &mut Life) -> Check {
        let batch = match life.reader.next(Duration::ZERO) {
            Ok(Some(batch)) => batch,
            Ok(None) if life.read == life.expected.len() => return Ok(()),
            Ok(None) => return Err(format!("{} of {} read", life.read, life.expected.len())),
            Err(_) if !self.sim.is_powered() => return Ok(()),
            Err(error) => return Err(format!("reading: {error}")),
        };
        for (position, entry) in batch.entries() {
            let read = (position, id_of(entry)?);
            let expected = life.expected.get(life.read);
            if expected != Some(&read) {
                return Err(format!("read {read:?}, expected {expected:?}"));
            }
            life.read += 1;
        }
        Ok(())
    }

    /// Retires something that was read, as a forwarder does.
    fn retire(&mut self, life: &mut Life) {
        if life.read == 0 {
            return;
        }
        let at = self.rng.random_range(life.read / 2..life.read);
        let position = life.expected[at].0;
        // The model keeps it, so from now on it may be gone or not.
        self.retired = self.retired.max(Some(position));
        self.required.retain(|place, _| Some(*place) > self.retired);
        let before = life.log.stat().segments;
        let _ = life.log.retire(position);
        self.outcome.segments_removed += (before - life.log.stat().segments) as u64;
    }

    /// Reads everything after an opening and compares it with the model.
    fn verify(
        &mut self,
        log: &Log,
        damaged: &[DamagedRange],
    ) -> Result<Vec<(Position, u64)>, String> {
        let mut reader = log.reader(None);
        let mut all: Vec<(Position, u64)> = Vec::new();
        while let Some(batch) = reader.next(Duration::ZERO).map_err(|e| format!("verify: {e}"))? {
            for (position, entry) in batch.entries() {
                let id = id_of(entry)?;
                if id >= self.submitted {
                    return Err(format!("entry {id} was never submitted"));
                }
                if all.last().is_some_and(|(last, _)| *last >= position) {
                    return Err(format!("{position:?} comes after {:?}", all.last()));
                }
                self.identify(position, id)?;
                all.push((position, id));
            }
        }
        let mut damaged = damaged.to_vec();
        damaged.extend(reader.take_damage());
        if let Some(range) = damaged.first().filter(|_| !self.has_faults) {
            return Err(format!("damage without a fault: {range}"));
        }
        self.outcome.damaged_unacknowledged +=
            damaged.iter().map(DamagedRange::entries).sum::<u64>();
        check_gaps(&all, &damaged)?;
        let mut found = all.iter().filter(|(position, _)| Some(*position) > self.retired);
        for (position, id) in &self.required {
            // Whatever comes between was submitted and not acknowledged.
            loop {
                match found.next() {
                    None => return Err(format!("entry {id} at {position:?} is lost")),
                    Some(next) if next == &(*position, *id) => break,
                    Some((next, _)) if next > position => {
                        return Err(format!("entry {id} at {position:?} is lost; next {next:?}"));
                    }
                    Some(_) => self.outcome.recovered_unacknowledged += 1,
                }
            }
        }
        // What stands there now must stay: readers have seen it.
        Ok(all)
    }
}

/// Numbers missing between two entries must be reported as damaged.
fn check_gaps(all: &[(Position, u64)], damaged: &[DamagedRange]) -> Check {
    for pair in all.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        let mut next = if before.epoch == after.epoch { before.seq + 1 } else { 0 };
        while next < after.seq {
            let covers = |range: &&DamagedRange| {
                range.epoch == after.epoch && (range.first_seq..range.next_seq).contains(&next)
            };
            match damaged.iter().find(covers) {
                Some(range) => next = range.next_seq,
                None => return Err(format!("silent gap between {before:?} and {after:?}")),
            }
        }
    }
    Ok(())
}
