//! The questions: of each kind a random one, and what its answer must hold.

use std::sync::Arc;
use std::time::Duration;

use penstock_common::event::UnixMicros;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::data::{DAY, DataSet, EVERY, EVERY_BEFORE, FLEET, GROUP, HOUR, MINUTE};
use crate::fleet::past::Past;

/// The metrics of all devices, and those of some.
const METRICS: [&str; 6] =
    ["cpu_temp", "vibration_rms", "supply_voltage", "humidity", "motor_current", "bearing_temp"];

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A day of a device's metric by the minute.
    DeviceDay,
    /// All days of a fleet's metric by the hour.
    FleetMonth,
    /// The 95th percentile of a group over a day, as wide as the API chooses.
    GroupDay,
    /// The events of an hour of a device.
    RawHour,
    /// The 95th percentile of a group over a day, by the minute.
    GroupMinutes,
    /// All days of a device's metric by the hour.
    DeviceMonth,
    /// A day of a fleet's metric by the minute.
    FleetDay,
}

impl Kind {
    /// Those of the mix.
    pub(super) const MIX: [Self; 4] =
        [Self::DeviceDay, Self::FleetMonth, Self::GroupDay, Self::RawHour];
    /// Those that are asked alone, afterwards.
    pub(super) const ALONE: [Self; 3] = [Self::GroupMinutes, Self::DeviceMonth, Self::FleetDay];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::DeviceDay => "device, a day by 1m",
            Self::FleetMonth => "fleet, all days by 1h",
            Self::GroupDay => "group's p95, a day",
            Self::RawHour => "device, an hour of events",
            Self::GroupMinutes => "group's p95, a day by 1m",
            Self::DeviceMonth => "device, all days by 1h",
            Self::FleetDay => "fleet, a day by 1m",
        }
    }

    /// What its p99 should be.
    pub(super) const fn target(self) -> Option<Duration> {
        match self {
            Self::DeviceDay => Some(Duration::from_millis(20)),
            Self::FleetMonth | Self::GroupDay => Some(Duration::from_millis(100)),
            Self::RawHour => Some(Duration::from_millis(50)),
            Self::GroupMinutes | Self::DeviceMonth | Self::FleetDay => None,
        }
    }

    /// One of the mix: the page asks for devices most of the time.
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..100) {
            0..40 => Self::DeviceDay,
            40..55 => Self::FleetMonth,
            55..70 => Self::GroupDay,
            _ => Self::RawHour,
        }
    }
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) kind: Kind,
    /// Path and query.
    pub(super) path: String,
    pub(super) expected: Expected,
}

/// What an answer must hold.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// A point in each bucket of a range.
    Series {
        from: i64,
        to: i64,
        /// The bucket's; none where the API chooses.
        width: Option<i64>,
        /// Each has a value every so many µs, before this time and from it on.
        devices: u64,
        changes_at: i64,
        every: (i64, i64),
    },
    /// An event of a device every so many µs.
    Raw { device: String, from: i64, to: i64, events: u64 },
}

/// Draws questions.
pub(super) struct Questions {
    data: Arc<DataSet>,
    pub(super) rng: ChaCha8Rng,
}

impl Questions {
    pub(super) fn new(data: Arc<DataSet>) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(data.past.seed);
        Self { data, rng }
    }

    /// One of the mix.
    pub(super) fn draw(&mut self) -> Question {
        let kind = Kind::draw(&mut self.rng);
        self.of(kind)
    }

    /// One of a kind.
    pub(super) fn of(&mut self, kind: Kind) -> Question {
        let Past { devices, .. } = self.data.past;
        let number = self.rng.random_range(0..devices);
        let device = Past::device_id(number);
        let (day, month) = (self.data.end - DAY, self.data.hours_from);
        let of_device = format!("fleet={FLEET}&device={device}");
        let (of_fleet, of_group) = (format!("fleet={FLEET}"), format!("group={GROUP}"));
        match kind {
            Kind::DeviceDay | Kind::DeviceMonth => {
                let lines = self.data.past.lines(number);
                let metric = lines[self.rng.random_range(0..lines.len())].metric;
                let (from, width) =
                    if kind == Kind::DeviceDay { (day, MINUTE) } else { (month, HOUR) };
                self.series(kind, (&of_device, metric), (from, width), 1)
            }
            Kind::FleetMonth | Kind::FleetDay => {
                let metric = self.metric();
                let having = self.data.having(0..devices, metric);
                let (from, width) =
                    if kind == Kind::FleetDay { (day, MINUTE) } else { (month, HOUR) };
                self.series(kind, (&of_fleet, metric), (from, width), having)
            }
            Kind::GroupDay | Kind::GroupMinutes => {
                let metric = self.metric();
                let having = self.data.having(self.data.members.iter().copied(), metric);
                let width = if kind == Kind::GroupDay { HOUR } else { MINUTE };
                self.series(kind, (&of_group, metric), (day, width), having)
            }
            Kind::RawHour => self.raw(device),
        }
    }

    fn metric(&mut self) -> &'static str {
        METRICS[self.rng.random_range(0..METRICS.len())]
    }

    fn series(
        &self,
        kind: Kind,
        (whose, metric): (&str, &str),
        (from, width): (i64, i64),
        devices: u64,
    ) -> Question {
        let to = self.data.end;
        let how = match kind {
            // As the page asks, which leaves the width to the API.
            Kind::GroupDay => "&resolution=auto&stat=p95,count",
            Kind::GroupMinutes => "&resolution=1m&stat=p95,count",
            _ if width == MINUTE => "&resolution=1m",
            _ => "&resolution=1h",
        };
        let (begin, end) = (UnixMicros(from).to_rfc3339(), UnixMicros(to).to_rfc3339());
        let path =
            format!("/v1/series?{whose}&metric={metric}&from={begin}&to={end}&limit=5000{how}");
        let expected = Expected::Series {
            from,
            to,
            width: (kind != Kind::GroupDay).then_some(width),
            devices,
            changes_at: self.data.minutes_from,
            every: (EVERY_BEFORE, EVERY),
        };
        Question { kind, path, expected }
    }

    fn raw(&mut self, device: String) -> Question {
        let hours = (self.data.end - self.data.raw_from) / HOUR;
        let from = self.data.raw_from + self.rng.random_range(0..hours) * HOUR;
        let to = from + HOUR;
        let (begin, end) = (UnixMicros(from).to_rfc3339(), UnixMicros(to).to_rfc3339());
        let path = format!("/v1/raw?fleet={FLEET}&device={device}&from={begin}&to={end}");
        let events = self.data.values_of(from, HOUR);
        Question { kind: Kind::RawHour, path, expected: Expected::Raw { device, from, to, events } }
    }
}
