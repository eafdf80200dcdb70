//! Takes marks, reads raw, puts the rows right; again and again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use penstock_common::clock::Clock;
use penstock_common::retry::Backoff;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::RebuildConfig;
use super::metrics::RebuildMetrics;
use super::read::{Device, Failure, Question, devices_in};
use crate::raw;
use crate::rollup::canonical::{StoredCopy, minutes};
use crate::rollup::counted::CountedMetrics;
use crate::rollup::window::{DAY, HOUR, MINUTE, hour_of};
use crate::store::catalog::Catalog;
use crate::store::object::Objects;
use crate::store::rollup::RollupStore;
use crate::store::rollup::apply::{Applied, NewMinute, Rebuilt};
use crate::store::rollup::rebuild::{Leased, RawPositions, Ready, StoredMinute};
use crate::store::rollup::request::NextHour;

/// Requested hours of devices that wait at most; a request goes on when there are fewer.
const REQUESTED_MAX: i64 = 20_000;
/// How long marks are left alone whose rows cover more than raw has stored.
const BEHIND_MS: u64 = 2_000;
/// The same after a failure.
const FAILED_MS: u64 = 5_000;
/// What is under way may take so long when the process is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How often the backlog is counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// A worker. Any number of them may run.
#[derive(Clone)]
pub struct RebuildWorker {
    /// Marks and rows.
    pub rollups: RollupStore,
    /// The raw files.
    pub catalog: Catalog,
    /// What is in them.
    pub objects: Objects,
    /// Which metrics count.
    pub counted: CountedMetrics,
    /// How it works.
    pub config: RebuildConfig,
    /// The stream's lateness horizon, µs.
    pub lateness: i64,
    /// Raw events older than this many days may be deleted: their hours stay as they are.
    pub late_days_max: u32,
    /// The full name of `raw-events`.
    pub events_topic: String,
    /// The full name of `replay-events`.
    pub replay_topic: String,
    /// Says what is too old.
    pub clock: Arc<dyn Clock>,
    /// Counted here.
    pub metrics: RebuildMetrics,
}

/// An hour's devices, all of one lease.
struct Work {
    hour: i64,
    lease: Uuid,
    marks: Vec<Leased>,
    stored: Vec<StoredMinute>,
}

impl RebuildWorker {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut counted: Option<Instant> = None;
        while !stop.is_cancelled() {
            let work = async {
                if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                    self.count().await?;
                    counted = Some(Instant::now());
                }
                self.round().await
            };
            tokio::pin!(work);
            let done = tokio::select! {
                done = &mut work => done,
                // Leases that are dropped would have to run out.
                () = stop.cancelled() => {
                    drop(tokio::time::timeout(DRAIN, work).await);
                    return;
                }
            };
            let pause = match done {
                Ok(worked) => {
                    backoff.reset();
                    if worked > 0 {
                        Duration::ZERO
                    } else {
                        Duration::from_millis(self.config.poll_ms)
                    }
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    self.metrics.failures.inc();
                    tracing::warn!(error = format!("{error:#}"), ?delay, "can't rebuild now");
                    delay
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn count(&self) -> anyhow::Result<()> {
        let backlog = self.rollups.rebuild_backlog().await?;
        self.metrics.marks.set(backlog.waiting);
        self.metrics.parked.set(backlog.parked);
        self.metrics.oldest_age.set(backlog.oldest_s);
        Ok(())
    }

    /// Does what can be done now; says how many hours of devices that were.
    ///
    /// # Errors
    /// When a store is away; what was taken is given back then, or its lease runs out.
    pub async fn round(&self) -> anyhow::Result<usize> {
        let days = i64::from(self.late_days_max);
        let oldest = hour_of(self.clock.now().0.saturating_sub(days * DAY));
        self.metrics.refused.inc_by(self.rollups.refuse_before(oldest).await?);
        self.expand(oldest).await.context("mark what was asked for")?;
        let ready = Ready {
            raw: self.raw_positions().await?,
            delay_ms: self.config.delay_ms,
            settle_ms: self.config.settle_ms,
            lease_ms: self.config.lease_ms,
        };
        let limit = i64::try_from(self.config.parallel).unwrap_or(i64::MAX);
        let hours = self.rollups.rebuild_hours(&ready, limit).await?;
        let mut working = stream::iter(hours)
            .map(|hour| self.hour(&ready, hour))
            .buffer_unordered(self.config.parallel);
        let (mut worked, mut failed) = (0, None);
        while let Some(done) = working.next().await {
            match done {
                Ok(devices) => worked += devices,
                Err(error) => failed = Some(error),
            }
        }
        self.rollups.finish_requests().await?;
        failed.map_or(Ok(worked), Err)
    }

    /// Marks the next hour that somebody asked for.
    async fn expand(&self, oldest: i64) -> anyhow::Result<()> {
        let Some(next) = self.rollups.next_hour(REQUESTED_MAX).await? else { return Ok(()) };
        if next.hour < oldest {
            let refused = self.rollups.refuse_hours(&next, oldest).await?;
            self.metrics.refused.inc_by(refused);
            return Ok(());
        }
        let NextHour { hour, whose, .. } = &next;
        let mut devices: HashSet<Device> =
            self.rollups.devices_with_rows(*hour, whose).await?.into_iter().collect();
        let head = self.catalog.head().await?;
        let files = self.catalog.files_for(*hour, hour + HOUR, head).await?;
        let (fleet, device) = (whose.fleet.as_deref(), whose.device.as_deref());
        devices.extend(devices_in(&self.objects, &files, *hour, fleet, device).await?);
        let devices: Vec<Device> = devices.into_iter().collect();
        self.rollups.mark_hour(&next, &devices).await?;
        Ok(())
    }

    async fn raw_positions(&self) -> anyhow::Result<RawPositions> {
        let mut positions = RawPositions::new();
        for position in self.catalog.positions().of_role(raw::ROLE).await? {
            let next = positions.entry(position.partition).or_insert((0, 0));
            if position.topic == self.events_topic {
                next.0 = position.next_offset;
            } else if position.topic == self.replay_topic {
                next.1 = position.next_offset;
            }
        }
        Ok(positions)
    }

    /// Works on an hour; says on how many devices.
    async fn hour(&self, ready: &Ready, hour: i64) -> anyhow::Result<usize> {
        let lease = Uuid::new_v4();
        let limit = i64::try_from(self.config.devices_max).unwrap_or(i64::MAX);
        let marks = self.rollups.lease(ready, hour, limit, lease).await?;
        if marks.is_empty() {
            return Ok(0);
        }
        let started = Instant::now();
        let done = self.leased(ready, hour, lease, &marks).await;
        self.metrics.seconds.observe(started.elapsed().as_secs_f64());
        if done.is_err() {
            // What a part of it has done is no longer under this lease.
            let marks: Vec<&Leased> = marks.iter().collect();
            drop(self.rollups.release(hour, lease, &marks, FAILED_MS).await);
        }
        done
    }

    async fn leased(
        &self,
        ready: &Ready,
        hour: i64,
        lease: Uuid,
        marks: &[Leased],
    ) -> anyhow::Result<usize> {
        let stored = self.rollups.minutes_of(hour, marks).await?;
        let behind = behind(&ready.raw, marks, &stored);
        if !behind.is_empty() {
            let marks: Vec<&Leased> = behind.iter().map(|device| &marks[*device]).collect();
            self.rollups.release(hour, lease, &marks, BEHIND_MS).await?;
        }
        let keep: Vec<usize> = (0..marks.len()).filter(|n| !behind.contains(n)).collect();
        if keep.is_empty() {
            return Ok(0);
        }
        let work = select(hour, lease, marks, stored, &keep);
        let count = work.marks.len();
        self.work(work).await?;
        Ok(count)
    }

    /// Rebuilds; where it is too much for one time, one half after the other.
    fn work(&self, work: Work) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            let poison = self.rollups.poison().await?;
            let devices: Vec<Device> =
                work.marks.iter().map(|m| (Arc::clone(&m.fleet), Arc::clone(&m.device))).collect();
            let alone = devices.len() == 1;
            let question = Question {
                objects: &self.objects,
                hour: work.hour,
                lateness: self.lateness,
                devices: &devices,
                counted: &self.counted,
                poison: &poison,
                // One device has to be done in one go.
                copies_max: if alone { usize::MAX } else { self.config.events_max },
            };
            // After the positions that `ready` was made of: these files hold what is before them.
            let head = self.catalog.head().await?;
            let files = self.catalog.files_for(question.from(), question.to(), head).await?;
            let copies = match question.copies(&files).await {
                Err(Failure::TooMany) => {
                    let Work { hour, lease, marks, stored } = work;
                    let half = marks.len() / 2;
                    let (low, high): (Vec<usize>, Vec<usize>) =
                        (0..marks.len()).partition(|n| *n < half);
                    self.work(select(hour, lease, &marks, stored.clone(), &low)).await?;
                    return self.work(select(hour, lease, &marks, stored, &high)).await;
                }
                copies => copies?,
            };
            self.metrics.copies.inc_by(copies.iter().map(Vec::len).sum::<usize>() as u64);
            let (counted, lateness) = (self.counted.clone(), self.lateness);
            let rebuilt =
                tokio::task::spawn_blocking(move || compare(work, copies, &counted, lateness));
            let rebuilt = rebuilt.await.context("compute on another thread")?;
            let Applied { changed, deleted, .. } = self.rollups.apply(&rebuilt).await?;
            self.metrics.rebuilt.inc_by(rebuilt.marks.len() as u64);
            self.metrics.rows_changed.inc_by(changed as u64);
            self.metrics.rows_deleted.inc_by(deleted as u64);
            let (hour, devices) = (rebuilt.hour, rebuilt.marks.len());
            tracing::info!(hour, devices, changed, deleted, "rebuilt");
            Ok(())
        }
        .boxed()
    }
}

/// The devices with closed rows that cover more than raw has stored.
fn behind(raw: &RawPositions, marks: &[Leased], stored: &[StoredMinute]) -> HashSet<usize> {
    let is_behind = |row: &&StoredMinute| {
        let mark = &marks[row.device];
        let next = mark.partition.and_then(|partition| raw.get(&partition)).map_or(0, |n| n.0);
        row.minute + MINUTE <= mark.through() && row.last_offset >= next
    };
    stored.iter().filter(is_behind).map(|row| row.device).collect()
}

/// The work on some of the devices.
fn select(
    hour: i64,
    lease: Uuid,
    marks: &[Leased],
    stored: Vec<StoredMinute>,
    keep: &[usize],
) -> Work {
    let places: HashMap<usize, usize> =
        keep.iter().enumerate().map(|(new, old)| (*old, new)).collect();
    let place = |mut row: StoredMinute| {
        row.device = *places.get(&row.device)?;
        Some(row)
    };
    let stored = stored.into_iter().filter_map(place).collect();
    Work { hour, lease, marks: keep.iter().map(|n| marks[*n].clone()).collect(), stored }
}

/// What is to be written: the closed minutes of the hour that should be other than they are. Pure.
fn compare(
    work: Work,
    copies: Vec<Vec<StoredCopy>>,
    counted: &CountedMetrics,
    lateness: i64,
) -> Rebuilt {
    let Work { hour, lease, marks, stored } = work;
    let mut there: BTreeMap<(usize, i64, &str), &StoredMinute> =
        stored.iter().map(|row| ((row.device, row.minute, &*row.metric), row)).collect();
    let mut changed = Vec::new();
    for (device, copies) in copies.into_iter().enumerate() {
        let through = marks[device].through();
        for ((minute, metric), aggregate) in minutes(copies, lateness) {
            if !(hour..hour + HOUR).contains(&minute) || minute + MINUTE > through {
                continue;
            }
            let metric = counted.name(metric);
            let same = there
                .remove(&(device, minute, &**metric))
                .is_some_and(|row| row.sketch == aggregate.encode());
            if !same {
                let metric = metric.to_string();
                changed.push(NewMinute { device, metric, minute, aggregate });
            }
        }
    }
    let is_closed = |row: &&&StoredMinute| row.minute + MINUTE <= marks[row.device].through();
    let gone = there.values().filter(is_closed).map(|row| (*row).clone()).collect();
    Rebuilt { hour, lease, marks, changed, gone }
}
