//! Who used the processors meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;

use crate::oracle::rollups;
use crate::stack::Stack;
use crate::stack::process::Usage;

/// Processor time by then.
pub(super) struct Usages {
    pub(super) api: Duration,
    pub(super) core: Duration,
    pub(super) gateway: Duration,
    pub(super) load: Duration,
    /// Of the database's connections, by process.
    backends: BTreeMap<u32, Duration>,
    /// Of all processors, busy and in all, in clock ticks.
    machine: (u64, u64),
}

impl Usages {
    pub(super) async fn read(stack: &Stack, api: usize, core: usize) -> anyhow::Result<Self> {
        let database = rollups::connect(stack.catalog_dsn()).await?;
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()";
        let pids = database.query(sql, &[]).await?;
        let backend = |row: &tokio_postgres::Row| {
            let pid = row.get::<_, i32>(0).unsigned_abs();
            (pid, Usage::of_pid(pid).cpu)
        };
        let stat = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Ok(Self {
            api: stack.cores[api].usage().cpu,
            core: stack.cores[core].usage().cpu,
            gateway: stack.gateway.usage().cpu,
            load: Usage::own().cpu,
            backends: pids.iter().map(backend).collect(),
            machine: machine(&stat).context("read /proc/stat")?,
        })
    }

    pub(super) fn since(self, before: &Self) -> Self {
        let then = |pid| before.backends.get(pid).copied().unwrap_or_default();
        let backends = self.backends.iter().map(|(pid, now)| (*pid, now.saturating_sub(then(pid))));
        Self {
            api: self.api.saturating_sub(before.api),
            core: self.core.saturating_sub(before.core),
            gateway: self.gateway.saturating_sub(before.gateway),
            load: self.load.saturating_sub(before.load),
            backends: backends.collect(),
            machine: (self.machine.0 - before.machine.0, self.machine.1 - before.machine.1),
        }
    }

    /// Of the database's connections that are still there.
    pub(super) fn database(&self) -> Duration {
        self.backends.values().sum()
    }

    /// The share of the machine's processors that was busy, with whatever.
    pub(super) fn busy(&self) -> f64 {
        self.machine.0 as f64 / self.machine.1.max(1) as f64
    }
}

/// The first line: user, nice, system, idle, iowait, …
fn machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks = line.split_whitespace().take(8).map(str::parse::<u64>);
    let ticks = ticks.collect::<Result<Vec<_>, _>>().ok()?;
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_are_not_busy() {
        let stat = "cpu  10 20 30 100 40 5 5 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
        assert_eq!(machine(stat), Some((70, 210)));
        assert_eq!(machine("nothing"), None);
    }
}
