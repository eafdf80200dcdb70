//! The certificate (spec I13).

use penstock_common::clock::{Clock, SystemClock};

use super::{Level, Report};
use crate::listen::ListenConfig;
use crate::listen::tls::load;
use crate::status::advice::duration;
use crate::status::certificate::{judge, left_s};

const CHECK: &str = "certificate";

pub(super) fn check(report: &mut Report, config: &ListenConfig) {
    if config.tls.cert_file.is_none() {
        let found = "none: keys and events travel in the clear";
        if config.listen.ip().is_loopback() {
            return report.ok(CHECK, format!("{found}, on this machine only"));
        }
        let todo = "Set http.tls.cert_file and key_file, unless the network is trusted.";
        return report.add(CHECK, Level::Warn, found, todo);
    }
    let loaded = match load(&config.tls) {
        Ok(loaded) => loaded,
        Err(error) => {
            let todo = "Do what the line says; until then the gateway does not start.";
            return report.add(CHECK, Level::Fail, error.to_string(), todo);
        }
    };
    let now = SystemClock.now();
    match loaded.validity {
        None => report.ok(CHECK, "fits its key; when it ends could not be read"),
        Some(validity) => match judge(validity, now) {
            Some(advice) => report.advise(CHECK, advice),
            None => {
                let left = duration(left_s(validity, now).unsigned_abs());
                let end = validity.not_after.to_rfc3339();
                report.ok(CHECK, format!("fits its key; good until {end}, for {left}"));
            }
        },
    }
}
