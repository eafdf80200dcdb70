//! How the snapshot stands (spec I4, I11): for the status page, and for `check`.

use std::sync::Arc;

use penstock_common::clock::Clock;
use penstock_common::event::UnixMicros;
use serde_json::{Value, json};

use super::advice::{Advice, Level, duration};
use super::board::Board;
use crate::snapshot::{Current, Origin, Snapshots};

/// A snapshot of this age does not know of keys that were revoked since.
const OLD_S: i64 = 30 * DAY_S;
/// People are told so long before the last key of a fleet ends.
const TOLD_BEFORE_S: i64 = 14 * DAY_S;
const DAY_S: i64 = 86_400;

/// Shows it on the page. `fleets` are those whose devices need a key here.
pub fn tell(board: &Board, snapshots: &Snapshots, fleets: &[Arc<str>], clock: &Arc<dyn Clock>) {
    let (shown, now) = (snapshots.clone(), Arc::clone(clock));
    board.add("snapshot", move || json(&shown.current(), shown.fault().as_deref(), now.now()));
    let faulty = snapshots.clone();
    let needs_keys = !fleets.is_empty();
    board.advise(move || {
        faulty.fault().map(|fault| judge_fault(&faulty.current(), &fault, needs_keys))
    });
    let (aged, now) = (snapshots.clone(), Arc::clone(clock));
    board.advise(move || judge_age(&aged.current(), now.now()));
    for fleet in fleets {
        let (known, now, fleet) = (snapshots.clone(), Arc::clone(clock), Arc::clone(fleet));
        board.advise(move || judge_keys(&known.current(), &fleet, now.now()));
    }
}

fn json(current: &Current, fault: Option<&str>, now: UnixMicros) -> Value {
    json!({
        "origin": origin(current),
        "made_at": current.made_at.map(|made_at| made_at.to_string()),
        "age_s": current.age_s(now).map(|age_s| age_s.max(0)),
        "version": current.sha256.get(..12),
        "fleets": current.keys.fleets(),
        "keys": current.keys.valid(now),
        "fault": fault,
    })
}

fn origin(current: &Current) -> &'static str {
    match current.origin {
        Origin::File => "file",
        Origin::Kept => "kept copy",
        Origin::Image => "image",
        Origin::Baked => "built in",
    }
}

/// In a line: where it came from, how old it is, what is in it.
pub fn summary(current: &Current, now: UnixMicros) -> String {
    let (fleets, keys) = (current.keys.fleets(), current.keys.valid(now));
    match (current.made_at, current.age_s(now)) {
        (Some(made_at), Some(age_s)) => format!(
            "{}: made {} ({} ago), version {}, {fleets} fleets, {keys} good keys",
            origin(current),
            made_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            duration(age_s.max(0).unsigned_abs()),
            current.sha256.get(..12).unwrap_or_default(),
        ),
        _ => "built in: schemas, and no key".to_owned(),
    }
}

/// About a file that can't be used.
pub fn judge_fault(current: &Current, fault: &str, needs_keys: bool) -> Advice {
    let is_baked = current.origin == Origin::Baked;
    let level = if is_baked && needs_keys { Level::Fail } else { Level::Warn };
    let holds = match is_baked {
        true => "the built-in one is used, which knows no key",
        false => "an older one is used",
    };
    let todo = "Make a new one with `cloud-core snapshot write`, copy it beside the old one and \
                rename it. The gateway takes it by itself.";
    Advice::new(level, format!("The snapshot can't be used: {fault}; {holds}."), todo)
}

/// About its age.
pub fn judge_age(current: &Current, now: UnixMicros) -> Option<Advice> {
    let age_s = current.age_s(now).filter(|age_s| *age_s >= OLD_S)?;
    let age = duration(age_s.unsigned_abs());
    Some(Advice::new(
        Level::Warn,
        format!("The snapshot is {age} old: keys that were made or revoked since are not known."),
        "Bring a newer one (`cloud-core snapshot write`).",
    ))
}

/// About the keys of a fleet that is served here.
pub fn judge_keys(current: &Current, fleet: &str, now: UnixMicros) -> Option<Advice> {
    let todo = format!(
        "Make one with `cloud-core keys create --fleet {fleet}`, write a snapshot, and bring it here."
    );
    match current.keys.end_of(fleet, now) {
        None => Some(Advice::new(
            Level::Fail,
            format!("The fleet {fleet} has no good key: all its devices are refused."),
            todo,
        )),
        Some(Some(end)) if (end.0 - now.0) / 1_000_000 < TOLD_BEFORE_S => Some(Advice::new(
            Level::Warn,
            format!("The last key of the fleet {fleet} ends at {}.", end.to_rfc3339()),
            todo,
        )),
        Some(_) => None,
    }
}
