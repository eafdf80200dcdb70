//! The rollups in PostgreSQL, in a schema of their own: a database that they share with the
//! catalog, or another one, so that raw goes on while it is away.
//!
//! | file | what |
//! |---|---|
//! | `flush.rs` | what the stream writes, with its position, in one transaction |
//! | `rows.rs` | rows, written only where they change |
//! | `marks.rs` | what is to be computed again |
//! | `merge.rs` | finer rows become coarser ones |
//! | `rebuild.rs`, `apply.rs` | leases on rebuild marks, and what a rebuild writes |
//! | `request.rs` | ranges that somebody asked to be rebuilt |
//! | `import.rs` | rows that were finished elsewhere |
//! | `series.rs`, `partitions.rs` | numbers of series; native partitions |
//!
//! A minute of a device has one writer at a time: before `device_state.closed_through` it is
//! rebuild's, after it the stream's. Every other row is merged from finer ones, by whichever
//! worker comes first.

use std::sync::Arc;

use anyhow::Context;
use deadpool_postgres::{Object, Pool};

use super::in_time;
use super::positions::Positions;
use super::postgres::{self, StoreError};
use crate::failpoint::Failpoints;
use crate::rollup::RollupConfig;
use crate::rollup::window::{DAY, HOUR, MINUTE};

pub mod apply;
mod flush;
pub mod import;
mod marks;
pub mod merge;
mod partitions;
pub mod rebuild;
pub mod request;
mod rows;
mod series;
pub mod serve;
mod types;
mod value;

pub use flush::Flushed;
pub use types::{DeviceClose, Mark, MinuteRow, StreamFlush};

mod embedded {
    refinery::embed_migrations!("migrations/rollup");
}

/// Any number, the same in every process: who holds this lock migrates.
const MIGRATION_LOCK: i64 = 0x7065_6e73_726f_6c6c;

/// A table of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `rollup_1m`.
    Minute,
    /// `rollup_1h`.
    Hour,
    /// `rollup_1d`.
    Day,
}

impl Table {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "rollup_1m",
            Self::Hour => "rollup_1h",
            Self::Day => "rollup_1d",
        }
    }

    /// The width of its windows, µs.
    pub const fn width(self) -> i64 {
        match self {
            Self::Minute => MINUTE,
            Self::Hour => HOUR,
            Self::Day => DAY,
        }
    }
}

/// What is merged from finer rows. The order is that in which their marks are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A device's hour, from its minutes.
    Hour,
    /// A fleet's minute, from the minutes of its devices.
    FleetMinute,
    /// A device's day, from its hours.
    Day,
    /// A fleet's hour, from its minutes.
    FleetHour,
    /// A fleet's day, from its hours.
    FleetDay,
}

impl Level {
    /// Every level, in order.
    pub const ALL: [Self; 5] =
        [Self::Hour, Self::FleetMinute, Self::Day, Self::FleetHour, Self::FleetDay];

    /// The table that it writes.
    pub const fn table(self) -> Table {
        match self {
            Self::FleetMinute => Table::Minute,
            Self::Hour | Self::FleetHour => Table::Hour,
            Self::Day | Self::FleetDay => Table::Day,
        }
    }

    /// The table that it reads.
    pub const fn source(self) -> Table {
        match self {
            Self::Hour | Self::FleetMinute | Self::FleetHour => Table::Minute,
            Self::Day | Self::FleetDay => Table::Hour,
        }
    }

    /// Whether it is about whole fleets.
    pub const fn is_fleet(self) -> bool {
        matches!(self, Self::FleetMinute | Self::FleetHour | Self::FleetDay)
    }

    /// What is merged from it, if anything.
    pub const fn parent(self) -> Option<Self> {
        match self {
            Self::Hour => Some(Self::Day),
            Self::FleetMinute => Some(Self::FleetHour),
            Self::FleetHour => Some(Self::FleetDay),
            Self::Day | Self::FleetDay => None,
        }
    }

    /// For logs and labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::FleetMinute => "fleet_1m",
            Self::FleetHour => "fleet_1h",
            Self::FleetDay => "fleet_1d",
        }
    }

    /// In the table of marks, where the empty device tells fleets apart.
    const fn name(self) -> &'static str {
        match self {
            Self::FleetMinute => "1m",
            Self::Hour | Self::FleetHour => "1h",
            Self::Day | Self::FleetDay => "1d",
        }
    }

    fn from_name(name: &str, is_fleet: bool) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name && level.is_fleet() == is_fleet)
    }
}

/// How long merging waits for more of the same, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeDelays {
    /// Hours that are not over.
    pub hour_ms: i64,
    /// Days that are not over.
    pub day_ms: i64,
    /// A fleet's minutes.
    pub fleet_ms: i64,
}

impl MergeDelays {
    /// What a fleet's finished hours and days wait, so that one merge takes many minutes.
    const SETTLE_MS: i64 = 2_000;

    fn of(&self, level: Level, because: &marks::Because) -> i64 {
        let soon = because.closed || because.urgent;
        match level {
            Level::FleetMinute => self.fleet_ms,
            Level::Hour | Level::Day if soon => 0,
            Level::FleetHour | Level::FleetDay if soon => Self::SETTLE_MS.min(self.fleet_ms),
            Level::Hour | Level::FleetHour => self.hour_ms,
            Level::Day | Level::FleetDay => self.day_ms,
        }
    }
}

/// A handle on the rollups; clones share the pool and what is known of series and partitions.
#[derive(Clone)]
pub struct RollupStore {
    pool: Pool,
    failpoints: Failpoints,
    delays: MergeDelays,
    series: Arc<series::SeriesCache>,
    partitions: Arc<partitions::Partitions>,
    states: Arc<flush::KnownDevices>,
}

impl RollupStore {
    /// The rollups at `config.dsn`, or in the catalog's database at `catalog_dsn`; it connects
    /// when first used.
    ///
    /// # Errors
    /// When the DSN can't be read.
    pub fn open(
        config: &RollupConfig,
        catalog_dsn: &str,
        failpoints: Failpoints,
    ) -> anyhow::Result<Self> {
        let dsn = if config.dsn.is_empty() { catalog_dsn } else { &config.dsn };
        let pool = postgres::pool_of(dsn, config.connections_max, Some("rollup"))
            .context("the rollups' database")?;
        let delay = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let delays = MergeDelays {
            hour_ms: delay(config.merge_delay_ms),
            day_ms: delay(config.day_delay_ms),
            fleet_ms: delay(config.fleet_delay_ms),
        };
        Ok(Self {
            pool,
            failpoints,
            delays,
            series: Arc::default(),
            partitions: Arc::default(),
            states: Arc::default(),
        })
    }

    /// Brings the schema up to date; many processes may do so at once.
    ///
    /// # Errors
    /// When Postgres is away, or a migration was changed after it had been applied.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        let connection = self.pool.get().await.context("connect to Postgres")?;
        // Taken out of the pool: the lock belongs to the session, and ends with it on any way out.
        let mut client = Object::take(connection);
        client.batch_execute("SET statement_timeout = 0").await?;
        client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS rollup").await?;
        let report = embedded::migrations::runner()
            .run_async(&mut *client)
            .await
            .context("migrate the rollups' schema")?;
        for migration in report.applied_migrations() {
            tracing::info!(%migration, "migrated the rollups");
        }
        Ok(())
    }

    /// Its connections, whose search path is the schema of the rollups.
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The positions of what consumes into the rollups.
    pub fn positions(&self) -> Positions {
        Positions::new(self.pool.clone())
    }

    /// The devices of these partitions with closed minutes.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn device_states(&self, partitions: &[i32]) -> Result<Vec<DeviceClose>, StoreError> {
        in_time(async {
            let sql = "SELECT fleet, device, \"partition\", closed_through FROM device_state \
                       WHERE \"partition\" = ANY($1) AND closed_through > $2";
            let rows = self.client().await?.query(sql, &[&partitions, &i64::MIN]).await?;
            let state = |row: &tokio_postgres::Row| DeviceClose {
                fleet: row.get::<_, &str>(0).into(),
                device: row.get::<_, &str>(1).into(),
                partition: row.get(2),
                closed_through: row.get(3),
            };
            Ok(rows.iter().map(state).collect())
        })
        .await
    }

    async fn client(&self) -> Result<Object, StoreError> {
        Ok(self.pool.get().await?)
    }
}
