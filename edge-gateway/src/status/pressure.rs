//! What the status page tells of pressure, and of forwarding beyond the link.

use serde_json::json;
use tokio::sync::watch;

use super::advice::{Advice, Level};
use super::board::Board;
use crate::forward::view::{ForwardView, SharedView};
use crate::pressure::machine::{State, Why};
use crate::pressure::stage::PressureView;

/// Adds both sections, and what people should do about them.
pub fn show(board: &Board, pressure: watch::Receiver<PressureView>, forwarding: SharedView) {
    board.add("pressure", {
        let pressure = pressure.clone();
        move || pressure_json(&pressure.borrow())
    });
    board.advise(move || pressure_advice(&pressure.borrow()));
    board.add("forwarding", {
        let forwarding = forwarding.clone();
        move || forwarding_json(&forwarding.get())
    });
    board.advise(move || forwarding_advice(&forwarding.get()));
}

fn pressure_json(view: &PressureView) -> serde_json::Value {
    json!({
        "state": view.state.label(),
        "state_age_s": view.since.elapsed().as_secs(),
        "shed_percent": f64::from(view.shed_per_mille) / 10.0,
        "retry_after_s": view.retry_after_s,
        "drained_per_second": super::advice::bytes(view.drain_bytes_per_s),
        "soft_limit_bytes": view.limits.soft_bytes,
        "hard_limit_bytes": view.limits.hard_bytes,
        "least_free_bytes": view.limits.disk_free_bytes_min,
    })
}

fn pressure_advice(view: &PressureView) -> Option<Advice> {
    let (level, found, todo) = match (view.state, view.why) {
        (State::Open, _) => return None,
        (State::Hold, _) => (
            Level::Warn,
            format!(
                "The core is behind and has asked for events to be held here ({}).",
                view.hold_reason.as_deref().unwrap_or("no reason given")
            ),
            "Nothing here: events are safe and wait. It ends by itself.",
        ),
        (State::Shed, _) => (
            Level::Warn,
            format!(
                "The spool fills: {} % of the requests are told to come back later.",
                view.shed_per_mille / 10
            ),
            "It empties by itself once Kafka takes events again.",
        ),
        (State::Evict, _) => (
            Level::Fail,
            "The spool is at its limit: its oldest events become dead letters.".to_owned(),
            "They are kept here, too, and the operator can replay them. Find out why Kafka does \
             not take events: it ends by itself once it does.",
        ),
        (State::Refuse, Some(Why::DiskFull)) => (
            Level::Fail,
            "Something else has filled the spool's disk: devices are told to come back later."
                .to_owned(),
            "Remove what fills the disk. It goes on by itself.",
        ),
        // The disk's own advice says what to do.
        (State::Refuse, Some(Why::DiskFailing)) => return None,
        (State::Refuse, Some(Why::SpoolFull) | None) => (
            Level::Fail,
            "The spool is full: devices are told to come back later.".to_owned(),
            "Find out why Kafka does not take events. Nothing that was accepted is lost.",
        ),
    };
    Some(Advice::new(level, found, todo))
}

fn forwarding_json(view: &ForwardView) -> serde_json::Value {
    let blocked: Vec<&str> =
        view.blocked_topics.iter().map(|(topic, _)| topic.base_name()).collect();
    json!({
        "is_held": view.is_held,
        "in_flight_records": view.in_flight_records,
        "passed_over_entries": view.parked_entries,
        "silent_partitions": view.stalled_partitions,
        "closed_topics": blocked.join(", "),
        "refused_records": view.redirected_total,
    })
}

fn forwarding_advice(view: &ForwardView) -> Option<Advice> {
    if let Some((topic, reason)) = view.blocked_topics.first() {
        return Some(Advice::new(
            Level::Warn,
            format!("Kafka does not take records for {}: {reason}.", topic.base_name()),
            "Let the operator create the topic (`cloud-core topics apply`) or grant this gateway's \
             user Describe and Write on it. Events wait here meanwhile.",
        ));
    }
    if view.stalled_partitions > 0 {
        return Some(Advice::new(
            Level::Warn,
            format!("{} partitions of Kafka do not answer.", view.stalled_partitions),
            "A broker is down, perhaps. Their events wait here; the others go on.",
        ));
    }
    (view.redirected_total > 0).then(|| {
        Advice::new(
            Level::Warn,
            format!("Kafka refused {} records for what they are.", view.redirected_total),
            "They are dead letters now (reason refused_by_bus): the operator should look at them.",
        )
    })
}
