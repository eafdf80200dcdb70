//! `edge-gateway check` and `--print-config` (spec I14) as a technician runs them: the program
//! itself, with one thing broken at a time; and how it starts on a full spool.

mod backlog;
mod broken;
mod config;
mod files;
mod running;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A place where nothing listens: connections are refused at once.
pub(crate) const NOWHERE: &str = "127.0.0.1:1";

/// A gateway's folder and configuration in which all is well, but that Kafka refuses connections.
pub(crate) struct Bench {
    dir: TempDir,
    pub(crate) http_port: u16,
    pub(crate) admin_port: u16,
}

/// What `check` said.
pub(crate) struct Said {
    pub(crate) exit_code: i32,
    lines: Vec<Value>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            http_port: free_port(),
            admin_port: free_port(),
        };
        std::fs::create_dir(bench.path("spool")).unwrap();
        bench.write(&bench.config());
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> String {
        format!(
            "[gateway]\nname = \"bench-1\"\nfleet = \"press-line\"\n\
             [http]\nlisten = \"127.0.0.1:{}\"\nauth = \"off\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n\
             [spool]\ndir = {:?}\nbytes_max = 1048576\nsegment_bytes = 65536\n\
             [kafka]\nbootstrap = \"{NOWHERE}\"\n",
            self.http_port,
            self.admin_port,
            self.path("spool"),
        )
    }

    pub(crate) fn write(&self, config: &str) {
        std::fs::write(self.path("gateway.toml"), config).unwrap();
    }

    pub(crate) fn program(&self, subcommand: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_edge-gateway")));
        command.arg(subcommand).arg("--config").arg(self.path("gateway.toml")).args(arguments);
        command
    }

    /// Runs `check --json` with these overrides.
    pub(crate) fn check(&self, set: &[&str]) -> Said {
        let mut command = self.program("check", &["--json"]);
        for item in set {
            command.args(["--set", item]);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
        });
        let exit_code = output.status.code().unwrap();
        assert_eq!(report["exit_code"], exit_code);
        // Nothing of the trying is left behind.
        for file in std::fs::read_dir(self.path("spool")).into_iter().flatten() {
            let name = file.unwrap().file_name();
            assert!(!name.to_string_lossy().contains("check"), "{name:?}");
        }
        Said { exit_code, lines: report["lines"].as_array().unwrap().clone() }
    }
}

impl Said {
    /// The lines of one check that are at this level.
    pub(crate) fn found(&self, check: &str, level: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["check"] == check && line["level"] == level).collect()
    }

    /// That exactly one line of this check is at this level, and says this; and that there is
    /// something to do where it is not good.
    pub(crate) fn says(&self, check: &str, level: &str, words: &str) {
        let found = self.found(check, level);
        let [line] = found[..] else { panic!("{check} {level}: {:#?}", self.lines) };
        let text = line["found"].as_str().unwrap();
        assert!(text.contains(words), "{words:?} is not in {text:?}");
        let todo = line["todo"].as_str().unwrap();
        assert!(level == "ok" || !todo.is_empty(), "nothing to do: {line}");
    }

    /// Checks that failed, each once.
    pub(crate) fn failed(&self) -> Vec<&str> {
        let failed = self.lines.iter().filter(|line| line["level"] == "fail");
        let mut failed: Vec<&str> = failed.map(|line| line["check"].as_str().unwrap()).collect();
        failed.dedup();
        failed
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
