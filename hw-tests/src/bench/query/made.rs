//! What making the history took, and what it weighs.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use tokio_postgres::Client as Database;

use super::data::number;

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// The history in numbers.
pub(super) struct Made {
    written: Written,
    events: u64,
    streamed_in: Duration,
    tables: Vec<Table>,
    files: Vec<Files>,
}

/// What `rollup-past` says.
#[derive(Deserialize)]
pub(super) struct Written {
    minutes: u64,
    hours: u64,
    days: u64,
    seconds: f64,
}

/// A table, its indexes included.
struct Table {
    name: &'static str,
    rows: i64,
    bytes: i64,
}

/// Raw files of a kind.
struct Files {
    are_compacted: bool,
    count: i64,
    rows: i64,
    bytes: i64,
}

impl Made {
    /// Asks the databases; `streamed`: events, and in what time.
    pub(super) async fn weigh(
        written: Written,
        (events, streamed_in): (u64, Duration),
        catalog: &Database,
        rollups: &Database,
    ) -> anyhow::Result<Self> {
        let mut tables = Vec::new();
        for name in ["rollup_1m", "rollup_1h", "rollup_1d"] {
            let rows = number(rollups, &format!("SELECT count(*) FROM rollup.{name}")).await?;
            let bytes = format!(
                "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::int8 \
                 FROM pg_inherits WHERE inhparent = 'rollup.{name}'::regclass"
            );
            tables.push(Table { name, rows, bytes: number(rollups, &bytes).await? });
        }
        let sql = "SELECT compacted, count(*), sum(rows)::int8, sum(bytes)::int8 FROM raw_file \
                   WHERE state = 'published' AND kind = 'raw' \
                   GROUP BY compacted ORDER BY compacted DESC";
        let files = catalog.query(sql, &[]).await?;
        let of = |row: &tokio_postgres::Row| Files {
            are_compacted: row.get(0),
            count: row.get(1),
            rows: row.get(2),
            bytes: row.get(3),
        };
        let files = files.iter().map(of).collect();
        Ok(Self { written, events, streamed_in, tables, files })
    }

    /// Events that were streamed.
    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn rows_stored(&self) -> u64 {
        self.files.iter().map(|files| files.rows.unsigned_abs()).sum()
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Written { minutes, hours, days, seconds } = &self.written;
        let pace = (minutes + hours + days) as f64 / seconds.max(1e-9);
        writeln!(
            f,
            "written by rollup-past: {minutes} rows of minutes, {hours} of hours, {days} of days \
             in {seconds:.0} s ({pace:.0}/s)"
        )?;
        let seconds = self.streamed_in.as_secs_f64();
        writeln!(f, "streamed through all stages: {} events in {seconds:.0} s", self.events)?;
        for Table { name, rows, bytes } in &self.tables {
            let (mib, each) = (*bytes as f64 / MIB, *bytes as f64 / (*rows).max(1) as f64);
            writeln!(f, "{name}: {rows} rows, {mib:.0} MiB, {each:.0} B a row, indexes included")?;
        }
        for Files { are_compacted, count, rows, bytes } in &self.files {
            let kind = if *are_compacted { "compacted" } else { "staged" };
            let mib = *bytes as f64 / MIB;
            writeln!(f, "raw files, {kind}: {count}, {rows} rows, {mib:.0} MiB")?;
        }
        write!(f, "objects are files of a directory: no S3 server's time is in the figures")
    }
}
