//! `edge-gateway check` (spec I14): tries everything that the gateway needs, says in plain words
//! what was found, and what to do where that is not good. It changes nothing, and may run beside a
//! gateway.
//!
//! | exit code | |
//! |---|---|
//! | 0 | everything is good, or good enough (warnings) |
//! | 1 | something that the gateway needs does not work |
//! | 2 | the configuration can't be used; nothing else was tried |

mod disk;
mod kafka;
mod mqtt;
mod ports;
mod snapshot;
mod tls;

use std::path::Path;

use penstock_common::clock::{Clock, SystemClock};
use serde::Serialize;

use crate::config::GatewayConfig;
pub use crate::status::advice::Level;
use crate::status::advice::{Advice, is_plausible};

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What was tried, in a word or two.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub todo: String,
}

/// Everything that was tried.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In the order of trying.
    pub lines: Vec<Line>,
    /// See the module.
    pub exit_code: u8,
}

impl Report {
    fn add(
        &mut self,
        check: &'static str,
        level: Level,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) {
        self.lines.push(Line { check, level, found: found.into(), todo: todo.into() });
        if level == Level::Fail {
            self.exit_code = self.exit_code.max(1);
        }
    }

    fn advise(&mut self, check: &'static str, advice: Advice) {
        self.add(check, advice.level, advice.found, advice.todo);
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Level::Ok, found, "");
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Line { check, level, found, todo } in &self.lines {
            let level = match level {
                Level::Ok => "OK  ",
                Level::Warn => "WARN",
                Level::Fail => "FAIL",
            };
            text += &format!("{level}  {check:<12} {found}\n");
            if !todo.is_empty() {
                text += &format!("{:>19}-> {todo}\n", "");
            }
        }
        let count = |wanted: Level| self.lines.iter().filter(|line| line.level == wanted).count();
        text += &match (count(Level::Fail), count(Level::Warn)) {
            (0, 0) => "Everything is good.\n".to_owned(),
            (0, warnings) => format!("Good enough, with {warnings} to look at (WARN).\n"),
            (failures, _) => format!("{failures} must be put right (FAIL).\n"),
        };
        text
    }
}

/// Tries everything.
pub fn run(path: Option<&Path>, overrides: &[String]) -> Report {
    let mut report = Report::default();
    let config = match GatewayConfig::load(path, overrides) {
        Ok(config) => config,
        Err(error) => {
            let todo = "Correct the lines that are named, and run this again.";
            report.add("config", Level::Fail, format!("{error:#}"), todo);
            report.exit_code = 2;
            return report;
        }
    };
    let file = path.map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
    let name = &config.gateway.name;
    report.ok("config", format!("{file} can be used; this is gateway {name}"));
    clock(&mut report);
    snapshot::check(&mut report, &config);
    tls::check(&mut report, &config.http);
    disk::check(&mut report, &config.spool);
    ports::check(&mut report, &config);
    kafka::check(&mut report, &config.kafka);
    mqtt::check(&mut report, &config);
    report
}

fn clock(report: &mut Report) {
    let now = SystemClock.now();
    let shown = jiff::Timestamp::from_microsecond(now.0)
        .map_or_else(|_| now.to_rfc3339(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    if is_plausible(now) {
        report.ok("clock", format!("{shown}; compare it with a watch"));
    } else {
        report.add(
            "clock",
            Level::Warn,
            format!("{shown}: the clock was never set"),
            "Set the clock, or let the machine reach its time server (NTP). Until then, received \
             times are wrong; no event is lost.",
        );
    }
}
