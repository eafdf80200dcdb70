//! The spool's disk: can it be written, how fast does it sync, is there room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Level, Report};
use crate::spool::SpoolConfig;
use crate::status::advice::{bytes, disk};

/// How often a block is written and synced.
const SYNCS: usize = 21;
/// A block of this size.
const BLOCK_BYTES: usize = 4096;
/// Trying ends early on a very slow disk.
const TIME_MAX: Duration = Duration::from_secs(10);
/// A median sync beyond this is slow; beyond the second it will be felt by every device.
const SLOW: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(150)];

pub(super) fn check(report: &mut Report, config: &SpoolConfig) {
    let Some(dir) = existing(&config.dir) else {
        let found = format!("{}: neither it nor a folder above it is there", config.dir.display());
        return report.add("spool", Level::Fail, found, "Correct spool.dir.");
    };
    let is_new = dir != config.dir;
    match syncs(&dir) {
        Err(error) => {
            let (found, todo) = refused(&dir, &error);
            report.add("spool", Level::Fail, found, todo);
        }
        Ok(times) => {
            writable(report, config, &dir, is_new);
            speed(report, times);
        }
    }
    room(report, config, &dir);
}

/// The folder, or the nearest above it that is there.
fn existing(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    dir.ancestors().find(|dir| dir.exists()).map(Path::to_owned)
}

fn writable(report: &mut Report, config: &SpoolConfig, dir: &Path, is_new: bool) {
    let wanted = config.dir.display();
    if is_new {
        let found = format!("{wanted} is not there yet; the gateway will create it");
        return report.ok("spool", found);
    }
    // Root can write everywhere, the gateway's own user may not.
    let owner = fs::metadata(dir).map_or(0, |metadata| metadata.uid());
    if rustix::process::geteuid().is_root() && owner != 0 {
        let found = format!("{wanted} can be written by root; it belongs to user {owner}");
        let todo = "Run this as the gateway's user to be sure.";
        return report.add("spool", Level::Warn, found, todo);
    }
    report.ok("spool", format!("{wanted} can be written"));
}

/// Writes and syncs blocks in a file of its own; removes it.
fn syncs(dir: &Path) -> io::Result<Vec<Duration>> {
    if !dir.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let path = dir.join(format!(".penstock-check-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let times = measure(file);
    let removed = fs::remove_file(&path);
    let times = times?;
    removed?;
    Ok(times)
}

fn measure(mut file: File) -> io::Result<Vec<Duration>> {
    let block = [0x5a; BLOCK_BYTES];
    let started = Instant::now();
    let mut times = Vec::with_capacity(SYNCS);
    while times.len() < SYNCS && (times.is_empty() || started.elapsed() < TIME_MAX) {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn refused(dir: &Path, error: &io::Error) -> (String, &'static str) {
    let dir = dir.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => (
            format!("{dir} can't be written: permission denied"),
            "Run this as the gateway's user; if it fails then, give that user the folder (chown).",
        ),
        io::ErrorKind::ReadOnlyFilesystem => (
            format!("{dir} is on a disk that can only be read"),
            "Mount it writable. If it became read-only by itself, the disk is failing: replace it.",
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
            format!("{dir}: the disk is full"),
            "Remove what else fills the disk, or lower spool.bytes_max.",
        ),
        io::ErrorKind::NotADirectory => {
            (format!("{dir} is a file, not a folder"), "Correct spool.dir.")
        }
        _ => (format!("{dir} can't be written: {error}"), "The disk may be failing: replace it."),
    }
}

fn speed(report: &mut Report, mut times: Vec<Duration>) {
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let slowest = times.last().copied().unwrap_or_default();
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    let numbers =
        format!("a synced write takes {:.1} ms, at most {:.1} ms", ms(median), ms(slowest));
    if median >= SLOW[1] {
        let found = format!("{numbers}: very slow, every device waits that long for its answer");
        let todo = "Use a better disk (an SSD or an industrial card), or find what else uses it.";
        report.add("disk speed", Level::Warn, found, todo);
    } else if median >= SLOW[0] {
        let found = format!("{numbers}: slow, but many devices share one write");
        report.add("disk speed", Level::Warn, found, "A faster disk shortens every answer.");
    } else {
        report.ok("disk speed", format!("{numbers}: good"));
    }
}

fn room(report: &mut Report, config: &SpoolConfig, dir: &Path) {
    let Some(disk) = disk(dir) else {
        let found = format!("the system does not say how much of {} is free", dir.display());
        return report.add("disk room", Level::Warn, found, "");
    };
    let used: u64 = fs::read_dir(config.dir.join("segments"))
        .into_iter()
        .flatten()
        .filter_map(|file| Some(file.ok()?.metadata().ok()?.len()))
        .sum();
    let needed = config.bytes_max.saturating_sub(used);
    let numbers = format!(
        "{} free; the spool has {} and may grow by {}",
        bytes(disk.free_bytes),
        bytes(used),
        bytes(needed)
    );
    if disk.free_bytes >= needed {
        return report.ok("disk room", numbers);
    }
    let todo = "Remove what else fills the disk, or lower spool.bytes_max: when the disk is full, \
                devices are told to wait.";
    report.add("disk room", Level::Warn, numbers, todo);
}
