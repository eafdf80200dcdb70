//! How the spool is configured.

use std::path::PathBuf;

use penstock_common::log::record::GROUP_BYTES_MAX;
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;
/// Below this a full spool could not take a single large request.
const BYTES_MIN: u64 = 64 << 10;

/// The section `[spool]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// The directory; created where missing. One gateway at a time can use it.
    pub dir: PathBuf,
    /// The most it may take on disk. Near it the oldest events give way to the dead lane; when
    /// that is full too, devices are told to come back later.
    pub bytes_max: u64,
    /// Above this the gateway asks for less; three quarters of `bytes_max` if it is not given.
    pub soft_bytes: Option<u64>,
    /// The most of `bytes_max` that the dead lane may take; a quarter if it is not given. 0: the
    /// oldest never give way.
    pub dead_bytes_max: Option<u64>,
    /// The size of a segment file: the unit in which space is given back.
    pub segment_bytes: u64,
    /// The most that waits in memory for the disk.
    pub queue_bytes_max: u64,
    /// The most that is written and synced at once, before compression.
    pub group_bytes_max: u64,
    /// Whether records are compressed (LZ4).
    pub compress: bool,
    /// Whether what is written is encrypted. What was encrypted before is read in any case.
    pub encrypt: bool,
    /// The file of keys, made at the first start; `keys` in `dir` if it is not given.
    pub key_file: Option<PathBuf>,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("spool"),
            bytes_max: 2048 * MIB,
            soft_bytes: None,
            dead_bytes_max: None,
            segment_bytes: 64 * MIB,
            queue_bytes_max: 16 * MIB,
            group_bytes_max: 4 * MIB,
            compress: true,
            encrypt: true,
            key_file: None,
        }
    }
}

impl SpoolConfig {
    /// Above this the gateway asks for less.
    pub fn soft_bytes(&self) -> u64 {
        self.soft_bytes.unwrap_or(self.bytes_max / 4 * 3)
    }

    /// The most that the dead lane may take.
    pub fn dead_bytes_max(&self) -> u64 {
        self.dead_bytes_max.unwrap_or(self.bytes_max / 4)
    }

    /// Where the keys are.
    pub fn key_file(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.dir.join("keys"))
    }

    /// Adds what is wrong to `problems`, in words for whoever wrote the file.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut check = |ok: bool, problem: String| {
            if !ok {
                problems.push(problem);
            }
        };
        let Self { bytes_max, segment_bytes, queue_bytes_max, group_bytes_max, .. } = *self;
        check(!self.dir.as_os_str().is_empty(), "spool.dir: is empty".into());
        check(
            segment_bytes >= BYTES_MIN / 4,
            format!("spool.segment_bytes = {segment_bytes}: at least {}", BYTES_MIN / 4),
        );
        // The newest segment is never removed, so a few of them must fit.
        check(
            bytes_max >= BYTES_MIN && bytes_max / 4 >= segment_bytes,
            format!(
                "spool.bytes_max = {bytes_max}: at least {BYTES_MIN}, and at least 4 times \
                 spool.segment_bytes ({segment_bytes})"
            ),
        );
        let dead_bytes_max = self.dead_bytes_max();
        check(
            dead_bytes_max == 0 || (segment_bytes..=bytes_max / 2).contains(&dead_bytes_max),
            format!(
                "spool.dead_bytes_max = {dead_bytes_max}: 0, or from spool.segment_bytes \
                 ({segment_bytes}) to half of spool.bytes_max ({bytes_max})"
            ),
        );
        let soft_bytes = self.soft_bytes();
        check(
            (1..=bytes_max).contains(&soft_bytes),
            format!("spool.soft_bytes = {soft_bytes}: 1 to spool.bytes_max ({bytes_max})"),
        );
        check(
            (1..=GROUP_BYTES_MAX as u64).contains(&group_bytes_max),
            format!("spool.group_bytes_max = {group_bytes_max}: 1 to {GROUP_BYTES_MAX}"),
        );
        check(
            (BYTES_MIN..=u64::from(u32::MAX)).contains(&queue_bytes_max),
            format!("spool.queue_bytes_max = {queue_bytes_max}: {BYTES_MIN} to {}", u32::MAX),
        );
    }
}
