//! The snapshot: schemas, fleets, keys (spec I4, I11).

use penstock_common::clock::{Clock, SystemClock};

use super::{Level, Report};
use crate::config::GatewayConfig;
use crate::snapshot::{self, Origin};
use crate::status::snapshot::{judge_age, judge_fault, judge_keys, summary};

pub(super) fn check(report: &mut Report, config: &GatewayConfig) {
    let (current, refused) = match snapshot::survey(&config.snapshot) {
        Ok(found) => found,
        Err(error) => {
            let todo = "This program is damaged: install it again.";
            return report.add("schemas", Level::Fail, error.to_string(), todo);
        }
    };
    let versions: Vec<String> =
        current.schema_versions().iter().map(|version| format!("v{version}")).collect();
    let from = match current.origin {
        Origin::Baked => "built in",
        _ => "in the snapshot",
    };
    report.ok("schemas", format!("{} {from}", versions.join(", ")));
    let (now, fleets) = (SystemClock.now(), config.fleets_with_keys());
    if fleets.is_empty() && current.origin == Origin::Baked && refused.is_empty() {
        return report.ok("snapshot", "none is configured, and no key is asked for (http.auth)");
    }
    let needs_keys = !fleets.is_empty();
    let faults = refused.iter().map(|error| judge_fault(&current, &error.to_string(), needs_keys));
    let advice: Vec<_> = faults.chain(judge_age(&current, now)).collect();
    if advice.is_empty() {
        report.ok("snapshot", summary(&current, now));
    }
    for advice in advice {
        report.advise("snapshot", advice);
    }
    for fleet in fleets {
        match judge_keys(&current, &fleet, now) {
            Some(advice) => report.advise("keys", advice),
            None => report.ok("keys", format!("the fleet {fleet} has a good key")),
        }
    }
}
