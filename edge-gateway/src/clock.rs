//! The gateway's clock (spec I10): the machine's, made steady, with a floor that outlives the
//! process.
//!
//! Many gateways have no battery for their clock and begin in 1970 after a power cut; others are
//! set back by hours when a time server is reached. What is received must not seem to come before
//! what was received earlier, so the greatest time ever said is kept in `<spool.dir>/clock`:
//!
//! | bytes | |
//! |---|---|
//! | 8 | `PSTCLOCK` |
//! | 4 | version, 1 |
//! | 8 | *seen*: what was said when this was written, µs since 1970 |
//! | 8 | *reserved*: nothing later is said before this is written again |
//! | 4 | CRC-32C of what precedes |
//!
//! Numbers are little-endian. It is written every minute, whole or not at all. A start with a
//! clock that is at or beyond *seen* follows the clock; another one goes on from *reserved*, so
//! that what was said in the last minute before a power cut is not said again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_common::clock::{CLOCK_SET_AFTER, Clock, Reading, Steady, SystemClock, Turn};
use penstock_common::event::UnixMicros;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio_util::sync::CancellationToken;

const NAME: &str = "clock";
const MAGIC: &[u8; 8] = b"PSTCLOCK";
const VERSION: u32 = 1;
const FILE_BYTES: usize = 32;

/// How often the floor is written.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// How far what is said may go beyond what was written: two intervals, and a slow disk.
const RESERVE_MICROS: i64 = 180 * 1_000_000;

/// The floor as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Floor {
    seen: UnixMicros,
    reserved: UnixMicros,
}

/// The clock's metrics.
#[derive(Clone)]
struct ClockMetrics {
    is_set: IntGauge,
    behind_seconds: IntGauge,
    steps: IntCounterVec,
}

/// The machine's clock, steady over restarts; shared by everything that dates what it receives.
pub struct GatewayClock {
    wall: Box<dyn Clock>,
    started: Instant,
    steady: Mutex<Steady>,
    path: PathBuf,
    metrics: ClockMetrics,
}

impl GatewayClock {
    /// Reads the floor in the spool's directory, which must exist, and registers the metrics.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn open(dir: &Path, registry: &Registry) -> prometheus::Result<Self> {
        Self::on(Box::new(SystemClock), dir, registry)
    }

    fn on(wall: Box<dyn Clock>, dir: &Path, registry: &Registry) -> prometheus::Result<Self> {
        let path = dir.join(NAME);
        let floor = match read(&path) {
            Ok(floor) => floor,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "read the clock's floor; it begins anew");
                None
            }
        };
        let now = wall.now();
        let start = match floor {
            Some(floor) if now >= floor.seen && now >= CLOCK_SET_AFTER => floor.seen,
            Some(floor) => floor.reserved,
            None => UnixMicros(i64::MIN),
        };
        let clock = Self {
            wall,
            started: Instant::now(),
            steady: Mutex::new(Steady::new(start)),
            path,
            metrics: ClockMetrics::new(registry)?,
        };
        clock.metrics.is_set.set(1);
        clock.reading();
        Ok(clock)
    }

    /// Writes the floor every minute, and at the `stop`, after which nothing more is received.
    pub async fn keep(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.write(RESERVE_MICROS).await;
            let _ = tokio::time::timeout(WRITE_INTERVAL, stop.cancelled()).await;
        }
        self.write(0).await;
    }

    async fn write(&self, reserve_micros: i64) {
        let seen = self.reading().at;
        let floor = Floor { seen, reserved: UnixMicros(seen.0.saturating_add(reserve_micros)) };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, floor)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "write the clock's floor; trying again"),
            Err(error) => tracing::warn!(%error, "write the clock's floor"),
        }
    }

    fn tell(&self, turn: Turn) {
        let metrics = &self.metrics;
        match turn {
            Turn::Unset => tracing::error!(
                "the machine's clock is not set; events are flagged clock_unset and keep their \
                 order: check the time server and the clock's battery"
            ),
            Turn::Behind(micros) => {
                metrics.steps.with_label_values(&["back"]).inc();
                tracing::warn!(
                    seconds = micros / 1_000_000,
                    "the machine's clock stands behind what was received already; events are \
                     flagged clock_unset until it has caught up"
                );
            }
            Turn::SetBack(micros) => {
                metrics.steps.with_label_values(&["back_far"]).inc();
                tracing::error!(
                    seconds = micros / 1_000_000,
                    "the machine's clock was set back by more than a day; times of reception run \
                     backward here, once"
                );
            }
            Turn::SetForward(micros) => {
                metrics.steps.with_label_values(&["forward"]).inc();
                tracing::warn!(seconds = micros / 1_000_000, "the machine's clock was set forward");
            }
            Turn::Good => tracing::info!("the machine's clock can be relied on again"),
        }
    }
}

impl Clock for GatewayClock {
    fn now(&self) -> UnixMicros {
        self.reading().at
    }

    fn reading(&self) -> Reading {
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: a thread that waited for it must not bring an older time.
        let wall = self.wall.now();
        let (reading, turn) = steady.tick(wall, self.started.elapsed());
        drop(steady);
        if let Some(turn) = turn {
            self.tell(turn);
        }
        self.metrics.is_set.set(i64::from(reading.is_set));
        self.metrics.behind_seconds.set((reading.at.0 - wall.0).max(0) / 1_000_000);
        reading
    }
}

impl ClockMetrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            is_set: IntGauge::new(
                "penstock_clock_set",
                "1 while the machine's clock can be relied on",
            )?,
            behind_seconds: IntGauge::new(
                "penstock_clock_behind_seconds",
                "How far the machine's clock stands behind what was received already",
            )?,
            steps: IntCounterVec::new(
                Opts::new("penstock_clock_steps_total", "Times that the machine's clock was set"),
                &["direction"],
            )?,
        };
        for direction in ["back", "back_far", "forward"] {
            metrics.steps.with_label_values(&[direction]);
        }
        registry.register(Box::new(metrics.is_set.clone()))?;
        registry.register(Box::new(metrics.behind_seconds.clone()))?;
        registry.register(Box::new(metrics.steps.clone()))?;
        Ok(metrics)
    }
}

/// The floor; none where there is no file yet.
fn read(path: &Path) -> io::Result<Option<Floor>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    decode(&bytes).map(Some).ok_or_else(|| io::Error::other("it is damaged"))
}

fn write(path: &Path, floor: Floor) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(&encode(floor))?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn encode(floor: Floor) -> [u8; FILE_BYTES] {
    let mut out = [0; FILE_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..20].copy_from_slice(&floor.seen.0.to_le_bytes());
    out[20..28].copy_from_slice(&floor.reserved.0.to_le_bytes());
    let crc = crc32c::crc32c(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Floor> {
    let bytes: &[u8; FILE_BYTES] = bytes.try_into().ok()?;
    let (fields, crc) = bytes.split_last_chunk::<4>()?;
    let is_whole = crc32c::crc32c(fields).to_le_bytes() == *crc;
    if !is_whole || fields[..8] != *MAGIC || fields[8..12] != VERSION.to_le_bytes() {
        return None;
    }
    let number = |at: usize| Some(UnixMicros(i64::from_le_bytes(*fields[at..].first_chunk()?)));
    Some(Floor { seen: number(12)?, reserved: number(20)? })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use penstock_common::clock::ManualClock;

    use super::*;

    const NOW: UnixMicros = UnixMicros(CLOCK_SET_AFTER.0 + 1_000_000_000_000);

    struct Wall(Arc<ManualClock>);

    impl Clock for Wall {
        fn now(&self) -> UnixMicros {
            self.0.now()
        }
    }

    fn start(dir: &Path, wall: &Arc<ManualClock>) -> GatewayClock {
        GatewayClock::on(Box::new(Wall(wall.clone())), dir, &Registry::new()).unwrap()
    }

    /// I10: a power cut, and then 1970.
    #[tokio::test]
    async fn what_is_said_after_a_power_cut_comes_after_what_was_said_before() {
        let dir = tempfile::tempdir().unwrap();
        let wall = Arc::new(ManualClock::new(NOW));
        let clock = start(dir.path(), &wall);
        clock.write(RESERVE_MICROS).await;
        // As long as the floor is not written again, this much is said without it.
        wall.set(UnixMicros(NOW.0 + RESERVE_MICROS));
        let last = clock.reading();
        assert_eq!(last, Reading { at: UnixMicros(NOW.0 + RESERVE_MICROS), is_set: true });
        drop(clock);

        wall.set(UnixMicros(5));
        let clock = start(dir.path(), &wall);
        let first = clock.reading();
        assert!(first.at >= last.at && !first.is_set, "{first:?}");
        assert_eq!(clock.metrics.is_set.get(), 0);
        // The time server is reached.
        wall.set(UnixMicros(NOW.0 + 10 * RESERVE_MICROS));
        let set = clock.reading();
        assert_eq!(set, Reading { at: UnixMicros(NOW.0 + 10 * RESERVE_MICROS), is_set: true });
        assert_eq!(clock.metrics.is_set.get(), 1);
    }

    #[tokio::test]
    async fn a_usual_restart_follows_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        let wall = Arc::new(ManualClock::new(NOW));
        let clock = start(dir.path(), &wall);
        clock.write(RESERVE_MICROS).await;
        wall.set(UnixMicros(NOW.0 + 1));
        let clock = start(dir.path(), &wall);
        assert_eq!(clock.reading(), Reading { at: UnixMicros(NOW.0 + 1), is_set: true });
        clock.write(0).await;
        wall.set(NOW);
        let clock = start(dir.path(), &wall);
        assert_eq!(clock.reading().at, UnixMicros(NOW.0 + 1));
    }

    #[test]
    fn a_damaged_floor_is_none_and_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let floor = Floor { seen: NOW, reserved: UnixMicros(NOW.0 + 9) };
        let whole = encode(floor);
        assert_eq!(decode(&whole), Some(floor));
        for byte in 0..whole.len() {
            let mut bytes = whole;
            bytes[byte] ^= 0x40;
            assert_eq!(decode(&bytes), None, "byte {byte}");
            assert_eq!(decode(&whole[..byte]), None, "{byte} bytes");
        }
        fs::write(dir.path().join(NAME), b"PSTCLOCK").unwrap();
        let wall = Arc::new(ManualClock::new(NOW));
        assert_eq!(start(dir.path(), &wall).reading().at, NOW);
    }
}
