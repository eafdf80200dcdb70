//! What the numbers mean, and what to do about it, in words for a technician.

use std::path::Path;

use penstock_common::event::UnixMicros;
use penstock_common::telemetry::Complaint;
use serde::Serialize;
use serde_json::{Value, json};

use super::link::{Link, LinkState};
use crate::spool::SpoolStat;

/// 2025-01-01 and 2100-01-01: a clock outside was never set.
const PLAUSIBLE: std::ops::Range<i64> = 1_735_689_600_000_000..4_102_444_800_000_000;
/// Beyond this share of the spool's bytes, people are told.
const SPOOL_SHARE_WARN: f64 = 0.8;
/// An oldest event of this age means that the spool does not drain as it should.
const OLD_S: i64 = 600;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// No event is refused or lost, but somebody should look.
    Warn,
    /// Events are refused, or soon will be.
    Fail,
}

/// One thing that people should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub todo: String,
}

impl Advice {
    /// Puts it together.
    pub fn new(level: Level, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { level, found: found.into(), todo: todo.into() }
    }
}

/// A disk's room.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// What an ordinary user may still write.
    pub free_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
}

/// The room on the disk of a directory; none if the system does not say.
pub fn disk(dir: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(Disk { free_bytes: bytes(stat.f_bavail), total_bytes: bytes(stat.f_blocks) })
}

/// Whether a clock can have been set to this.
pub fn is_plausible(now: UnixMicros) -> bool {
    PLAUSIBLE.contains(&now.0)
}

/// What is judged.
pub(super) struct Facts<'a> {
    pub(super) is_ready: bool,
    pub(super) spool: &'a SpoolStat,
    pub(super) disk: Option<Disk>,
    pub(super) link: &'a Link,
    pub(super) bootstrap: &'a str,
    pub(super) now: UnixMicros,
    pub(super) is_clock_set: bool,
}

/// Everything that is not as it should be.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Advice> {
    let mut says = Vec::new();
    if !facts.is_ready {
        let found = "The gateway is starting or stopping.";
        says.push(Advice::new(Level::Warn, found, "Wait a moment."));
    }
    judge_disk(facts, &mut says);
    judge_link(facts, &mut says);
    if !facts.is_clock_set {
        says.push(Advice::new(
            Level::Warn,
            "The clock is not set, or was set back: events are flagged for it, and keep their order.",
            "Set the clock, or let the machine reach its time server (NTP).",
        ));
    }
    says
}

fn judge_disk(facts: &Facts<'_>, says: &mut Vec<Advice>) {
    let spool = facts.spool;
    if spool.is_failing {
        says.push(Advice::new(
            Level::Fail,
            "The disk refuses writes: devices are told to come back later.",
            "Look at the disk's free space below. If there is room, the disk or its cable is \
             failing: replace it.",
        ));
    }
    let share = spool.disk_bytes as f64 / spool.bytes_max.max(1) as f64;
    // At its limit, pressure says what becomes of events.
    if (SPOOL_SHARE_WARN..1.0).contains(&share) && spool.pending_entries > 0 {
        let percent = (share * 100.0).round();
        says.push(Advice::new(
            Level::Warn,
            format!(
                "The spool is {percent} % full; at its limit, the oldest events become dead letters."
            ),
            "It empties by itself once Kafka answers.",
        ));
    }
    judge_locked(spool, says);
    let damaged = spool.damaged_entries.saturating_sub(spool.locked_entries);
    if damaged > 0 {
        says.push(Advice::new(
            Level::Warn,
            format!("{damaged} events can't be read back from the disk."),
            "The disk has damaged data: plan to replace it. What follows the damage is sent on.",
        ));
    }
    let needed = spool.bytes_max.saturating_sub(spool.disk_bytes);
    if let Some(free) = facts.disk.map(|disk| disk.free_bytes).filter(|free| *free < needed) {
        let (free, needed) = (bytes(free), bytes(needed));
        says.push(Advice::new(
            Level::Warn,
            format!("The disk has {free} free; the spool may still need {needed}."),
            "Remove what else fills the disk, or lower `spool.bytes_max`.",
        ));
    }
}

fn judge_locked(spool: &SpoolStat, says: &mut Vec<Advice>) {
    if spool.locked_segments > 0 {
        says.push(Advice::new(
            Level::Fail,
            format!(
                "{} events in {} files can't be read, because the key they are encrypted with is \
                 not in the key file, or a later program wrote them.",
                spool.locked_entries, spool.locked_segments
            ),
            "They are kept. Bring the key back into `spool.key_file` (or the later program back) \
             and restart the gateway. `edge-gateway spool stat` says which key.",
        ));
    }
}

fn judge_link(facts: &Facts<'_>, says: &mut Vec<Advice>) {
    let Facts { link, now, bootstrap, .. } = facts;
    if link.state == LinkState::Silent {
        let since = link.silent_s.map_or_else(String::new, |s| format!(" for {}", duration(s)));
        says.push(Advice::new(
            Level::Warn,
            format!("Kafka has not answered{since}. Events wait here, on the disk."),
            format!(
                "Check the network cable and the way to {bootstrap}. `edge-gateway check` says \
                 more."
            ),
        ));
    }
    let age_s = facts.spool.oldest_received_at.map_or(0, |at| (now.0 - at.0) / 1_000_000);
    if age_s > OLD_S && link.state == LinkState::Up {
        says.push(Advice::new(
            Level::Warn,
            format!("The oldest waiting event is {} old.", duration(age_s.unsigned_abs())),
            "After an outage it takes a while to catch up. If the number grows, the link is too \
             slow.",
        ));
    }
}

/// What to do about complaints that begin with this.
const TODO: [(&str, &str); 7] = [
    ("the bus acknowledges nothing", "Check the network and the broker; events wait safely."),
    (
        "the connection to the bus is given up",
        "Nothing, if it stays rare. Otherwise run `edge-gateway check`.",
    ),
    ("events are refused until the spool", "Check the disk: is it full, or failing?"),
    ("librdkafka", "Check the network and the broker; `edge-gateway check` says more."),
    ("accept on the devices' port", "Too many connections at once, or too few file descriptors."),
    (
        "MQTT: ",
        "Check the MQTT broker; `edge-gateway check` says more. It keeps messages meanwhile.",
    ),
    ("read the spool", "The disk may be failing: plan to replace it."),
];

/// A complaint as the page shows it.
pub(super) fn complaint_json(complaint: &Complaint) -> Value {
    let todo = TODO.iter().find(|(start, _)| complaint.text.starts_with(start));
    json!({
        "level": if complaint.is_error { "error" } else { "warning" },
        "text": complaint.text,
        "part": complaint.target,
        "last_at": complaint.last_at.to_rfc3339(),
        "count": complaint.count,
        "todo": todo.map(|(_, todo)| todo),
    })
}

/// A duration in the two largest units that matter.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A size in the unit that suits it.
pub fn bytes(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_put_into_words() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3_700), "1 h 1 min");
        assert_eq!(duration(200_000), "2 d 7 h");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(2 << 30), "2.0 GiB");
    }

    #[test]
    fn a_clock_that_starts_in_1970_is_not_set() {
        assert!(!is_plausible(UnixMicros(5_000_000)));
        assert!(is_plausible(UnixMicros(1_768_465_860_000_000)));
    }
}
