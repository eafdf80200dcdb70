//! `spool stat`: how full it is, what waits, and what is wrong.

use std::collections::BTreeMap;
use std::io::Write;

use penstock_common::log::segment::Lane;
use penstock_common::log::{DamagedRange, Locked, Log, RecoveryReport, SegmentInfo};

use super::Found;
use crate::spool::SpoolConfig;
use crate::spool::offline::{self, Offline, Owner};

pub(super) fn run(config: &SpoolConfig, out: &mut dyn Write) -> anyhow::Result<Found> {
    let owner = offline::owner(&config.dir)?;
    let spool = Offline::look(config)?;
    writeln!(out, "Spool in {}", config.dir.display())?;
    match &owner {
        Owner::Gateway(process) => {
            writeln!(out, "  The gateway is running (process {process}).")?;
        }
        Owner::Nobody(_) => {
            writeln!(out, "  The gateway is not running.")?;
            spool.note_forwarded(&config.dir);
        }
    }
    for (lane, log) in spool.lanes() {
        let what = match lane {
            Lane::Main => "Events to forward",
            Lane::Dead => "Gave way, to be forwarded as dead letters",
        };
        tell_lane(what, log, matches!(owner, Owner::Nobody(_)), out)?;
    }
    let used_bytes = spool.main.disk_bytes() + spool.dead.disk_bytes();
    let percent = 100 * used_bytes / config.bytes_max.max(1);
    writeln!(
        out,
        "  Limit: {} of {} are used ({percent} %).",
        bytes(used_bytes),
        bytes(config.bytes_max)
    )?;
    if let Some(free_bytes) = spool.free_bytes {
        writeln!(out, "  The disk has {} left.", bytes(free_bytes))?;
    }
    tell_keys(&spool, config, out)?;
    tell_trouble(&spool, out)
}

fn tell_lane(what: &str, log: &Log, is_still: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let (segments, stat) = (log.segments(), log.stat());
    let entries: u64 = segments.iter().map(|one| one.next_seq - one.first_seq).sum();
    write!(
        out,
        "  {what}: {}, {}, {entries} entries",
        count(segments.len()),
        bytes(stat.disk_bytes)
    )?;
    if is_still {
        write!(out, ", of which {} are not known to be forwarded", stat.pending_entries)?;
    }
    writeln!(out, ".")?;
    Ok(())
}

fn tell_keys(spool: &Offline, config: &SpoolConfig, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut by_key: BTreeMap<_, usize> = BTreeMap::new();
    for SegmentInfo { key, .. } in spool.lanes().iter().flat_map(|(_, log)| log.segments()) {
        *by_key.entry(key).or_default() += 1;
    }
    for (key, files) in by_key {
        if key.is_none() {
            writeln!(out, "  Not encrypted: {}.", count(files))?;
        } else {
            writeln!(out, "  Key {key}: {}.", count(files))?;
        }
    }
    writeln!(out, "  Key file: {}.", config.key_file().display())?;
    Ok(())
}

/// What a look finds wrong.
pub(super) fn tell_trouble(spool: &Offline, out: &mut dyn Write) -> anyhow::Result<Found> {
    let mut found = Found::Well;
    let reports = [&spool.report, &spool.dead_report];
    for RecoveryReport { locked, damaged, quarantined, .. } in reports {
        for locked in locked {
            found = Found::Trouble;
            writeln!(out, "  CAN'T BE READ: {locked}.")?;
        }
        for range in damaged.iter().filter(|range| !is_locked(locked, range)) {
            found = Found::Trouble;
            writeln!(out, "  DAMAGED: {range}: {} entries are lost.", range.entries())?;
        }
        for name in quarantined {
            found = Found::Trouble;
            writeln!(out, "  DAMAGED: the gateway will set this file aside: {name}.")?;
        }
    }
    if reports.iter().any(|report| !report.locked.is_empty()) {
        writeln!(
            out,
            "  What can't be read is kept: bring the key back into the key file (or the later \
             program back) and start the gateway again."
        )?;
    }
    for (name, size) in &spool.damaged_files {
        found = Found::Trouble;
        writeln!(
            out,
            "  Set aside, because something in it is damaged: {name}, {}.",
            bytes(*size)
        )?;
    }
    Ok(found)
}

/// Whether a range is told with a locked file.
fn is_locked(locked: &[Locked], range: &DamagedRange) -> bool {
    locked.iter().filter_map(|one| one.range).any(|locked| locked.covers(range))
}

/// A number of files.
fn count(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

/// A size that people can read.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = bytes.saturating_mul(10) / unit;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}
