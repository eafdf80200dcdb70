//! A fleet of simulated devices.
//!
//! Open loop: every device has a schedule of intended send times that no answer moves, and latency
//! is measured from the intended time, so that a slow gateway can't hide by slowing the load down.
//! A device keeps its order: the next batch waits until every event of the present one is known
//! to be accepted or rejected, and retries carry the same bytes.

mod answer;
pub mod backlog;
mod body;
pub mod client;
pub(crate) mod device;
mod driver;
mod event;
mod fault;
mod metric;
pub mod mqtt;
pub mod past;
mod tally;
mod target;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::fault::Fault;
pub use self::tally::{Latency, Tally, quantiles};
pub use self::target::Target;
use crate::oracle::record::ToldFleet;

/// How a fleet behaves. Shares are fractions in [0, 1].
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Everything but the clock follows from it.
    pub seed: u64,
    /// How many devices there are.
    pub devices: u32,
    /// Events a second, over all devices.
    pub rate: f64,
    /// The fleet's name at the gateway.
    pub fleet: String,
    /// The smallest batch, in events.
    pub batch_min: usize,
    /// The largest batch, in events.
    pub batch_max: usize,
    /// Events that are wrong on purpose.
    pub faulty_share: f64,
    /// Bodies that end too early.
    pub broken_body_share: f64,
    /// Accepted events that are sent again.
    pub duplicate_share: f64,
    /// Events with a field and a metric that no schema knows.
    pub unknown_fields_share: f64,
    /// Events with diagnostics.
    pub diagnostics_share: f64,
    /// Devices whose clock is minutes ahead, or minutes or days behind.
    pub skewed_share: f64,
    /// Line-delimited bodies; the others are arrays.
    pub ndjson_share: f64,
    /// Single events sent as a bare object.
    pub bare_object_share: f64,
    /// Bodies compressed with gzip.
    pub gzip_share: f64,
    /// Bodies compressed with zstd.
    pub zstd_share: f64,
    /// Connections open at the same time.
    pub connections_max: usize,
    /// How long a device waits for an answer.
    pub request_timeout: Duration,
    /// The longest pause before a device tries again what got no answer.
    pub retry_max: Duration,
    /// After the stop, how long devices go on trying to learn what became of their last batch.
    pub resolve_within: Duration,
}

impl FleetConfig {
    /// A fleet with everything in it: faults, duplicates, skewed clocks, all kinds of bodies.
    pub fn mixed(seed: u64, devices: u32, rate: f64) -> Self {
        Self {
            seed,
            devices,
            rate,
            fleet: "sim".into(),
            batch_min: 1,
            batch_max: 100,
            faulty_share: 0.01,
            broken_body_share: 0.005,
            duplicate_share: 0.01,
            unknown_fields_share: 0.02,
            diagnostics_share: 0.1,
            skewed_share: 0.03,
            ndjson_share: 0.3,
            bare_object_share: 0.5,
            gzip_share: 0.1,
            zstd_share: 0.1,
            connections_max: 128,
            request_timeout: Duration::from_secs(10),
            retry_max: Duration::from_secs(3),
            resolve_within: Duration::from_secs(60),
        }
    }

    /// A fleet that sends good events only, in plain arrays of one size.
    pub fn plain(seed: u64, devices: u32, rate: f64, batch: usize) -> Self {
        Self {
            batch_min: batch,
            batch_max: batch,
            faulty_share: 0.0,
            broken_body_share: 0.0,
            duplicate_share: 0.0,
            unknown_fields_share: 0.0,
            diagnostics_share: 0.0,
            skewed_share: 0.0,
            ndjson_share: 0.0,
            bare_object_share: 1.0,
            gzip_share: 0.0,
            zstd_share: 0.0,
            connections_max: 256,
            ..Self::mixed(seed, devices, rate)
        }
    }
}

/// Runs a fleet against a gateway until `stop`; returns what every device was told.
pub async fn run(
    config: FleetConfig,
    gateway: impl Into<Target>,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> ToldFleet {
    driver::run(Arc::new(config), gateway.into(), tally, stop).await
}
