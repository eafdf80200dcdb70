//! A wall clock that doesn't run backward (spec I10). Pure: the wall clock and the monotonic one
//! are arguments.
//!
//! | the wall clock | what is said | relied on |
//! |---|---|---|
//! | is at or beyond what was said before | the wall clock | yes |
//! | was never set (1970: no battery) | goes on from what was said before, at the pace of the monotonic clock | no |
//! | stands behind what was said before, by up to [`STEP_BACK_MAX`] | goes on from there at half the pace, until the wall clock has caught up | if it is less than a minute |
//! | stands further behind | the wall clock: what was said before came from a clock that ran far ahead, and to stay there would be wrong for as long | yes |
//!
//! The last row is the only way in which it runs backward.

use std::time::Duration;

use super::{CLOCK_SET_AFTER, Reading};
use crate::event::{CLOCK_AHEAD_LIMIT_MICROS, UnixMicros};

/// A clock that is set back by more is followed.
pub const STEP_BACK_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a [`Steady::tick`] noticed, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The wall clock is not set, and was before; or nothing is known of before.
    Unset,
    /// The wall clock stands so many microseconds behind what was said before; it is waited for.
    Behind(i64),
    /// The wall clock can be relied on again.
    Good,
    /// The wall clock was set back by so many microseconds, and is followed.
    SetBack(i64),
    /// The wall clock went forward by so many microseconds more than time passed.
    SetForward(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The wall clock is followed.
    Follow,
    /// From this time on, at this monotonic time, by itself.
    Unset { base: i64, at: Duration },
    /// The same, at half the pace.
    Behind { base: i64, at: Duration },
}

/// What was said last, and how it goes on.
#[derive(Clone, Debug)]
pub struct Steady {
    last: i64,
    mode: Mode,
    /// Wall minus monotonic clock at the last tick, while the wall clock was set.
    offset: Option<i64>,
}

impl Steady {
    /// A clock that says nothing before `floor`.
    pub const fn new(floor: UnixMicros) -> Self {
        Self { last: floor.0, mode: Mode::Follow, offset: None }
    }

    /// What was said last.
    pub const fn last(&self) -> UnixMicros {
        UnixMicros(self.last)
    }

    /// What time it is, and what is to be told of it.
    pub fn tick(&mut self, wall: UnixMicros, mono: Duration) -> (Reading, Option<Turn>) {
        let behind = self.last.saturating_sub(wall.0);
        let was = self.mode;
        let is_set = wall >= CLOCK_SET_AFTER;
        let mut turn = None;
        if !is_set {
            let Mode::Unset { base, at } = was else {
                self.mode = Mode::Unset { base: self.last.max(wall.0), at: mono };
                self.offset = None;
                return (self.say(self.last.max(wall.0), false), Some(Turn::Unset));
            };
            return (self.say(base.saturating_add(micros(mono.saturating_sub(at))), false), None);
        }
        let offset = wall.0.saturating_sub(micros(mono));
        let jump = self.offset.replace(offset).map_or(0, |old| offset.saturating_sub(old));
        if jump > CLOCK_AHEAD_LIMIT_MICROS {
            turn = Some(Turn::SetForward(jump));
        }
        if behind <= 0 || behind > micros(STEP_BACK_MAX) {
            self.mode = Mode::Follow;
            if behind > 0 {
                self.last = wall.0;
                turn = Some(Turn::SetBack(behind));
            } else if was != Mode::Follow {
                turn = Some(Turn::Good);
            }
            return (self.say(wall.0, true), turn);
        }
        let (base, at) = match was {
            Mode::Behind { base, at } => (base, at),
            Mode::Follow | Mode::Unset { .. } => {
                self.mode = Mode::Behind { base: self.last, at: mono };
                if behind > CLOCK_AHEAD_LIMIT_MICROS {
                    turn = Some(Turn::Behind(behind));
                }
                (self.last, mono)
            }
        };
        let at = base.saturating_add(micros(mono.saturating_sub(at)) / 2).max(self.last);
        (self.say(at, at.saturating_sub(wall.0) <= CLOCK_AHEAD_LIMIT_MICROS), turn)
    }

    fn say(&mut self, at: i64, is_set: bool) -> Reading {
        self.last = self.last.max(at);
        Reading { at: UnixMicros(self.last), is_set }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const NOW: i64 = CLOCK_SET_AFTER.0 + 1_000_000 * SECOND;

    fn seconds(n: i64) -> Duration {
        Duration::from_secs(n.unsigned_abs())
    }

    /// Ticks at these (wall, monotonic) seconds; the wall counts from [`NOW`].
    fn say(clock: &mut Steady, wall: i64, mono: i64) -> (i64, bool, Option<Turn>) {
        let (reading, turn) = clock.tick(UnixMicros(NOW + wall * SECOND), seconds(mono));
        ((reading.at.0 - NOW) / SECOND, reading.is_set, turn)
    }

    fn unset(clock: &mut Steady, mono: i64) -> (i64, bool, Option<Turn>) {
        let (reading, turn) = clock.tick(UnixMicros(mono * SECOND), seconds(mono));
        ((reading.at.0 - NOW) / SECOND, reading.is_set, turn)
    }

    #[test]
    fn without_a_battery_time_goes_on_from_the_floor_until_the_clock_is_set() {
        let mut clock = Steady::new(UnixMicros(NOW));
        assert_eq!(unset(&mut clock, 5), (0, false, Some(Turn::Unset)));
        assert_eq!(unset(&mut clock, 65), (60, false, None));
        assert_eq!(say(&mut clock, 1_000, 70), (1_000, true, Some(Turn::Good)));
        assert_eq!(say(&mut clock, 1_001, 71), (1_001, true, None));
        // And if it was never set, it says so.
        let mut clock = Steady::new(UnixMicros(0));
        let (reading, turn) = clock.tick(UnixMicros(7), seconds(1));
        let expected = Reading { at: UnixMicros(7), is_set: false };
        assert_eq!((reading, turn), (expected, Some(Turn::Unset)));
    }

    #[test]
    fn a_step_back_is_waited_for_at_half_the_pace() {
        let mut clock = Steady::new(UnixMicros(0));
        assert_eq!(say(&mut clock, 0, 0), (0, true, None));
        let hour = 3600;
        let behind = Some(Turn::Behind(hour * SECOND));
        assert_eq!(say(&mut clock, -hour, 0), (0, false, behind));
        assert_eq!(say(&mut clock, -hour + 100, 100), (50, false, None));
        for passed in (200..=2 * hour - 200).step_by(100) {
            let (at, is_set, turn) = say(&mut clock, passed - hour, passed);
            // Less than a minute is nothing to tell of.
            let is_near = at - (passed - hour) <= 60;
            assert_eq!((at, is_set, turn), (passed / 2, is_near, None), "after {passed} s");
        }
        // What was said last is passed.
        assert_eq!(say(&mut clock, hour, 2 * hour), (hour, true, Some(Turn::Good)));
        assert_eq!(say(&mut clock, hour - 20, 2 * hour + 1), (hour, true, None));
    }

    #[test]
    fn a_clock_that_ran_far_ahead_is_not_kept_to() {
        let mut clock = Steady::new(UnixMicros(0));
        let years = 70 * 365 * 86_400;
        assert_eq!(say(&mut clock, 0, 0), (0, true, None));
        let forward = Some(Turn::SetForward(years * SECOND));
        assert_eq!(say(&mut clock, years + 1, 1), (years + 1, true, forward));
        let (at, is_set, turn) = say(&mut clock, 2, 2);
        assert_eq!((at, is_set), (2, true));
        assert!(matches!(turn, Some(Turn::SetBack(_))));
    }

    proptest! {
        /// Whatever the wall clock does, time never runs backward but for a step of a clock that
        /// is set, by more than a day; and it never stands far from a clock that is good.
        #[test]
        fn time_runs_forward(
            floor in prop_oneof![Just(0), (NOW - 3600 * SECOND)..(NOW + 3600 * SECOND)],
            steps in prop::collection::vec((0..100_000_000i64, any::<u8>(), any::<i32>()), 1..200),
        ) {
            let mut clock = Steady::new(UnixMicros(floor));
            let (mut mono, mut offset) = (0i64, NOW);
            let mut last = floor;
            for (passed, what, by) in steps {
                mono += passed;
                offset += match what {
                    0..20 => i64::from(by),
                    20..24 => 100 * i64::from(by),
                    24..26 => 1_000_000 * i64::from(by),
                    26..28 => -offset,
                    28..40 => NOW - offset,
                    _ => 0,
                };
                let wall = UnixMicros(offset + mono);
                let duration = Duration::from_micros(mono.unsigned_abs());
                let (reading, turn) = clock.tick(wall, duration);
                let at = reading.at.0;
                if let Some(Turn::SetBack(by)) = turn {
                    prop_assert!(by > micros(STEP_BACK_MAX) && reading.is_set);
                    prop_assert_eq!(at, wall.0);
                } else {
                    prop_assert!(at >= last, "{} after {}", at, last);
                }
                if reading.is_set {
                    prop_assert!(wall >= CLOCK_SET_AFTER);
                    prop_assert!((at - wall.0).abs() <= CLOCK_AHEAD_LIMIT_MICROS);
                }
                prop_assert_eq!(clock.last(), reading.at);
                last = at;
            }
        }
    }
}
