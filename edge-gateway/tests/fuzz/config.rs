//! The configuration's parser: a file, and overrides.

use std::path::PathBuf;

use edge_gateway::config::GatewayConfig;
use penstock_common::config::print;
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::{Target, fuzz, kind};

struct Configs {
    dir: TempDir,
}

impl Configs {
    fn load(&self, text: &[u8], overrides: &[String]) -> anyhow::Result<GatewayConfig> {
        let path: PathBuf = self.dir.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        GatewayConfig::load(Some(&path), overrides)
    }
}

const OVERRIDES: [&str; 10] = [
    "http.listen=127.0.0.1:0",
    "http.auth=off",
    "gateway.name=é",
    "spool.bytes_max=-1",
    "kafka=1",
    "kafka.bootstrap.x=1",
    "=",
    "http",
    "gateway.other_fleets=[[[[[[",
    "a.b.c.d.e.f.g.h.i.j=\"",
];

impl Target for Configs {
    const NAME: &'static str = "config";
    const PIECES: &'static [&'static [u8]] = &[
        b"\n",
        b"[",
        b"]",
        b"[[http]]\n",
        b"[http]\n",
        b"[gateway.fleet]\n",
        b"=",
        b".",
        b"\"",
        b"'",
        b"\"\"\"",
        b"'''",
        b"\\u",
        b"\\U0010FFFF",
        b"{",
        b"}",
        b",",
        b"#",
        b"1e999",
        b"nan",
        b"-9223372036854775808",
        b"18446744073709551616",
        b"0x",
        b"1979-05-27T07:32:00Z",
        b"true",
        b"\xff",
        b"\xc3\xa9",
        b"\0",
        b"http.tls.cert_file = \"x\"\n",
        b"name = \"",
        b"a = {b = {c = [",
    ];

    fn run(&mut self, random: &mut StdRng, case: &[u8]) -> String {
        let overrides: Vec<String> = match random.random_range(0..3) {
            0 => {
                let at = random.random_range(0..OVERRIDES.len());
                vec![OVERRIDES[at].to_owned(), "http.auth=off".to_owned()]
            }
            _ => Vec::new(),
        };
        match self.load(case, &overrides) {
            Ok(config) => {
                let printed = print(&config).expect("what was read can be printed");
                self.load(printed.as_bytes(), &[]).expect("what was printed can be read");
                "good".to_owned()
            }
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.len() < 1 << 20, "an error of {} bytes", text.len());
                // Its first problem, without where it is.
                kind(text.lines().nth(1).unwrap_or_default())
            }
        }
    }
}

#[test]
fn no_configuration_is_too_much() {
    fuzz(Configs { dir: tempfile::tempdir().unwrap() });
}
