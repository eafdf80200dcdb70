//! The history that is asked about: what it is, how it is made, and that it is as it should be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use penstock_common::topic::Topic;
use tokio_postgres::Client as Database;

use super::QueryArgs;
use super::made::Made;
use crate::fleet::backlog::Backlog;
use crate::fleet::client::Client;
use crate::fleet::past::Past;
use crate::oracle::{rollups, serving};
use crate::stack::Stack;

const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
/// Between two values of the last day, and of the days before it.
pub(super) const EVERY: i64 = 10 * SECOND;
pub(super) const EVERY_BEFORE: i64 = MINUTE;
/// The devices with a past.
pub(super) const FLEET: &str = "past";
/// The group of some of them.
pub(super) const GROUP: &str = "some";
const PREPARED_WITHIN: Duration = Duration::from_secs(900);
const POLL_EVERY: Duration = Duration::from_millis(200);

/// What there is. Times in µs, on whole hours.
#[derive(Clone, Debug)]
pub(super) struct DataSet {
    pub(super) past: Past,
    /// From here on there are hours.
    pub(super) hours_from: i64,
    /// From here on there are minutes.
    pub(super) minutes_from: i64,
    /// From here on there are events.
    pub(super) raw_from: i64,
    /// Its end.
    pub(super) end: i64,
    /// The group's devices.
    pub(super) members: Vec<u32>,
}

impl DataSet {
    pub(super) fn plan(args: &QueryArgs, seed: u64) -> Self {
        let end = SystemClock.now().0.div_euclid(HOUR) * HOUR;
        let apart = args.devices / args.group;
        println!("seed {seed}");
        Self {
            past: Past { seed, devices: args.devices },
            hours_from: end - i64::from(args.days) * DAY,
            minutes_from: end - DAY,
            raw_from: end - i64::from(args.raw_hours) * HOUR,
            end,
            members: (0..args.group).map(|n| n * apart).collect(),
        }
    }

    /// How the core that makes it is set up: so that an hour of events becomes one file, or two,
    /// and nothing waits.
    pub(super) fn preparing(&self) -> Vec<String> {
        let of_an_hour = u64::from(self.past.devices) * (HOUR / EVERY) as u64;
        let set = [
            "raw.flush_interval_ms=4000",
            "compact.interval_ms=300",
            "compact.files_max=2",
            "rollup.provisional_delay_ms=1000",
            "rollup.merge_delay_ms=1000",
            "rollup.day_delay_ms=1000",
            "rollup.fleet_delay_ms=1000",
        ];
        let flush = format!("raw.flush_events={}", of_an_hour.div_ceil(2));
        set.map(String::from).into_iter().chain([flush]).collect()
    }

    /// Makes it, with the core `prepare`, which does not run before or after.
    pub(super) async fn make(&self, stack: &mut Stack, prepare: usize) -> anyhow::Result<Made> {
        let Past { seed, devices } = self.past;
        println!("writing the past of {devices} devices into the rollups");
        let dsn = stack.places().rollup_dsn;
        let number = |name: &str, value: i64| [format!("--{name}"), value.to_string()];
        let args = [
            ["--dsn".to_owned(), dsn.clone()],
            ["--fleet".to_owned(), FLEET.to_owned()],
            ["--seed".to_owned(), seed.to_string()],
            number("devices", devices.into()),
            number("hours-from", self.hours_from),
            number("minutes-from", self.minutes_from),
            number("until", self.raw_from),
            number("hours-every", EVERY_BEFORE),
            number("minutes-every", EVERY),
        ];
        let said = stack.program("rollup-past", &args.concat()).await?;
        let written = serde_json::from_str(&said).context("read what rollup-past wrote")?;
        println!("streaming the events of {} hours", (self.end - self.raw_from) / HOUR);
        let began = Instant::now();
        let rollups = rollups::connect(&dsn).await?;
        let catalog = rollups::connect(stack.catalog_dsn()).await?;
        stack.cores[prepare].start().await?;
        let events = self.stream(stack, prepare, &catalog, &rollups).await?;
        stack.cores[prepare].terminate().await?;
        let streamed_in = began.elapsed();
        // As autovacuum has long done where the data are not of the last minutes.
        for table in ["rollup_1m", "rollup_1h", "rollup_1d", "series"] {
            rollups.batch_execute(&format!("VACUUM (ANALYZE) rollup.{table}")).await?;
        }
        catalog.batch_execute("VACUUM (ANALYZE)").await?;
        let made = Made::weigh(written, (events, streamed_in), &catalog, &rollups).await?;
        ensure!(made.rows_stored() == events, "{} of {events} events stored", made.rows_stored());
        Ok(made)
    }

    /// Hour by hour, so that files hold an hour each, as they do where time goes by.
    async fn stream(
        &self,
        stack: &mut Stack,
        prepare: usize,
        catalog: &Database,
        rollups: &Database,
    ) -> anyhow::Result<u64> {
        let topic = Topic::RawEvents.name(&stack.topic_prefix);
        let mut events = 0;
        for hour in (self.raw_from..self.end).step_by(HOUR as usize) {
            for schema_version in 1..=3 {
                let (first_device, devices) = self.past.share(schema_version);
                let backlog = Backlog {
                    // Ids must not come again.
                    seed: self.past.seed ^ hour.unsigned_abs(),
                    fleet: FLEET.into(),
                    gateway: format!("gw-past-{schema_version}"),
                    first_device,
                    devices,
                    schema_version,
                    from: UnixMicros(hour),
                    events_each: (HOUR / EVERY) as u32,
                    interval_micros: EVERY,
                };
                let places = stack.places();
                let writing = tokio::task::spawn_blocking(move || {
                    backlog.write(&places.kafka, &places.topic_prefix)
                });
                events += writing.await??.events;
            }
            let wanted = i64::try_from(events)?;
            let core = &mut stack.cores[prepare];
            until(core, "the raw writer has caught up", async || {
                Ok(position(catalog, "consumer_position", "raw", &topic).await? >= wanted)
            })
            .await?;
        }
        let wanted = i64::try_from(events)?;
        let core = &mut stack.cores[prepare];
        until(core, "the rollups have caught up", async || {
            let position = position(rollups, "rollup.consumer_position", "rollup", &topic).await?;
            Ok(position >= wanted && self.is_merged(rollups).await?)
        })
        .await?;
        let staged = "SELECT count(*) FROM raw_file \
                      WHERE state = 'published' AND kind = 'raw' AND NOT compacted";
        until(core, "compaction is done", async || Ok(number(catalog, staged).await? < 2)).await?;
        Ok(events)
    }

    /// Whether the fleet's rows of every minute and hour hold all its devices.
    async fn is_merged(&self, rollups: &Database) -> anyhow::Result<bool> {
        let sql = "SELECT count(*), coalesce(sum(count), 0)::int8 FROM rollup.{table} \
                   JOIN rollup.series USING (series_id) \
                   WHERE fleet = $1 AND device = '' AND metric = 'cpu_temp' \
                     AND bucket >= to_timestamp($2::int8 / 1000000)";
        for (table, width) in [("rollup_1m", MINUTE), ("rollup_1h", HOUR)] {
            let sql = sql.replace("{table}", table);
            let row = rollups.query_one(&sql, &[&FLEET, &self.raw_from]).await?;
            let (rows, values): (i64, i64) = (row.get(0), row.get(1));
            let span = self.end - self.raw_from;
            if rows != span / width || values != span / EVERY * i64::from(self.past.devices) {
                return Ok(false);
            }
        }
        let hours = "SELECT count(*) FROM rollup.merge_mark \
                     WHERE fleet = 'past' AND device <> '' AND level = '1h'";
        Ok(number(rollups, hours).await? == 0)
    }

    /// Brings the group in.
    pub(super) async fn make_group(&self, stack: &Stack) -> anyhow::Result<()> {
        let header = "group,fleet,device\n".to_owned();
        let line = |number: &u32| format!("{GROUP},{FLEET},{}\n", Past::device_id(*number));
        let csv: String = std::iter::once(header).chain(self.members.iter().map(line)).collect();
        let file = stack.dir.join("groups.csv");
        std::fs::write(&file, csv).with_context(|| format!("write {}", file.display()))?;
        stack.core_command(&["groups", "import", &file.display().to_string()]).await?;
        Ok(())
    }

    /// How many of these devices have a metric.
    pub(super) fn having(&self, devices: impl Iterator<Item = u32>, metric: &str) -> u64 {
        devices.filter(|number| self.past.line_of(*number, metric).is_some()).count() as u64
    }

    /// How many values a device has in a window.
    pub(super) const fn values_of(&self, bucket: i64, width: i64) -> u64 {
        let every = if bucket < self.minutes_from { EVERY_BEFORE } else { EVERY };
        (width / every).unsigned_abs()
    }

    /// Compares some answers about what was written with the values that went in; says how many
    /// points that were.
    pub(super) async fn verify(&self, client: &Client) -> anyhow::Result<usize> {
        let some = [0, self.past.devices / 2, self.past.devices - 1];
        let mut points = 0;
        for number in some {
            let device = Past::device_id(number);
            let whose = format!("fleet={FLEET}&device={device}");
            for metric in ["cpu_temp", "vibration_rms"] {
                let range = (self.minutes_from, self.raw_from);
                points += self.compare(client, &whose, &[number], metric, range, MINUTE).await?;
            }
        }
        let group = format!("group={GROUP}");
        let range = (self.minutes_from, self.raw_from);
        points += self.compare(client, &group, &self.members, "bearing_temp", range, HOUR).await?;
        let all: Vec<u32> = (0..self.past.devices).collect();
        let range = (self.minutes_from - 2 * HOUR, self.minutes_from + HOUR);
        let fleet = format!("fleet={FLEET}");
        points += self.compare(client, &fleet, &all, "humidity", range, HOUR).await?;
        Ok(points)
    }

    async fn compare(
        &self,
        client: &Client,
        whose: &str,
        devices: &[u32],
        metric: &str,
        (from, to): (i64, i64),
        width: i64,
    ) -> anyhow::Result<usize> {
        let lines = devices.iter().filter_map(|number| self.past.line_of(*number, metric));
        let lines: Vec<_> = lines.collect();
        let values = |bucket: i64| -> Vec<f64> {
            let every = width / i64::try_from(self.values_of(bucket, width)).unwrap_or(1);
            lines.iter().flat_map(|line| line.values((bucket, bucket + width), every)).collect()
        };
        let wanted: BTreeMap<i64, Vec<f64>> =
            (from..to).step_by(width as usize).map(|bucket| (bucket, values(bucket))).collect();
        let resolution = if width == MINUTE { "1m" } else { "1h" };
        let (from, to) = (UnixMicros(from).to_rfc3339(), UnixMicros(to).to_rfc3339());
        let path = format!(
            "/v1/series?{whose}&metric={metric}&resolution={resolution}&from={from}&to={to}"
        );
        serving::check_windows(client, &path, &wanted, width).await
    }
}

/// Waits until something is done by a core that runs.
async fn until(
    core: &mut crate::stack::process::Process,
    what: &str,
    done: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    // The tables are made by the core at its start.
    while !done().await.unwrap_or(false) {
        core.check_alive()?;
        if began.elapsed() > PREPARED_WITHIN {
            done().await.with_context(|| format!("wait until {what}"))?;
            bail!("{PREPARED_WITHIN:?} and not yet: {what}\n{}", core.log_tail());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

async fn position(
    database: &Database,
    table: &str,
    role: &str,
    topic: &str,
) -> anyhow::Result<i64> {
    let sql = format!(
        "SELECT coalesce(sum(next_offset), 0)::int8 FROM {table} WHERE role = $1 AND topic = $2"
    );
    Ok(database.query_one(&sql, &[&role, &topic]).await?.get(0))
}

pub(super) async fn number(database: &Database, sql: &str) -> anyhow::Result<i64> {
    Ok(database.query_one(sql, &[]).await.with_context(|| sql.to_owned())?.get(0))
}
