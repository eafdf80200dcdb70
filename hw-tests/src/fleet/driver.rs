//! One task a device: wait for the intended time, send, retry until told, go on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::retry::Backoff;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer};
use super::client::{CallError, Client};
use super::device::{Batch, Device, Item};
use super::tally::Tally;
use super::{Fault, FleetConfig, Target};
use crate::oracle::record::{Told, ToldDevice, ToldFleet};

const RETRY_FIRST: Duration = Duration::from_millis(100);

struct Shared {
    config: Arc<FleetConfig>,
    client: Client,
    tally: Arc<Tally>,
    stop: CancellationToken,
    /// Past this, unresolved batches are given up: their outcome stays unknown.
    give_up: CancellationToken,
}

pub(super) async fn run(
    config: Arc<FleetConfig>,
    gateway: Target,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> ToldFleet {
    let client = Client::new(gateway, config.connections_max, config.request_timeout);
    let give_up = CancellationToken::new();
    let shared = Arc::new(Shared {
        config: Arc::clone(&config),
        client,
        tally,
        stop: stop.clone(),
        give_up: give_up.clone(),
    });
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..config.devices {
        let shared = Arc::clone(&shared);
        tasks.spawn(async move { (number, run_device(&shared, number, start).await) });
    }
    stop.cancelled().await;
    let deadline = Instant::now() + config.resolve_within;
    let mut devices = Vec::with_capacity(config.devices as usize);
    loop {
        let done = tokio::select! {
            done = tasks.join_next() => done,
            () = tokio::time::sleep_until(deadline), if !give_up.is_cancelled() => {
                give_up.cancel();
                continue;
            }
        };
        match done {
            None => break,
            Some(Ok(device)) => devices.push(device),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    devices.sort_by_key(|(number, _)| *number);
    let devices = devices.into_iter().map(|(_, device)| device).collect();
    ToldFleet { fleet: config.fleet.clone(), devices }
}

async fn run_device(shared: &Shared, number: u32, start: Instant) -> ToldDevice {
    let config = &*shared.config;
    let mut device = Device::new(config, number);
    let mut told = ToldDevice::new(device.id.clone());
    let seconds_per_event = f64::from(config.devices) / config.rate;
    let mean = (config.batch_min + config.batch_max) as f64 / 2.0;
    // Phases spread over one mean period, so that the fleet doesn't send as one.
    let mut intended =
        start + Duration::from_secs_f64(device.fraction() * seconds_per_event * mean);
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return told,
            () = tokio::time::sleep_until(intended) => {}
        }
        let size = device.next_size(config);
        let batch = device.next_batch(config, size, SystemClock.now());
        let indexes = note(shared, &mut told, &batch);
        let resolved = deliver(shared, &batch, device.fraction()).await;
        shared.tally.latency(intended.elapsed());
        let Some(fates) = resolved else { return told };
        for ((index, bytes), fate) in indexes.into_iter().zip(&fates) {
            told.told(index, fate);
            match (fate, bytes) {
                (Told::Accepted, Some(bytes)) => device.remember(index, bytes),
                (Told::Accepted | Told::Rejected(_), _) => {}
            }
        }
        count(shared, &fates);
        intended += Duration::from_secs_f64(seconds_per_event * size as f64);
    }
}

/// Notes the events before the first byte leaves; an answer may never come.
fn note(shared: &Shared, told: &mut ToldDevice, batch: &Batch) -> Vec<(u32, Option<Bytes>)> {
    let mut fresh = 0;
    let indexes = batch
        .items
        .iter()
        .map(|item| match item {
            Item::Again(index) => (*index, None),
            Item::New { record, bytes } => {
                fresh += 1;
                (told.sending(record), bytes.clone())
            }
        })
        .collect();
    shared.tally.sent.add(fresh);
    shared.tally.re_sent.add(batch.items.len() - fresh);
    indexes
}

fn count(shared: &Shared, fates: &[Told]) {
    let accepted = fates.iter().filter(|told| **told == Told::Accepted).count();
    shared.tally.accepted.add(accepted);
    shared.tally.rejected.add(fates.len() - accepted);
}

/// Sends the same bytes until their fate is known; none when it was given up.
async fn deliver(shared: &Shared, batch: &Batch, jitter: f64) -> Option<Vec<Told>> {
    let tally = &shared.tally;
    let broken = matches!(
        batch.items.as_slice(),
        [Item::New { record, .. }] if record.fault == Some(Fault::BrokenBody)
    );
    let mut backoff = Backoff::new(RETRY_FIRST, shared.config.retry_max);
    loop {
        tally.requests.add(1);
        let (content_type, encoding) =
            (batch.framing.content_type(), batch.compression.content_encoding());
        let call = shared.client.post("/v1/events", content_type, encoding, batch.body.clone());
        let outcome = tokio::select! {
            outcome = call => outcome,
            () = shared.give_up.cancelled() => return None,
        };
        let delay = match outcome {
            Ok(response) => {
                match response.status {
                    429 => tally.throttled.add(1),
                    500.. => tally.server_errors.add(1),
                    _ => {}
                }
                let (status, after) = (response.status, response.retry_after.as_deref());
                match answer::read(status, after, &response.body, batch.items.len(), broken) {
                    Answer::Resolved(told) => return Some(told),
                    // Later than asked, never sooner, and not all at once.
                    Answer::TryAgain { after: Some(after) } => after.mul_f64(1.0 + jitter / 2.0),
                    Answer::TryAgain { after: None } => backoff.next_delay(),
                    Answer::Unexpected(what) => {
                        tally.unexpected(what);
                        return None;
                    }
                }
            }
            Err(error) => {
                match error {
                    CallError::TimedOut => tally.timed_out.add(1),
                    CallError::Connect(_) | CallError::Broken(_) => tally.broken.add(1),
                }
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = shared.give_up.cancelled() => return None,
        }
    }
}

#[cfg(test)]
mod tests;
