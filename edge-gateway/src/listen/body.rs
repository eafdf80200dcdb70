//! Reads a request's body within its bounds of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::EXPECT;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::ListenConfig;
use super::problem::{Kind, Problem};

/// How much of a refused body is still read, so that a client that sends first and reads then
/// gets its answer instead of a reset.
const DISCARD_BYTES_MAX: usize = 4 << 20;

/// How long the body of a request that was refused for its headers is dropped.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// First allocation for a body in several pieces, in bytes.
const FIRST_BYTES_MAX: usize = 64 << 10;

/// Memory for all bodies at once, in bytes.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget(Arc<Semaphore>);

/// A body that arrived whole, and its share of the budget, to be held until the answer.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    share: OwnedSemaphorePermit,
}

impl BodyBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes_max.min(Semaphore::MAX_PERMITS))))
    }

    /// Takes a share; nobody waits for one, since slow clients may hold theirs for long.
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.0.clone().try_acquire_many_owned(permits).map_err(|_| {
            let detail = "the bodies being received fill the gateway's memory for them";
            Problem::new(Kind::Overloaded, detail)
        })
    }
}

impl Whole {
    /// Takes more for what the body becomes when it is decompressed.
    pub(super) fn grow(&mut self, budget: &BodyBudget, bytes: usize) -> Result<(), Problem> {
        self.share.merge(budget.take(bytes)?);
        Ok(())
    }
}

/// Reads the whole body, or says why not.
pub(super) async fn read(
    request: &mut Request<Incoming>,
    config: &ListenConfig,
    budget: &BodyBudget,
) -> Result<Whole, Problem> {
    let deadline = Instant::now() + config.body_timeout();
    let waits_to_be_asked = request.headers().contains_key(EXPECT);
    let body = request.body_mut();
    let max = config.body_bytes_max;
    let announced = body.size_hint().lower();
    let announced_too_much = announced > max as u64;
    let read = if announced_too_much {
        Err(too_large(max))
    } else {
        match timeout_at(deadline, collect(body, max, budget)).await {
            Ok(read) => read,
            Err(_) => return Err(timed_out(config.body_timeout())),
        }
    };
    if let Err(problem) = &read {
        // Nothing more comes, or nothing will come unless it is asked for.
        let silent = announced_too_much && waits_to_be_asked;
        if problem.kind != Kind::IncompleteBody && !silent {
            let _ = timeout_at(deadline, discard(body)).await;
        }
    }
    read
}

async fn collect(body: &mut Incoming, max: usize, budget: &BodyBudget) -> Result<Whole, Problem> {
    let mut share = budget.take(0)?;
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::new(Kind::IncompleteBody, error.to_string()))?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max {
            return Err(too_large(max));
        }
        share.merge(budget.take(data.len())?);
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            let expected = first.len() + data.len() + body.size_hint().lower() as usize;
            rest.reserve(expected.clamp(data.len(), FIRST_BYTES_MAX.max(first.len() + data.len())));
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.into() };
    Ok(Whole { bytes, share })
}

/// Lets a client that sends first and reads then get an answer that was decided by the headers
/// alone: drops what comes, within bounds. One that waits to be asked is not asked.
pub(super) async fn turn_away(request: &mut Request<Incoming>) {
    if !request.headers().contains_key(EXPECT) {
        let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, discard(request.body_mut())).await;
    }
}

/// Reads what is left of a body without keeping it, up to a bound.
async fn discard(body: &mut Incoming) {
    let mut discarded = 0;
    while discarded < DISCARD_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        discarded += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn too_large(max: usize) -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("a body may have at most {max} bytes"))
}

fn timed_out(timeout: Duration) -> Problem {
    let detail = format!("the body was not complete after {} ms", timeout.as_millis());
    Problem::new(Kind::BodyTimeout, detail)
}
