//! How the certificate stands (spec I13): for the status page, and for `check`.

use std::sync::Arc;

use penstock_common::clock::Clock;
use penstock_common::event::UnixMicros;
use serde_json::json;

use super::advice::{Advice, Level, duration};
use super::board::Board;
use crate::listen::tls::{Tls, Validity};

/// People are told so long before its end.
const TOLD_BEFORE_S: i64 = 14 * 86_400;

/// Shows it on the page.
pub fn tell(board: &Board, tls: &Tls, clock: &Arc<dyn Clock>) {
    let (shown, now) = (tls.clone(), Arc::clone(clock));
    board.add("certificate", move || {
        let validity = shown.validity();
        json!({
            "begins_at": validity.map(|validity| validity.not_before.to_rfc3339()),
            "ends_at": validity.map(|validity| validity.not_after.to_rfc3339()),
            "left_s": validity.map(|validity| left_s(validity, now.now()).max(0)),
            "fault": shown.fault(),
        })
    });
    let faulty = tls.clone();
    board.advise(move || faulty.fault().map(|fault| judge_fault(&fault)));
    let (judged, now) = (tls.clone(), Arc::clone(clock));
    board.advise(move || judge(judged.validity()?, now.now()));
}

/// About new files that can't be used.
fn judge_fault(fault: &str) -> Advice {
    Advice::new(
        Level::Warn,
        format!("The certificate can't be replaced: {fault}; the one before is used."),
        "Put the certificate and its key there that were made together. The gateway takes them by \
         itself.",
    )
}

/// About its begin and its end.
pub fn judge(validity: Validity, now: UnixMicros) -> Option<Advice> {
    let Validity { not_before, not_after } = validity;
    let renew = "Put a newer one, and its key, in its place. The gateway takes them by itself.";
    let left_s = left_s(validity, now);
    if now < not_before {
        return Some(Advice::new(
            Level::Warn,
            format!("The certificate is good from {} on.", not_before.to_rfc3339()),
            "See whether the clock is right.",
        ));
    }
    if left_s <= 0 {
        return Some(Advice::new(
            Level::Fail,
            format!(
                "The certificate has ended at {}: devices that look will not connect.",
                not_after.to_rfc3339()
            ),
            renew,
        ));
    }
    (left_s < TOLD_BEFORE_S).then(|| {
        let left = duration(left_s.unsigned_abs());
        let end = not_after.to_rfc3339();
        Advice::new(Level::Warn, format!("The certificate ends in {left}, at {end}."), renew)
    })
}

/// What is left until its end; below zero, it has ended.
pub fn left_s(validity: Validity, now: UnixMicros) -> i64 {
    (validity.not_after.0 - now.0) / 1_000_000
}
