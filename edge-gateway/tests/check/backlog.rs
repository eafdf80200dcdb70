//! A gateway that starts on a full spool (spec I7): what it holds in memory and how long it takes
//! do not grow with the backlog. The figures are printed; memory is held to its limit.
//!
//! `PENSTOCK_TEST_LONG=1` fills the 2 GiB of the default configuration instead of 48 MiB.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_gateway::spool::entry::{Entry, EventEntry};
use edge_gateway::spool::{self, SpoolConfig, SpoolError};
use penstock_common::event::{Flags, UnixMicros};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Bench;
use crate::running::start;

/// Of a gateway that is ready. What the forwarder holds later has its own limits
/// (`kafka.in_flight_bytes_max`, `kafka.in_flight_records_max`).
const MEMORY_MAX_KIB: u64 = 48 << 10;

fn config(dir: &Path) -> SpoolConfig {
    let is_long = std::env::var_os("PENSTOCK_TEST_LONG").is_some();
    let default = SpoolConfig::default();
    let bytes_max = if is_long { default.bytes_max } else { 48 << 20 };
    SpoolConfig { dir: dir.to_owned(), bytes_max, segment_bytes: bytes_max / 32, ..default }
}

/// Events of some 300 bytes that compress as those of machines do.
fn events(rng: &mut ChaCha8Rng) -> Vec<Entry> {
    let mut event = || {
        let mut payload = String::from(r#"{"device_id":"press-17","metrics":{"#);
        for metric in 0..12 {
            payload += &format!(r#""metric_{metric}":{:.3},"#, rng.random_range(0.0..1_000.0));
        }
        Entry::Event(EventEntry {
            device_id: "press-17".into(),
            schema_version: 2,
            fleet: "press-line".into(),
            received_at: UnixMicros(1_700_000_000_000_000),
            flags: Flags::NONE,
            traceparent: None,
            payload: Bytes::from(payload + r#""end":0}}"#),
        })
    };
    (0..1_000).map(|_| event()).collect()
}

/// Fills both lanes until nothing is taken any more; how many entries wait.
async fn fill(config: &SpoolConfig) -> u64 {
    let handle = spool::open(config).unwrap().handle;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let batches: Vec<_> = (0..20).map(|_| events(&mut rng)).collect();
    let mut batches = batches.iter().cycle();
    loop {
        match handle.submit(batches.next().unwrap().clone()).await {
            Ok(()) => {}
            Err(SpoolError::Full { .. }) if handle.stat().is_dead_full => break,
            Err(SpoolError::Full { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    handle.close().await;
    let stat = handle.stat();
    println!(
        "{} MiB in {} files, of which {} MiB gave way; {} entries wait",
        stat.usage.used_bytes >> 20,
        stat.segments,
        stat.usage.dead_bytes >> 20,
        stat.pending_entries
    );
    stat.pending_entries
}

fn pending(admin_port: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", admin_port)).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("penstock_spool_pending_entries "));
    value.unwrap_or_else(|| panic!("{text}")).parse::<f64>().unwrap() as u64
}

fn memory_max_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_gateway_takes_a_full_spool_up_in_bounded_memory() {
    let bench = Bench::new();
    let config = config(&bench.path("spool"));
    let waiting = fill(&config).await;
    let sizes = format!(
        "[spool]\ndir = {:?}\nbytes_max = {}\nsegment_bytes = {}\n[kafka]",
        config.dir, config.bytes_max, config.segment_bytes
    );
    let text = bench.config();
    let (before, after) = (text.find("[spool]").unwrap(), text.find("[kafka]").unwrap());
    bench.write(&format!("{}{sizes}{}", &text[..before], &text[after + 7..]));
    let started = Instant::now();
    let gateway = start(&bench);
    let start_ms = started.elapsed().as_millis();
    let at_start_kib = memory_max_kib(gateway.process());
    assert_eq!(pending(bench.admin_port), waiting);
    // By then the forwarder holds as much as it may.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let memory_kib = memory_max_kib(gateway.process());
    println!(
        "ready after {start_ms} ms; at most {at_start_kib} KiB until then, {memory_kib} later"
    );
    assert!(at_start_kib <= MEMORY_MAX_KIB, "{at_start_kib} KiB");
}
