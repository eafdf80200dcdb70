//! When each cut comes and what it leaves, drawn from the seed. The same seed makes the same
//! plan; what the guest is doing at that moment depends on the machine.

use std::fmt;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::disk::Trigger;

/// One life of the guest, from switching it on to the cut.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Life {
    /// Whether the guest reaches Kafka. Without, events gather on its disk.
    pub(super) link: bool,
    /// Whether the spool may drain first, so that segments are given back.
    pub(super) drain: bool,
    pub(super) moment: Moment,
    /// The chance of each unflushed piece to survive.
    pub(super) keep_share: f64,
}

/// When the power goes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Moment {
    /// While the guest starts: it mounts the disk, the journal is replayed, the spool recovers.
    Start(Trigger),
    /// When this life has acknowledged so many events, and then at that event, or at once.
    Load { after_events: u64, then: Option<Trigger> },
}

impl Life {
    /// The next life; `events_max` is how many it acknowledges at most before the cut is due.
    pub(super) fn draw(rng: &mut ChaCha8Rng, events_max: u64) -> Self {
        let moment = if rng.random_bool(0.2) {
            Moment::Start(trigger(rng, 12, 6))
        } else {
            let after_events = rng.random_range(1..=events_max);
            let then = rng.random_bool(0.9).then(|| trigger(rng, 15, 6));
            Moment::Load { after_events, then }
        };
        // All and nothing are what real disks do most often.
        let keep_share = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let link = rng.random_bool(0.65);
        Self { link, drain: link && rng.random_bool(0.4), moment, keep_share }
    }

    /// A life in which a gateway that does not sync must lose something: what it acknowledges is
    /// nowhere else.
    pub(super) fn of_a_liar(rng: &mut ChaCha8Rng, events_max: u64) -> Self {
        let moment = Moment::Load { after_events: events_max, then: None };
        Self { link: false, drain: false, moment, keep_share: rng.random_range(0.0..0.5) }
    }
}

fn trigger(rng: &mut ChaCha8Rng, writes_max: u32, flushes_max: u32) -> Trigger {
    // Between two flushes, when most is at stake, more often than right behind one.
    match rng.random_range(0..5) {
        0 | 1 => Trigger::Write(rng.random_range(1..=writes_max)),
        2 | 3 => Trigger::FlushComes(rng.random_range(1..=flushes_max)),
        _ => Trigger::FlushDone(rng.random_range(1..=flushes_max)),
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = match &self.moment {
            Moment::Start(trigger) => {
                write!(f, "starting, ")?;
                Some(trigger)
            }
            Moment::Load { after_events, then } => {
                write!(f, "{after_events} acknowledged, ")?;
                then.as_ref()
            }
        };
        match then {
            None => write!(f, "at once")?,
            Some(Trigger::Write(n)) => write!(f, "write {n}")?,
            Some(Trigger::FlushComes(n)) => write!(f, "before flush {n}")?,
            Some(Trigger::FlushDone(n)) => write!(f, "after flush {n}")?,
        }
        let link = match (self.link, self.drain) {
            (false, _) => "down",
            (true, false) => "up",
            (true, true) => "up, drained",
        };
        write!(f, "; link {link}")
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_seed_makes_one_plan_with_everything_in_it() {
        let draw = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..200).map(|_| Life::draw(&mut rng, 600)).collect::<Vec<_>>()
        };
        let plan = draw(1);
        assert_eq!(plan, draw(1));
        assert_ne!(plan, draw(2));
        let count = |is: fn(&Life) -> bool| plan.iter().filter(|life| is(life)).count();
        assert!(count(|life| matches!(life.moment, Moment::Start(_))) > 20);
        assert!(count(|life| matches!(life.moment, Moment::Load { then: None, .. })) > 5);
        assert!(count(|life| !life.link) > 20);
        assert!(count(|life| life.keep_share == 0.0) > 20);
    }
}
