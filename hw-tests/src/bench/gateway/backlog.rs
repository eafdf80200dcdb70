//! A backlog: filled while Kafka can't be reached, found again at a restart, drained.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::topic::Topic;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::load::distinct;
use super::report::BacklogReport;
use crate::fleet::client::Client;
use crate::oracle::drain;
use crate::stack::relay::Relay;
use crate::stack::{CoreConfig, Stack, StackConfig};

/// What an event carries that can't be compressed, bytes of text; large, so that filling takes
/// minutes and not an hour.
const FILLER_BYTES: usize = 3_072;
const EVENTS_A_REQUEST: usize = 50;
const SENDERS: u64 = 8;
const RECORD_BYTES: &str = "penstock_spool_committed_record_bytes_total";
const ACKNOWLEDGED: &str = "penstock_forward_acknowledged_records_total";
const DRAIN_BEGINS_WITHIN: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    /// Of records.
    pub(super) bytes: u64,
    pub(super) seed: u64,
}

impl Backlog {
    pub(super) async fn run(self, stop: &CancellationToken) -> anyhow::Result<BacklogReport> {
        let mut relay = Relay::closed()?;
        let mut config = StackConfig::from_env("bench_backlog")?;
        config.cores = vec![CoreConfig::new("core", "api")];
        config.gateway_set.push(format!("kafka.bootstrap=\"{}\"", relay.address));
        config.gateway_set.push(format!("spool.bytes_max={}", self.bytes * 3));
        let mut stack = Stack::prepare(config).await?;
        match self.measure(&mut stack, &mut relay, stop).await {
            Ok(report) => stack.stop().await.map(|()| report),
            Err(error) => Err(stack.explain(error)),
        }
    }

    async fn measure(
        self,
        stack: &mut Stack,
        relay: &mut Relay,
        stop: &CancellationToken,
    ) -> anyhow::Result<BacklogReport> {
        stack.gateway.start().await?;
        let admin = Client::new(stack.gateway_admin, 1, Duration::from_secs(10));
        println!("filling a spool with {} MB", self.bytes / 1_000_000);
        let began = Instant::now();
        let events = self.fill(stack, &admin, stop).await?;
        let filled_in = began.elapsed();
        let record_bytes = drain::metric(&admin, RECORD_BYTES).await? as u64;
        let memory_filling = stack.gateway.memory_bytes_max();
        // As after a power cut: nothing is tidied up.
        stack.gateway.kill()?;
        let began = Instant::now();
        stack.gateway.start().await?;
        let started_in = began.elapsed();
        let pending = drain::metric(&admin, drain::SPOOL_PENDING_METRIC).await? as u64;
        ensure!(pending >= events, "{events} events accepted, {pending} found after the restart");
        // Another start, with nothing of the files in memory.
        stack.gateway.kill()?;
        forget_cached_files();
        let began = Instant::now();
        stack.gateway.start().await?;
        let started_cold_in = began.elapsed();
        forget_cached_files();
        let memory_started = stack.gateway.memory_bytes_max();
        let kafka = stack.places().kafka;
        let usage = stack.gateway.usage();
        relay.open(&kafka).await?;
        let drained_in = drained(&admin).await?;
        let cpu = stack.gateway.usage().since(usage).cpu;
        let memory_draining = stack.gateway.memory_bytes_max();
        let topic = Topic::RawEvents.name(&stack.topic_prefix);
        let on_topic = tokio::task::spawn_blocking(move || distinct(&kafka, &topic)).await??;
        ensure!(on_topic == events, "{events} events accepted, {on_topic} on the topic");
        Ok(BacklogReport {
            events,
            record_bytes,
            filled_in,
            started_in,
            started_cold_in,
            drained_in,
            cpu,
            memory_filling,
            memory_started,
            memory_draining,
        })
    }

    /// Sends until there are enough bytes; how many events were accepted.
    async fn fill(
        self,
        stack: &Stack,
        admin: &Client,
        stop: &CancellationToken,
    ) -> anyhow::Result<u64> {
        let enough = stop.child_token();
        let mut sending = JoinSet::new();
        for sender in 0..SENDERS {
            let client = Client::new(stack.gateway_http, 1, Duration::from_secs(30));
            let (seed, enough) = (self.seed.wrapping_add(sender), enough.clone());
            sending.spawn(async move { send(&client, seed, sender, &enough).await });
        }
        while !stop.is_cancelled() && !sending.is_empty() {
            if drain::metric(admin, RECORD_BYTES).await? >= self.bytes as f64 {
                break;
            }
            tokio::time::sleep(POLL_EVERY * 10).await;
        }
        enough.cancel();
        let mut events = 0;
        while let Some(sent) = sending.join_next().await {
            events += sent.context("a sender")??;
        }
        Ok(events)
    }
}

async fn send(
    client: &Client,
    seed: u64,
    sender: u64,
    enough: &CancellationToken,
) -> anyhow::Result<u64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut events = 0;
    while !enough.is_cancelled() {
        let body = body(&mut rng, sender);
        let answer = client.post("/v1/events", "application/json", None, body).await?;
        let said = || String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 202, "{}: {}", answer.status, said());
        events += EVENTS_A_REQUEST as u64;
    }
    Ok(events)
}

fn body(rng: &mut ChaCha8Rng, sender: u64) -> Bytes {
    let timestamp = SystemClock.now().to_rfc3339();
    let mut filler = [0; FILLER_BYTES / 4 * 3];
    let event = |_| {
        rng.fill_bytes(&mut filler);
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let id = uuid::Builder::from_random_bytes(id).into_uuid();
        one(id, sender, &timestamp, &STANDARD.encode(filler))
    };
    let events: Vec<String> = (0..EVENTS_A_REQUEST).map(event).collect();
    format!("[{}]", events.join(",")).into()
}

fn one(id: Uuid, sender: u64, timestamp: &str, filler: &str) -> String {
    format!(
        "{{\"event_id\":\"{id}\",\"device_id\":\"large-{sender}\",\
         \"device_firmware_version\":\"2.4.1\",\"timestamp\":\"{timestamp}\",\
         \"metrics\":{{\"cpu_temp\":61.5,\"vibration_rms\":2.1,\"supply_voltage\":24.0}},\
         \"waveform\":\"{filler}\"}}"
    )
}

/// From the first acknowledgement of the broker to the last.
async fn drained(admin: &Client) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while drain::metric(admin, ACKNOWLEDGED).await? == 0.0 {
        ensure!(began.elapsed() < DRAIN_BEGINS_WITHIN, "nothing was forwarded in time");
        tokio::time::sleep(POLL_EVERY).await;
    }
    let first = Instant::now();
    let mut last = (f64::INFINITY, Instant::now());
    loop {
        let pending = drain::metric(admin, drain::SPOOL_PENDING_METRIC).await?;
        if pending == 0.0 {
            return Ok(first.elapsed());
        }
        if pending < last.0 {
            last = (pending, Instant::now());
        }
        ensure!(last.1.elapsed() < DRAIN_BEGINS_WITHIN, "{pending} entries don't drain");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Files are read from the disk again afterwards, where we may ask for that.
fn forget_cached_files() {
    rustix::fs::sync();
    if let Err(error) = std::fs::write("/proc/sys/vm/drop_caches", "1") {
        println!("what is in the page cache stays there ({error}): not quite cold");
    }
}
