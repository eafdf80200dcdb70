//! The state machine. Pure: it is shown the world, and says what follows.
//!
//! Every limit that is crossed upwards is left only well below it, so that a figure that trembles
//! around a limit changes nothing.

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the spool from which on requests are shed.
    pub soft_bytes: u64,
    /// Bytes of the spool from which on the oldest events are evicted.
    pub hard_bytes: u64,
    /// Below so many free bytes of the disk everything is refused.
    pub disk_free_bytes_min: u64,
}

/// The world at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    /// The core asks to hold events back.
    pub core_hold: bool,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// Free bytes of its disk, as far as they are known.
    pub disk_free_bytes: Option<u64>,
    /// The disk refused the last write.
    pub disk_failing: bool,
    /// The oldest events can't be moved: no room, or nothing to move them.
    pub eviction_blocked: bool,
}

/// How strong the pressure is. Each state includes what the lesser ones do, but for holding, which
/// is the core's matter alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Everything is taken and forwarded.
    Open,
    /// Everything is taken, and events stay on disk.
    Hold,
    /// A share of the requests is answered 429.
    Shed,
    /// The same, and the oldest events move to the dead letters.
    Evict,
    /// All requests are answered 429.
    Refuse,
}

/// Why requests are answered 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The spool is above a limit.
    SpoolFull,
    /// The disk is filled by something else.
    DiskFull,
    /// The disk refuses writes.
    DiskFailing,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For people.
    pub state: State,
    /// Whether events stay on disk.
    pub hold: bool,
    /// How many of a thousand requests are answered 429.
    pub shed_per_mille: u32,
    /// Why those are.
    pub why: Why,
    /// How much the spool is above the place where all is taken again.
    pub excess_bytes: u64,
}

/// Short of the hard limit, some requests always get through, so that no device is shut out.
const SHED_PER_MILLE_MAX: u32 = 950;

/// Where the spool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Low,
    Soft,
    Hard,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressure {
    limits: Limits,
    level: Level,
    is_disk_full: bool,
}

impl Limits {
    /// Below this, all is taken again: a fifth of the way between the limits under the soft one.
    pub const fn soft_leave_bytes(&self) -> u64 {
        self.soft_bytes.saturating_sub(self.hard_bytes.saturating_sub(self.soft_bytes) / 5)
    }

    /// Down to this, the spool counts as being at its hard limit: a fifth of the way between the limits.
    pub const fn hard_leave_bytes(&self) -> u64 {
        self.hard_bytes - self.hard_bytes.saturating_sub(self.soft_bytes) / 5
    }

    /// With this much free space, the disk is not full any more.
    pub const fn disk_leave_bytes(&self) -> u64 {
        self.disk_free_bytes_min.saturating_add(self.disk_free_bytes_min / 2)
    }

    /// From nothing at the place where all is taken to nearly everything at the hard limit.
    fn shed_per_mille(&self, spool_bytes: u64) -> u32 {
        let from = self.soft_leave_bytes();
        let span = self.hard_bytes.saturating_sub(from).max(1);
        let above = spool_bytes.saturating_sub(from).min(span);
        // At most 950: it fits.
        (u128::from(above) * u128::from(SHED_PER_MILLE_MAX) / u128::from(span)) as u32
    }
}

impl Pressure {
    /// A machine that has seen nothing yet.
    pub const fn new(limits: Limits) -> Self {
        Self { limits, level: Level::Low, is_disk_full: false }
    }

    /// What follows from the world as it is now.
    pub fn step(&mut self, signals: &Signals) -> Verdict {
        let Limits { soft_bytes, hard_bytes, disk_free_bytes_min } = self.limits;
        let bytes = signals.spool_bytes;
        let is_above = |was: bool, enter: u64, leave: u64| bytes >= enter || was && bytes > leave;
        let was = self.level;
        let is_hard = is_above(was == Level::Hard, hard_bytes, self.limits.hard_leave_bytes());
        let is_soft = is_above(was >= Level::Soft, soft_bytes, self.limits.soft_leave_bytes());
        self.level = match (is_soft || is_hard, is_hard) {
            (_, true) => Level::Hard,
            (true, false) => Level::Soft,
            (false, false) => Level::Low,
        };
        self.is_disk_full = signals.disk_free_bytes.is_some_and(|free| {
            free < disk_free_bytes_min || self.is_disk_full && free < self.limits.disk_leave_bytes()
        });
        self.verdict(signals)
    }

    fn verdict(&self, signals: &Signals) -> Verdict {
        let has_no_room = self.level == Level::Hard && signals.eviction_blocked;
        // A full disk refuses writes too, and is not worth trying until it has room.
        let refuse = if self.is_disk_full {
            Some(Why::DiskFull)
        } else if signals.disk_failing {
            Some(Why::DiskFailing)
        } else if has_no_room {
            Some(Why::SpoolFull)
        } else {
            None
        };
        let state = match (self.level, refuse) {
            (_, Some(_)) => State::Refuse,
            (Level::Hard, None) => State::Evict,
            (Level::Soft, None) => State::Shed,
            (Level::Low, None) if signals.core_hold => State::Hold,
            (Level::Low, None) => State::Open,
        };
        let shed_per_mille = match state {
            State::Refuse => 1_000,
            State::Evict | State::Shed => self.limits.shed_per_mille(signals.spool_bytes),
            State::Hold | State::Open => 0,
        };
        Verdict {
            state,
            hold: signals.core_hold,
            shed_per_mille,
            why: refuse.unwrap_or(Why::SpoolFull),
            excess_bytes: signals.spool_bytes.saturating_sub(self.limits.soft_leave_bytes()),
        }
    }
}

impl State {
    /// All states, from the least pressure to the most.
    pub const ALL: [Self; 5] = [Self::Open, Self::Hold, Self::Shed, Self::Evict, Self::Refuse];

    /// In metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Hold => "hold",
            Self::Shed => "shed",
            Self::Evict => "evict",
            Self::Refuse => "refuse",
        }
    }
}

impl Why {
    /// In metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SpoolFull => "spool_full",
            Self::DiskFull => "disk_full",
            Self::DiskFailing => "disk_failing",
        }
    }
}

#[cfg(test)]
mod tests;
