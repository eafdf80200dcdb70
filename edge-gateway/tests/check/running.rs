//! `check` beside a gateway that runs.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::Bench;

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Gateway(Child);

impl Gateway {
    pub(crate) fn process(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(bench: &Bench) -> Gateway {
    let ready = bench.path("ready.json");
    let set = format!("ready_file={}", ready.display());
    let mut command = bench.program("run", &["--set", &set]);
    let gateway = Gateway(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let started = Instant::now();
    while !ready.exists() {
        assert!(started.elapsed() < PATIENCE, "the gateway is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway
}

#[test]
fn its_own_ports_are_no_problem_and_anothers_are() {
    let bench = Bench::new();
    let _gateway = start(&bench);
    let said = bench.check(&[]);
    said.says("device port", "ok", "in use by this gateway");
    said.says("admin port", "ok", "in use by this gateway");
    said.says("spool", "ok", "can be written");
    assert_eq!(said.failed(), ["kafka"]);
    let said = bench.check(&["gateway.name=bench-2"]);
    said.says("device port", "fail", "a gateway named bench-1 runs here");
}
