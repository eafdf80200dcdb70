//! One run: seeded lives of a spool's lanes, and a model of what they owe.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use penstock_common::clock::SystemClock;
use penstock_common::event::Epoch;
use penstock_common::log::disk::Disk;
use penstock_common::log::record::frame;
use penstock_common::log::seal::{KEY_BYTES, Key, KeyId, Keys};
use penstock_common::log::sim::{Faults, SimDisk};
use penstock_common::log::{self, DamagedRange, Group, Writer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::spool::lanes::{Lanes, OpenLanes, Parts, Retired};
use crate::spool::{Lane, SpoolConfig, SpoolReader};

use super::bus::{Bus, Number};
use super::entries::{entry, identify};

const LANES: [Lane; 2] = [Lane::Main, Lane::Dead];
const LIVES: usize = 16;
const OPERATIONS_MAX: usize = 60;

/// What a run went through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) crashes: u64,
    pub(super) kills: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) arrived: u64,
    pub(super) moved: u64,
    /// Moves that an error or the end of the power cut short.
    pub(super) moves_cut: u64,
    pub(super) dead_letters: u64,
    pub(super) locked: u64,
    pub(super) damaged: u64,
    /// Runs of which order is not promised any more: the disk refused to finish a move.
    pub(super) unordered: u64,
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.kills += other.kills;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.arrived += other.arrived;
        self.moved += other.moved;
        self.moves_cut += other.moves_cut;
        self.dead_letters += other.dead_letters;
        self.locked += other.locked;
        self.damaged += other.damaged;
        self.unordered += other.unordered;
    }
}

type Check = Result<(), String>;

/// What a run is put through, beside crashes.
#[derive(Clone, Copy)]
struct Plan {
    has_faults: bool,
    /// A key is missing in some lives.
    loses_keys: bool,
    /// A bit flips between some lives.
    flips_bits: bool,
}

struct Run {
    rng: ChaCha8Rng,
    sim: SimDisk,
    disk: Arc<dyn Disk>,
    config: SpoolConfig,
    plan: Plan,
    keys: u32,
    submitted: u64,
    /// Entries that a device was told are kept.
    acknowledged: HashSet<u64>,
    ids: HashMap<Number, u64>,
    numbers: HashMap<u64, Number>,
    /// Acknowledged to a device and not known to the bus; where it was written.
    owed: BTreeMap<u64, log::Position>,
    /// Acknowledged, and named as damaged: it may arrive all the same.
    lost: BTreeMap<u64, log::Position>,
    bus: Bus,
    /// Positions as the index could hold them after a crash.
    written: [Vec<Option<log::Position>>; 2],
    outcome: Outcome,
}

struct Life {
    writer: Writer,
    lanes: Arc<Lanes>,
    readers: [SpoolReader; 2],
}

impl Life {
    fn new(lanes: Lanes, writer: Writer) -> Self {
        let lanes = Arc::new(lanes);
        let readers = LANES.map(|lane| SpoolReader::new(lanes.clone(), lane));
        Self { writer, lanes, readers }
    }
}

pub(super) fn run(seed: u64, wrap: impl Fn(SimDisk) -> Arc<dyn Disk>) -> Result<Outcome, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sim = SimDisk::new(rng.random());
    let segment_bytes = rng.random_range(500..4_000);
    let bytes_max = segment_bytes * rng.random_range(6..30);
    let config = SpoolConfig {
        bytes_max,
        segment_bytes,
        dead_bytes_max: Some(segment_bytes * rng.random_range(1..4)),
        compress: rng.random(),
        ..SpoolConfig::default()
    };
    let loses_keys = rng.random_bool(0.2);
    let plan = Plan {
        has_faults: rng.random_bool(0.6),
        loses_keys,
        // Not both: where a locked segment ended is known from its own last record only, once the
        // one after it has moved, so that a bit that flips just there is not found out.
        flips_bits: !loses_keys && rng.random_bool(0.25),
    };
    let mut run = Run {
        disk: wrap(sim.clone()),
        rng,
        sim,
        config,
        plan,
        keys: 0,
        submitted: 0,
        acknowledged: HashSet::new(),
        ids: HashMap::new(),
        numbers: HashMap::new(),
        owed: BTreeMap::new(),
        lost: BTreeMap::new(),
        bus: Bus::new(!plan.loses_keys && !plan.flips_bits),
        written: [vec![None], vec![None]],
        outcome: Outcome::default(),
    };
    for life in 0..LIVES {
        run.live().map_err(|error| format!("life {life}: {error}"))?;
    }
    run.drain().map_err(|error| format!("the last drain: {error}"))?;
    run.outcome.arrived = run.bus.arrived.len() as u64;
    run.outcome.dead_letters = run.bus.dead_letters;
    Ok(run.outcome)
}

fn key(id: u32) -> Key {
    Key::new(KeyId(id), &[id as u8; KEY_BYTES])
}

impl Run {
    fn live(&mut self) -> Check {
        if self.rng.random_bool(0.2) {
            self.keys += 1;
        }
        let is_missing = self.plan.loses_keys && self.keys > 1 && self.rng.random_bool(0.3);
        let keys = if is_missing { self.keys..=self.keys } else { 1..=self.keys };
        let Some(mut life) = self.open(keys.map(key).collect())? else { return Ok(()) };
        self.sim.cut_after(u64::MAX);
        self.sim.set_faults(Faults::default());
        self.verify(&life)?;
        self.set_faults();
        if self.rng.random_bool(0.8) {
            self.sim.cut_after(self.rng.random_range(0..250));
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
        self.bus.restart(&mut self.rng)?;
        self.settle();
        if self.plan.flips_bits && self.rng.random_bool(0.1) {
            // One place, or nothing could be promised of it.
            self.plan.flips_bits = false;
            self.flip()?;
        }
        Ok(())
    }

    /// Opens the lanes, often with the power going off meanwhile; `None` when it did.
    fn open(&mut self, keys: Vec<Key>) -> Result<Option<Life>, String> {
        self.sim.set_space_bytes(u64::MAX);
        if self.rng.random_bool(0.3) {
            self.sim.cut_after(self.rng.random_range(0..40));
        }
        self.set_faults();
        for _ in 0..2 {
            match self.open_lanes(keys.clone()) {
                Ok(opened) if self.sim.is_powered() => {
                    let OpenLanes { lanes, writer, report, dead_report, is_in_order } = opened;
                    if !is_in_order {
                        self.outcome.unordered += u64::from(self.bus.is_ordered);
                        self.bus.is_ordered = false;
                    }
                    let locked = report.locked.len() + dead_report.locked.len();
                    self.outcome.locked += locked as u64;
                    return Ok(Some(Life::new(lanes, writer)));
                }
                Err(error) if self.sim.is_powered() => {
                    if !self.plan.has_faults {
                        return Err(format!("the spool does not open: {error}"));
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
        Err("the spool does not open on a disk without faults".into())
    }

    fn open_lanes(&mut self, keys: Vec<Key>) -> Result<OpenLanes, log::LogError> {
        let mut epochs = ChaCha8Rng::seed_from_u64(self.rng.random());
        // Each lane's as fresh as it may be, older, or lost; what is lost does not come back.
        let mut some = |lane: Lane| {
            let history = &mut self.written[lane as usize];
            let at = match self.rng.random_range(0..10) {
                0 => 0,
                1..3 => self.rng.random_range(0..history.len()),
                _ => history.len() - 1,
            };
            history.truncate(at + 1);
            history[at]
        };
        let written = Retired { main: some(Lane::Main), dead: some(Lane::Dead) };
        Lanes::open(Parts {
            disk: self.disk.clone(),
            config: &self.config,
            keys: if keys.is_empty() { Keys::none() } else { Keys::new(keys) },
            written,
            epochs: Box::new(move || Epoch(epochs.random_range(1..=i64::MAX as u64))),
            clock: Arc::new(SystemClock),
            lock: None,
        })
    }

    fn set_faults(&mut self) {
        let mut faults = Faults::default();
        if self.plan.has_faults {
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
            0..45 => self.append(life)?,
            45..65 => self.forward(life)?,
            65..75 => self.acknowledge(life)?,
            75..80 => self.evict(life),
            80..86 => {
                let _ = life.lanes.reclaim();
            }
            86..90 => self.note_written(life),
            90..94 => self.tell(life)?,
            94..96 => {
                self.bus.lose_producer(&mut self.rng)?;
                life.readers.iter_mut().for_each(SpoolReader::rewind);
            }
            96..98 => self.set_faults(),
            _ => {
                let is_full = self.plan.has_faults && self.rng.random();
                let space = if is_full { self.sim.used_bytes() + 1_000 } else { u64::MAX };
                self.sim.set_space_bytes(space);
            }
        }
        // As the keeper does.
        let usage = life.lanes.usage();
        if usage.used_bytes > usage.hard_bytes {
            self.evict(life);
            let _ = life.lanes.reclaim();
        }
        Ok(())
    }

    fn append(&mut self, life: &mut Life) -> Check {
        let usage = life.lanes.usage();
        if usage.used_bytes > usage.refuse_bytes {
            self.outcome.refused += 1;
            return Ok(());
        }
        let (mut group, mut framed) = (Group::new(), Vec::new());
        let first_id = self.submitted;
        let count = self.rng.random_range(1..8);
        for id in first_id..first_id + u64::from(count) {
            frame(&mut framed, |out| entry(id).encode(out).unwrap());
        }
        group.push_framed(&framed, count);
        self.submitted += u64::from(count);
        let Ok(appended) = life.writer.append(&group) else {
            self.outcome.refused += 1;
            return Ok(());
        };
        for (seq, id) in (appended.first.seq..).zip(first_id..self.submitted) {
            let position = log::Position { seq, ..appended.first };
            self.identify((position.epoch, seq), id)?;
            self.owed.insert(id, position);
            self.acknowledged.insert(id);
            self.outcome.acknowledged += 1;
        }
        Ok(())
    }

    /// A number never names two entries, an entry never has two numbers.
    fn identify(&mut self, number: Number, id: u64) -> Check {
        let known_id = *self.ids.entry(number).or_insert(id);
        let known_number = *self.numbers.entry(id).or_insert(number);
        if (known_id, known_number) != (id, number) {
            return Err(format!(
                "entry {id} at {number:?}, which was entry {known_id}; it was at {known_number:?}"
            ));
        }
        if id >= self.submitted {
            return Err(format!("entry {id} was never submitted"));
        }
        Ok(())
    }

    fn forward(&mut self, life: &mut Life) -> Check {
        for (lane, reader) in LANES.into_iter().zip(&mut life.readers) {
            for _ in 0..self.rng.random_range(0..20) {
                match reader.next(Duration::ZERO) {
                    Ok(Some(spooled)) => {
                        let (number, id) = self.bus.take(lane, &spooled, &self.acknowledged)?;
                        self.identify(number, id)?;
                    }
                    Ok(None) => break,
                    Err(_) if !self.sim.is_powered() => break,
                    Err(error) => return Err(format!("reading: {error}")),
                }
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, life: &mut Life) -> Check {
        for lane in LANES {
            if let Some(position) = self.bus.acknowledge(lane, &mut self.rng)? {
                life.lanes.of(lane).mark_retired(position);
            }
        }
        self.settle();
        Ok(())
    }

    /// What arrived is owed no more.
    fn settle(&mut self) {
        let (numbers, bus) = (&self.numbers, &self.bus);
        self.owed.retain(|id, _| !bus.arrived.contains(&numbers[id]));
        self.lost.retain(|id, _| !bus.arrived.contains(&numbers[id]));
    }

    fn evict(&mut self, life: &Life) {
        if !life.lanes.may_evict() {
            return;
        }
        let result = life.lanes.evict_oldest();
        match result {
            Ok(Some(_)) => self.outcome.moved += 1,
            Ok(None) => {}
            Err(_) => self.outcome.moves_cut += 1,
        }
    }

    /// The index is written, as the keeper does.
    fn note_written(&mut self, life: &Life) {
        let Retired { main, dead } = life.lanes.retired();
        for (lane, position) in LANES.into_iter().zip([main, dead]) {
            if !life.lanes.of(lane).holds_position() {
                self.written[lane as usize].push(position);
            }
        }
    }

    /// What a status would tell must be true: what is owed is not told to be retired.
    fn tell(&mut self, life: &Life) -> Check {
        let stat = life.lanes.stat();
        if stat.epochs.last().map(|last| last.epoch) != Some(stat.main.epoch) {
            return Err(format!("{:?} does not end with {}", stat.epochs, stat.main.epoch));
        }
        for (id, position) in &self.owed {
            let listed = stat.epochs.iter().find(|listed| listed.epoch == position.epoch);
            let is_true = listed.is_some_and(|listed| {
                (listed.retired_seq..listed.next_seq).contains(&position.seq)
            });
            if !is_true && !is_damaged(&stat.damaged, *position) {
                return Err(format!("entry {id} at {position:?} is told to be {listed:?}"));
            }
        }
        life.lanes.note_told(&stat.epochs, &stat.damaged);
        Ok(())
    }

    /// Everything owed can be read, or is named as damaged.
    fn verify(&mut self, life: &Life) -> Check {
        let mut read = HashMap::new();
        for lane in LANES {
            let mut reader = SpoolReader::new(life.lanes.clone(), lane);
            let mut last = None;
            while let Some(one) = reader.next(Duration::ZERO).map_err(|e| format!("verify: {e}"))? {
                let (id, _) = identify(&one.entry)?;
                self.identify((one.epoch, one.seq), id)?;
                if last.replace(one.position) >= Some(one.position) {
                    return Err(format!("{:?} comes after {last:?} out of {lane:?}", one.position));
                }
                read.insert(id, one.position);
            }
        }
        let damaged = life.lanes.stat().damaged;
        // A record torn at the end of the newest segment looks like one that was never synced.
        let newest = read.keys().filter_map(|id| self.owed.get(id)).map(|at| at.segment).max();
        let mut found = Vec::new();
        for (id, position) in &self.owed {
            if read.contains_key(id) {
                continue;
            }
            let is_tail = self.outcome.damaged > 0 && Some(position.segment) >= newest;
            if !is_damaged(&damaged, *position) && !is_tail {
                return Err(format!("entry {id} at {position:?} is lost; damaged: {damaged:?}"));
            }
            found.push(*id);
        }
        for id in found {
            self.lost.extend(self.owed.remove_entry(&id));
        }
        // What was missing with its key is back. What a flipped bit took was named, and that is all
        // that is owed.
        let is_back = self.outcome.damaged == 0;
        let back: Vec<u64> = self
            .lost
            .keys()
            .filter(|_| is_back)
            .filter(|id| read.contains_key(id))
            .copied()
            .collect();
        for id in back {
            self.owed.extend(self.lost.remove_entry(&id));
        }
        if !self.lost.is_empty() && !self.plan.loses_keys && self.outcome.damaged == 0 {
            return Err(format!("damaged without a cause: {damaged:?}"));
        }
        Ok(())
    }

    fn flip(&mut self) -> Check {
        let names = self.sim.list().map_err(|error| error.to_string())?;
        let Some(name) = names.get(self.rng.random_range(0..names.len().max(1))) else {
            return Ok(());
        };
        let length = self.sim.open(name).and_then(|file| file.length()).unwrap_or(0);
        let at = self.rng.random_range(0..length.max(1));
        self.outcome.damaged += u64::from(self.sim.flip_bit(name, at, self.rng.random()));
        Ok(())
    }

    /// With a sound disk, all keys and a bus that takes everything, nothing stays owed.
    fn drain(&mut self) -> Check {
        self.sim.cut_after(u64::MAX);
        self.sim.set_faults(Faults::default());
        self.sim.set_space_bytes(u64::MAX);
        let opened = self.open_lanes((1..=self.keys).map(key).collect());
        let OpenLanes { lanes, writer, .. } = opened.map_err(|error| error.to_string())?;
        let mut life = Life::new(lanes, writer);
        self.verify(&life)?;
        for round in 0.. {
            self.forward(&mut life)?;
            self.acknowledge(&mut life)?;
            let stat = life.lanes.stat();
            let pending = stat.main.pending_entries + stat.dead.pending_entries;
            if pending == 0 && self.bus.is_idle() {
                break;
            }
            if round > 100_000 {
                return Err(format!("{pending} entries do not drain: {:?}", stat.epochs));
            }
        }
        if let Some((id, position)) = self.owed.first_key_value() {
            return Err(format!("entry {id} at {position:?} never arrived"));
        }
        let stat = life.lanes.stat();
        match stat.epochs.iter().find(|epoch| !epoch.is_complete()) {
            Some(epoch) => Err(format!("drained, and told to be {epoch:?}")),
            None => Ok(()),
        }
    }
}

fn is_damaged(damaged: &[DamagedRange], position: log::Position) -> bool {
    damaged.iter().any(|range| {
        range.epoch == position.epoch && (range.first_seq..range.next_seq).contains(&position.seq)
    })
}
