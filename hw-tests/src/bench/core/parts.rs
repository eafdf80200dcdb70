//! Runs one part after the other and measures it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use penstock_common::event::UnixMicros;
use penstock_common::topic::Topic;
use tokio_postgres::Client;

use super::report::{Compaction, Cost, Raw, Rebuild, Rollup};
use crate::oracle::{metrics_of, rollups};
use crate::stack::Stack;
use crate::stack::process::Process;

const POLL_EVERY: Duration = Duration::from_millis(200);
/// A part that has not come to its end by then never will.
const PART_TIMEOUT: Duration = Duration::from_secs(1_800);

/// The cores in the order of the configuration.
const RAW: usize = 0;
const COMPACT: usize = 1;
const ROLLUP: usize = 2;
const REBUILD: usize = 3;

pub(super) struct Parts {
    catalog: Client,
    rollups: Client,
    raw_topic: String,
    events: i64,
}

impl Parts {
    pub(super) async fn connect(stack: &Stack, events: u64) -> anyhow::Result<Self> {
        Ok(Self {
            catalog: rollups::connect(stack.catalog_dsn()).await?,
            rollups: rollups::connect(&stack.places().rollup_dsn).await?,
            raw_topic: Topic::RawEvents.name(&stack.topic_prefix),
            events: i64::try_from(events)?,
        })
    }

    pub(super) async fn raw(&mut self, stack: &mut Stack) -> anyhow::Result<Raw> {
        let core = &mut stack.cores[RAW];
        let cost = self.run_until(core, async |parts| parts.raw_is_done().await).await?;
        core.terminate().await?;
        let sql = "SELECT count(*), sum(rows)::bigint, sum(bytes)::bigint FROM raw_file \
                   WHERE state = 'published' AND kind = 'raw'";
        let row = self.catalog.query_one(sql, &[]).await?;
        let (files, rows, bytes): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        Ok(Raw { cost, files, rows, bytes })
    }

    pub(super) async fn compaction(&mut self, stack: &mut Stack) -> anyhow::Result<Compaction> {
        let core = &mut stack.cores[COMPACT];
        // Files of an hour that is still open wait for more of their kind.
        let staged = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM raw_file \
                      WHERE state = 'published' AND kind = 'raw' AND NOT compacted \
                      GROUP BY append_hour) of_hour";
        let cost = self
            .run_until(core, async |parts| Ok(number(&parts.catalog, staged).await? < 6))
            .await?;
        core.terminate().await?;
        let sql = "SELECT coalesce(sum(rows), 0)::bigint, coalesce(sum(bytes), 0)::bigint \
                   FROM raw_file WHERE state = 'published' AND kind = 'raw' AND compacted";
        let row = self.catalog.query_one(sql, &[]).await?;
        Ok(Compaction { cost, rows: row.get(0), bytes: row.get(1) })
    }

    pub(super) async fn rollup(&mut self, stack: &mut Stack) -> anyhow::Result<Rollup> {
        let core = &mut stack.cores[ROLLUP];
        let mut cost = self.run_until(core, async |parts| parts.rollup_is_done().await).await?;
        let rows = metrics_of(core, "penstock_rollup_rows_total").await? as i64;
        let state_bytes = metrics_of(core, "penstock_rollup_memory_bytes").await? as u64;
        let devices = metrics_of(core, "penstock_rollup_devices").await? as u64;
        // Minutes that are still open are written a little later.
        let counted = async |parts: &Self| Ok(parts.counted().await? == parts.events);
        self.wait(core, counted).await?;
        let merged = metrics_of(core, "penstock_merge_rows_total").await.unwrap_or(0.0) as i64;
        cost.memory_bytes_max = core.memory_bytes_max();
        core.terminate().await?;
        let size = "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint \
                    FROM pg_inherits WHERE inhparent = 'rollup.rollup_1m'::regclass";
        let stored = number(&self.rollups, "SELECT count(*) FROM rollup.rollup_1m").await?;
        let bytes = number(&self.rollups, size).await?;
        Ok(Rollup { cost, merged, rows, stored, bytes, state_bytes, devices })
    }

    pub(super) async fn rebuild(
        &mut self,
        stack: &mut Stack,
        fleet: &str,
        (from, to): (i64, i64),
    ) -> anyhow::Result<Rebuild> {
        let core = &mut stack.cores[REBUILD];
        core.start().await?;
        let before = core.usage();
        let began = Instant::now();
        let (from, to) = (UnixMicros(from).to_rfc3339(), UnixMicros(to).to_rfc3339());
        let said = stack
            .core_command(&["rebuild", "--fleet", fleet, "--from", &from, "--to", &to, "--wait"])
            .await?;
        let core = &mut stack.cores[REBUILD];
        let cost = Cost {
            wall: began.elapsed(),
            cpu: core.usage().since(before).cpu,
            memory_bytes_max: core.memory_bytes_max(),
        };
        core.terminate().await?;
        ensure!(said.contains(" 0 rows changed, 0 deleted"), "a rebuild changed rows: {said}");
        Ok(Rebuild { cost })
    }

    /// Everything at once, until raw and the rollups have caught up.
    pub(super) async fn all(&mut self, stack: &mut Stack) -> anyhow::Result<Cost> {
        let core = &mut stack.cores[0];
        let done =
            async |parts: &Self| Ok(parts.raw_is_done().await? && parts.rollup_is_done().await?);
        let cost = self.run_until(core, done).await?;
        core.terminate().await?;
        Ok(cost)
    }

    async fn raw_is_done(&self) -> anyhow::Result<bool> {
        let sql = "SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_position \
                   WHERE role = 'raw' AND topic = $1";
        let row = self.catalog.query_one(sql, &[&self.raw_topic]).await?;
        Ok(row.get::<_, i64>(0) >= self.events)
    }

    async fn rollup_is_done(&self) -> anyhow::Result<bool> {
        let sql = "SELECT coalesce(sum(next_offset), 0)::bigint FROM rollup.consumer_position \
                   WHERE role = 'rollup' AND topic = $1";
        let row = self.rollups.query_one(sql, &[&self.raw_topic]).await?;
        Ok(row.get::<_, i64>(0) >= self.events)
    }

    /// Events that the minute rows of devices count: each has one value of this metric.
    async fn counted(&self) -> anyhow::Result<i64> {
        let sql = "SELECT coalesce(sum(count), 0)::bigint FROM rollup.rollup_1m \
                   JOIN rollup.series USING (series_id) WHERE device <> '' AND metric = 'cpu_temp'";
        number(&self.rollups, sql).await
    }

    async fn run_until(
        &self,
        core: &mut Process,
        done: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Cost> {
        let began = Instant::now();
        core.start().await?;
        self.wait(core, done).await?;
        let memory_bytes_max = core.memory_bytes_max();
        Ok(Cost { wall: began.elapsed(), cpu: core.usage().cpu, memory_bytes_max })
    }

    async fn wait(
        &self,
        core: &mut Process,
        done: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        // The tables are made by the core at its start.
        while !done(self).await.unwrap_or(false) {
            core.check_alive()?;
            if began.elapsed() > PART_TIMEOUT {
                let seen = done(self).await.context("look how far it is")?;
                bail!("not done after {PART_TIMEOUT:?} ({seen})\n{}", core.log_tail());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }
}

async fn number(client: &Client, sql: &str) -> anyhow::Result<i64> {
    let row = client.query_one(sql, &[]).await.with_context(|| sql.to_owned())?;
    Ok(row.get(0))
}
