//! The rows of a fleet's past, in the order in which the core would have written them: by time,
//! all devices of a minute together.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use cloud_core::rollup::aggregate::Aggregate;
use cloud_core::rollup::window::{DAY, HOUR, MINUTE, day_of};
use cloud_core::store::rollup::Table;
use cloud_core::store::rollup::import::FinishedRow;
use hw_tests::fleet::past::{Line, Past};

/// Which past. Times in µs since the Unix epoch, on whole hours.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Everything follows from it.
    #[arg(long)]
    seed: u64,
    /// How many devices.
    #[arg(long)]
    devices: u32,
    /// From here on there are hours and days.
    #[arg(long)]
    hours_from: i64,
    /// From here on there are minutes too.
    #[arg(long)]
    minutes_from: i64,
    /// The end.
    #[arg(long)]
    until: i64,
    /// Between two values of an hour without minutes, µs.
    #[arg(long)]
    hours_every: i64,
    /// Between two values of a minute, µs.
    #[arg(long)]
    minutes_every: i64,
}

/// Rows of one table that are written together.
pub(crate) struct Rows {
    pub(crate) table: Table,
    pub(crate) rows: Vec<FinishedRow>,
}

/// How many rows were written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) minutes: usize,
    pub(crate) hours: usize,
    pub(crate) days: usize,
}

/// All rows, made as they are asked for.
pub(crate) fn rows(span: &Span, fleet: &str) -> impl Iterator<Item = Rows> + use<> {
    let mut fleet = Fleet::new(span, fleet);
    let span = *span;
    let hours = (span.hours_from..span.until).step_by(HOUR as usize);
    hours.flat_map(move |hour| fleet.hour(hour, &span))
}

/// A series, and what its day has so far.
struct Series {
    device: Arc<str>,
    line: Line,
    day: Aggregate,
}

/// By metric.
type Whole = BTreeMap<&'static str, Aggregate>;

struct Fleet {
    name: Arc<str>,
    metrics: BTreeMap<&'static str, Arc<str>>,
    series: Vec<Series>,
    day: Whole,
    /// The first hour of the day that is under way, if it is whole.
    day_begin: Option<i64>,
}

impl Fleet {
    fn new(span: &Span, name: &str) -> Self {
        let past = Past { seed: span.seed, devices: span.devices };
        let mut series = Vec::new();
        for number in 0..span.devices {
            let device: Arc<str> = Past::device_id(number).into();
            let lines = past.lines(number).into_iter();
            series.extend(lines.map(|line| Series {
                device: Arc::clone(&device),
                line,
                day: Aggregate::new(),
            }));
        }
        let metrics = series.iter().map(|series| (series.line.metric, series.line.metric.into()));
        let metrics = metrics.collect();
        Self { name: name.into(), metrics, series, day: Whole::new(), day_begin: None }
    }

    /// The rows of an hour: its minutes where there are some, itself, and the day that it ends.
    fn hour(&mut self, hour: i64, span: &Span) -> Vec<Rows> {
        let has_minutes = hour >= span.minutes_from;
        let (mut rows, hours) = if has_minutes {
            self.minutes(hour, span.minutes_every)
        } else {
            let of = |series: &Series| {
                series.line.values((hour, hour + HOUR), span.hours_every).collect()
            };
            (Vec::new(), self.series.iter().map(of).collect())
        };
        if day_of(hour) == hour {
            self.day_begin = Some(hour);
            self.day.clear();
            self.series.iter_mut().for_each(|series| series.day = Aggregate::new());
        }
        let whole = self.whole(&hours);
        for (series, hour) in self.series.iter_mut().zip(&hours) {
            series.day.merge(hour);
        }
        for (metric, hour) in &whole {
            self.day.entry(metric).or_default().merge(hour);
        }
        rows.push(self.finished(Table::Hour, hour, hours, whole));
        // A day that began before this past, or goes on after it, is another's.
        if hour + HOUR == day_of(hour) + DAY && self.day_begin.is_some() {
            let days = self.series.iter().map(|series| series.day.clone()).collect();
            let whole = std::mem::take(&mut self.day);
            rows.push(self.finished(Table::Day, day_of(hour), days, whole));
        }
        rows
    }

    /// The rows of the minutes of an hour, and what they make together.
    fn minutes(&self, hour: i64, every: i64) -> (Vec<Rows>, Vec<Aggregate>) {
        let mut rows = Vec::new();
        let mut hours = vec![Aggregate::new(); self.series.len()];
        for minute in (hour..hour + HOUR).step_by(MINUTE as usize) {
            let of = |series: &Series| {
                series.line.values((minute, minute + MINUTE), every).collect::<Aggregate>()
            };
            let minutes: Vec<Aggregate> = self.series.iter().map(of).collect();
            for (hour, minute) in hours.iter_mut().zip(&minutes) {
                hour.merge(minute);
            }
            let whole = self.whole(&minutes);
            rows.push(self.finished(Table::Minute, minute, minutes, whole));
        }
        (rows, hours)
    }

    /// The whole fleet, from its series.
    fn whole(&self, aggregates: &[Aggregate]) -> Whole {
        let mut whole = Whole::new();
        for (series, aggregate) in self.series.iter().zip(aggregates) {
            whole.entry(series.line.metric).or_default().merge(aggregate);
        }
        whole
    }

    fn finished(
        &self,
        table: Table,
        bucket: i64,
        aggregates: Vec<Aggregate>,
        whole: Whole,
    ) -> Rows {
        let row = |device: &Arc<str>, metric: &str, aggregate| FinishedRow {
            fleet: Arc::clone(&self.name),
            device: Arc::clone(device),
            metric: Arc::clone(&self.metrics[metric]),
            bucket,
            aggregate,
        };
        let nobody: Arc<str> = "".into();
        let series = self.series.iter().zip(aggregates);
        let mut rows: Vec<FinishedRow> =
            series.map(|(series, sum)| row(&series.device, series.line.metric, sum)).collect();
        rows.extend(whole.into_iter().map(|(metric, sum)| row(&nobody, metric, sum)));
        Rows { table, rows }
    }
}
