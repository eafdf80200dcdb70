//! The rollups in the database against the naive ones: waits until they have settled, then
//! compares every row of every width, of every device and of the fleet.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use penstock_common::topic::Topic;
use tokio_postgres::{Client, NoTls, Row};

use super::drain::Progress;
use super::naive::{self, Figures};
use super::truth::Truth;
use super::{Places, topics};

const POLL_EVERY: Duration = Duration::from_millis(250);
const EXAMPLES_MAX: usize = 5;
const MINUTE: i64 = 60_000_000;

/// The tables and the length of their windows, µs.
pub const WIDTHS: [(&str, i64); 3] =
    [("rollup_1m", MINUTE), ("rollup_1h", 60 * MINUTE), ("rollup_1d", 24 * 60 * MINUTE)];

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollupVerdict {
    /// Rows that there must be, by table.
    pub expected: BTreeMap<&'static str, u64>,
    /// Rows that there must be and are not.
    pub missing: u64,
    /// Rows that there must not be.
    pub spurious: u64,
    /// Rows with a wrong figure.
    pub wrong: u64,
    /// A few of them.
    pub examples: Vec<String>,
}

impl RollupVerdict {
    /// Fails unless every row is there and right.
    ///
    /// # Errors
    /// With the table when one is not.
    pub fn check(&self) -> anyhow::Result<()> {
        let faults = self.missing + self.spurious + self.wrong;
        anyhow::ensure!(faults == 0, "the rollups are not right\n{self}");
        anyhow::ensure!(self.expected.values().sum::<u64>() > 0, "there were no rollups to check");
        Ok(())
    }

    fn example(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

impl fmt::Display for RollupVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = self.expected.iter().map(|(table, rows)| format!("{rows} {table}"));
        let expected = expected.collect::<Vec<_>>().join(", ");
        let Self { missing, spurious, wrong, .. } = self;
        write!(
            f,
            "rollup rows: {expected}; missing {missing}, spurious {spurious}, wrong {wrong}"
        )?;
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

/// Waits until the rollups have settled, then compares. The spools and the raw writer must have
/// drained.
///
/// # Errors
/// When something can't be read, or nothing moves any more before all has settled.
pub async fn judge(places: &Places, fleet: &str, truth: &Truth) -> anyhow::Result<RollupVerdict> {
    let client = connect(&places.rollup_dsn).await?;
    settle(places, fleet, truth, &client).await.context("wait until the rollups have settled")?;
    let mut verdict = RollupVerdict::default();
    for (table, length) in WIDTHS {
        compare(&client, fleet, truth, (table, length), &mut verdict).await?;
    }
    Ok(verdict)
}

/// A connection; it ends with the client.
///
/// # Errors
/// When the database can't be reached.
pub async fn connect(dsn: &str) -> anyhow::Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(dsn, NoTls).await.context("connect to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

/// One row, of (fleet, device, metric).
///
/// # Errors
/// When the database does not answer.
pub async fn row(
    client: &Client,
    table: &str,
    (fleet, device, metric): (&str, &str, &str),
    bucket: i64,
) -> anyhow::Result<Option<Figures>> {
    let sql = format!(
        "SELECT count, sum, min, max, p50, p95 \
         FROM rollup.{table} JOIN rollup.series USING (series_id) \
         WHERE fleet = $1 AND device = $2 AND metric = $3 \
           AND bucket = to_timestamp($4::bigint / 1000000.0)"
    );
    let row = client.query_opt(&sql, &[&fleet, &device, &metric, &bucket]).await;
    Ok(row.with_context(|| format!("read {table}"))?.as_ref().map(figures))
}

async fn settle(
    places: &Places,
    fleet: &str,
    truth: &Truth,
    client: &Client,
) -> anyhow::Result<()> {
    let topic = Topic::RawEvents.name(&places.topic_prefix);
    let ends = tokio::task::block_in_place(|| topics::end_offsets(&places.kafka, &topic))?;
    let mut progress = Progress::new();
    loop {
        let left = Left::count(client, &topic, fleet, &ends, truth).await?;
        if left == Left::default() {
            return Ok(());
        }
        progress.at(left.sum(), || format!("{left:?}"))?;
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// What is still to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    records: i64,
    devices_open: i64,
    rebuild_marks: i64,
    merge_marks: i64,
}

impl Left {
    const fn sum(&self) -> u64 {
        (self.records + self.devices_open + self.rebuild_marks + self.merge_marks).unsigned_abs()
    }

    async fn count(
        client: &Client,
        topic: &str,
        fleet: &str,
        ends: &HashMap<i32, i64>,
        truth: &Truth,
    ) -> anyhow::Result<Self> {
        let positions: HashMap<i32, i64> = client
            .query(
                "SELECT \"partition\", next_offset FROM rollup.consumer_position \
                 WHERE role = 'rollup' AND topic = $1",
                &[&topic],
            )
            .await?
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let behind = |(partition, end): (&i32, &i64)| {
            (end - positions.get(partition).copied().unwrap_or(0)).max(0)
        };
        let closed: HashMap<String, i64> = client
            .query(
                "SELECT device, closed_through FROM rollup.device_state WHERE fleet = $1",
                &[&fleet],
            )
            .await?
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let is_open = |(device, events): &(&String, &HashMap<_, super::truth::TrueEvent>)| {
            let last = events.values().map(|event| event.effective_time.0).max();
            last.is_some_and(|last| closed.get(*device).is_none_or(|through| *through <= last))
        };
        let count = async |marks: &str| {
            let row = client.query_one(&format!("SELECT count(*) FROM rollup.{marks}"), &[]).await;
            row.map(|row| row.get::<_, i64>(0)).with_context(|| format!("count {marks}"))
        };
        Ok(Self {
            records: ends.iter().map(behind).sum(),
            devices_open: truth.events.iter().filter(is_open).count() as i64,
            // A parked one has been worked on, and waits for its device to be heard of again.
            rebuild_marks: count("rebuild_mark WHERE NOT parked").await?,
            merge_marks: count("merge_mark").await?,
        })
    }
}

async fn compare(
    client: &Client,
    fleet: &str,
    truth: &Truth,
    (table, length): (&'static str, i64),
    verdict: &mut RollupVerdict,
) -> anyhow::Result<()> {
    let mut windows = truth.windows(length);
    let expected = windows.values().map(|buckets| buckets.len() as u64).sum();
    verdict.expected.insert(table, expected);
    let sql = format!(
        "SELECT count, sum, min, max, p50, p95, \
                device, metric, (extract(epoch FROM bucket) * 1000000)::bigint \
         FROM rollup.{table} JOIN rollup.series USING (series_id) WHERE fleet = $1"
    );
    for row in client.query(&sql, &[&fleet]).await.with_context(|| format!("read {table}"))? {
        let (device, metric): (String, String) = (row.get(6), row.get(7));
        let bucket: i64 = row.get(8);
        let name = format!("{table} {device:?} {metric} {bucket}");
        let values = windows.get_mut(&(device, metric)).and_then(|series| series.remove(&bucket));
        let Some(values) = values else {
            verdict.spurious += 1;
            verdict.example(format!("{name}: spurious, {:?}", figures(&row)));
            continue;
        };
        let Some(truth) = naive::figures(&values) else {
            bail!("{name}: the naive figures of {} values can't be computed", values.len());
        };
        let faults = truth.faults(&figures(&row));
        if !faults.is_empty() {
            verdict.wrong += 1;
            verdict.example(format!("{name}: {}", faults.join(", ")));
        }
    }
    for ((device, metric), buckets) in windows {
        for (bucket, values) in buckets {
            verdict.missing += 1;
            let what = format!("missing, of {} values", values.len());
            verdict.example(format!("{table} {device:?} {metric} {bucket}: {what}"));
        }
    }
    Ok(())
}

fn figures(row: &Row) -> Figures {
    Figures {
        count: row.get(0),
        sum: row.get(1),
        min: row.get(2),
        max: row.get(3),
        p50: row.get(4),
        p95: row.get(5),
    }
}
