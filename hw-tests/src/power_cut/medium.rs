//! The file behind the disk, looked at with the tools of ext4 while nobody uses it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};
use penstock_common::log::segment::{self, FileKind};

const BYTES: u64 = 512 << 20;

/// What the spool's directory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Segments {
    /// The greatest number ever given to one.
    pub(super) made: u64,
    /// That are there.
    pub(super) left: u64,
    /// Set aside because they were damaged.
    pub(super) damaged: u64,
}

/// An empty disk with a file system, made as Debian makes it.
pub(super) fn create(path: &Path) -> anyhow::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path);
    let file = file.with_context(|| format!("create {}", path.display()))?;
    file.set_len(BYTES).context("give the disk its size")?;
    let made = run("mkfs.ext4", &["-q", "-F"], path)?;
    ensure!(made.status.success(), "mkfs.ext4: {}", said(&made));
    Ok(file)
}

/// Replays the journal, as the next mount would; after that the file system must be sound.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    let replayed = run("e2fsck", &["-p", "-E", "journal_only"], path)?;
    // 1: there was something to replay.
    if !matches!(replayed.status.code(), Some(0 | 1)) {
        bail!("the journal can't be replayed ({}): {}", replayed.status, said(&replayed));
    }
    let checked = run("e2fsck", &["-f", "-n"], path)?;
    ensure!(checked.status.success(), "the file system is not sound: {}", said(&checked));
    Ok(())
}

/// The spool's segments by their names; there may be none, when nothing was ever synced.
pub(super) fn segments(path: &Path) -> anyhow::Result<Segments> {
    let listed = run("debugfs", &["-R", "ls -p /spool/segments"], path)?;
    ensure!(listed.status.success(), "debugfs: {}", said(&listed));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    // /inode/mode/uid/gid/name/size/
    let names = listed.lines().filter_map(|line| line.split('/').nth(5));
    let mut segments = Segments::default();
    for (_, ordinal, kind) in names.filter_map(segment::parse_name) {
        segments.made = segments.made.max(ordinal);
        match kind {
            FileKind::Segment => segments.left += 1,
            FileKind::Damaged | FileKind::Locked => segments.damaged += 1,
            // A move that was cut short: the segment it was made of is there.
            FileKind::Partial => {}
        }
    }
    Ok(segments)
}

fn run(tool: &str, args: &[&str], path: &Path) -> anyhow::Result<Output> {
    // Debian keeps them where only root's PATH leads.
    let places = ["/usr/sbin", "/sbin"].map(|place| PathBuf::from(place).join(tool));
    let program = places.iter().find(|path| path.exists()).map_or(Path::new(tool), |path| path);
    let output = Command::new(program).args(args).arg(path).output();
    output.with_context(|| format!("run {tool}, of Debian's package e2fsprogs"))
}

fn said(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&said).trim().to_owned()
}
