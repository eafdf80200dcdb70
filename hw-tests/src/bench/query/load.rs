//! Asks questions at their time, whatever became of those before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use hdrhistogram::Histogram;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Held};
use super::question::{Kind, Question, Questions};
use crate::fleet::client::{CallError, Client, Response};

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Questions a second.
    pub(super) rate: f64,
    pub(super) lasts: Duration,
}

/// What was asked of a kind, and what came.
pub(super) struct Figures {
    pub(super) asked: u64,
    /// From the due time to the last byte, µs.
    pub(super) latency: Histogram<u64>,
    pub(super) rows: u64,
    /// Of the bodies as they came.
    pub(super) bytes: u64,
    /// Of the bodies without compression.
    pub(super) plain_bytes: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

/// What a load found.
pub(super) struct Measured {
    pub(super) kinds: BTreeMap<Kind, Figures>,
    /// From the first due time to the last answer.
    pub(super) took: Duration,
    /// How long after its time a question was sent off, µs.
    pub(super) behind: Histogram<u64>,
}

/// An answer that is still to be read.
type Got = (Question, Duration, Result<Response, CallError>);

impl Figures {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            asked: 0,
            latency: histogram()?,
            rows: 0,
            bytes: 0,
            plain_bytes: 0,
            errors: 0,
            first_error: None,
        })
    }

    fn add(&mut self, (question, took, got): &Got) {
        self.asked += 1;
        self.latency.saturating_record(micros(*took));
        let checked = got.as_ref().map_err(|error| anyhow!("{error}")).and_then(|response| {
            self.bytes += response.body.len() as u64;
            answer::check(question, response)
        });
        match checked {
            Ok(Held { rows, bytes }) => {
                self.rows += rows as u64;
                self.plain_bytes += bytes as u64;
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| format!("{}: {error:#}", question.path));
            }
        }
    }
}

impl Load {
    /// Runs it; answers are read on a thread of their own, so that reading delays no question.
    pub(super) async fn run(
        self,
        client: &Arc<Client>,
        questions: &mut Questions,
        stop: &CancellationToken,
    ) -> anyhow::Result<Measured> {
        let (answers, to_read) = mpsc::channel::<Got>();
        let reading = std::thread::spawn(move || read(&to_read));
        let began = Instant::now();
        let mut asking = JoinSet::new();
        let slot = Duration::from_secs_f64(1.0 / self.rate);
        let slots = (self.lasts.as_secs_f64() * self.rate).round() as u32;
        for number in 0..slots {
            // Somewhere in its slot, so that nothing runs in step with it.
            let due = began + slot * number + slot.mul_f64(questions.rng.random());
            let question = questions.draw();
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(due) => {}
            }
            let (client, answers) = (Arc::clone(client), answers.clone());
            asking.spawn(async move {
                let behind = due.elapsed();
                let got = client.get(&question.path).await;
                // The reader ends only after us.
                let _ = answers.send((question, due.elapsed(), got));
                behind
            });
        }
        let mut behind = histogram()?;
        while let Some(done) = asking.join_next().await {
            behind.saturating_record(micros(done.context("a task that asks")?));
        }
        let took = began.elapsed();
        drop(answers);
        let kinds = tokio::task::spawn_blocking(move || reading.join()).await?;
        let kinds = kinds.map_err(|_| anyhow!("the thread that reads answers panicked"))??;
        Ok(Measured { kinds, took, behind })
    }
}

fn read(answers: &mpsc::Receiver<Got>) -> anyhow::Result<BTreeMap<Kind, Figures>> {
    let mut kinds = BTreeMap::new();
    for kind in Kind::MIX {
        kinds.insert(kind, Figures::new()?);
    }
    for got in answers {
        if let Some(figures) = kinds.get_mut(&got.0.kind) {
            figures.add(&got);
        }
    }
    Ok(kinds)
}

/// Asks one after the other, so many of a kind.
pub(super) async fn alone(
    client: &Client,
    questions: &mut Questions,
    kind: Kind,
    tries: usize,
) -> anyhow::Result<Figures> {
    let mut figures = Figures::new()?;
    for _ in 0..tries {
        let question = questions.of(kind);
        let began = Instant::now();
        let got = client.get(&question.path).await;
        figures.add(&(question, began.elapsed(), got));
    }
    ensure!(figures.errors == 0, "{}", figures.first_error.unwrap_or_default());
    Ok(figures)
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000, 3).context("a histogram")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}
