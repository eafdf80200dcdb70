//! What becomes of records that the bus refuses. Pure.
//!
//! A refusal concerns a whole batch, so nobody knows which of its records is to blame: each of
//! them is sent once more, *alone*. What is refused alone, and for what it is, would be refused
//! for ever: an event becomes a dead letter with the reason; a dead letter that is too large is
//! sent in parts, each a dead letter of its own, so that nothing of it is lost. What is refused for
//! no clear reason is tried again for a while first. What can't be sent in any form is tried for
//! ever: it holds back the retirement of what follows it, never its forwarding.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Class;
use crate::spool::Position;

/// How many records may wait for a form that the bus takes. Beyond it, others that were refused
/// wait in the spool.
pub const FATES_MAX: usize = 100_000;

/// Parts get no smaller: a topic that takes twice this takes everything.
pub(super) const PART_BYTES_MIN: usize = 1024;

/// How often, and for how long, a record is refused alone for no clear reason before it counts as
/// refused for ever.
const UNCLEAR_MAX: u32 = 8;
const UNCLEAR_FOR: Duration = Duration::from_secs(30);

/// How a record is sent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Form {
    /// As it is.
    #[default]
    AsIs,
    /// An event as a dead letter.
    Letter {
        /// What the bus said of it.
        reason: String,
    },
    /// A dead letter in parts.
    Parts {
        /// What the bus said of an event; none for what was a dead letter before.
        reason: Option<String>,
        /// The most bytes of a part.
        bytes_max: usize,
        /// The next part.
        next: usize,
    },
}

/// A record that was refused.
#[derive(Clone, Debug)]
struct Fate {
    form: Form,
    refusals: u32,
    since: Instant,
}

/// What a lone refusal led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It takes another form, and is a dead letter from now on.
    Changed,
    /// The same again, later.
    Later,
    /// The same again, later, and there is no other form.
    Stuck,
}

/// The records that were refused and are not done, by place.
#[derive(Clone, Debug, Default)]
pub struct Fates(BTreeMap<Position, Fate>);

impl Fates {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The form of a record that was refused before; it goes alone.
    pub fn form(&self, position: Position) -> Option<&Form> {
        self.0.get(&position).map(|fate| &fate.form)
    }

    /// The record was refused with others.
    pub fn suspect(&mut self, position: Position, now: Instant) {
        let fate = Fate { form: Form::AsIs, refusals: 0, since: now };
        self.0.entry(position).or_insert(fate);
    }

    /// The record was refused alone. `is_letter`: in the topic of the dead letters; `bytes` are its
    /// payload's.
    pub fn refuse(
        &mut self,
        position: Position,
        (class, reason): (Class, &str),
        (is_letter, bytes): (bool, usize),
        now: Instant,
    ) -> Turn {
        let fresh = Fate { form: Form::AsIs, refusals: 0, since: now };
        let fate = self.0.entry(position).or_insert(fresh);
        fate.refusals += 1;
        let is_too_often = fate.refusals >= UNCLEAR_MAX
            && now.saturating_duration_since(fate.since) >= UNCLEAR_FOR;
        match class {
            Class::Topic | Class::GivenUp => return Turn::Later,
            Class::Unclear if !is_too_often => return Turn::Later,
            Class::Unclear | Class::Unfit | Class::TooLarge => {}
        }
        let form = match (&fate.form, class) {
            (Form::AsIs, _) if !is_letter => Some(Form::Letter { reason: reason.to_owned() }),
            (Form::AsIs, Class::TooLarge) => Form::parts(None, bytes),
            (Form::Letter { reason }, Class::TooLarge) => Form::parts(Some(reason.clone()), bytes),
            (Form::Parts { reason, bytes_max, .. }, Class::TooLarge) => {
                Form::parts(reason.clone(), *bytes_max)
            }
            _ => None,
        };
        match form {
            Some(form) => {
                *fate = Fate { form, refusals: 0, since: now };
                Turn::Changed
            }
            None => Turn::Stuck,
        }
    }

    /// The bus has the record, or the next part of it; `payload_bytes` are those of the whole.
    /// Returns whether it is done.
    pub fn acknowledge(&mut self, position: Position, payload_bytes: usize) -> bool {
        let Some(fate) = self.0.get_mut(&position) else { return true };
        if let Form::Parts { bytes_max, next, .. } = &mut fate.form {
            *next += 1;
            if *next * *bytes_max < payload_bytes {
                return false;
            }
        }
        self.0.remove(&position);
        true
    }

    /// What is from `from` up to but not including `to` can't be read any more.
    pub fn forget_between(&mut self, from: Position, to: Position) {
        if !self.0.is_empty() && from < to {
            let gone: Vec<Position> = self.0.range(from..to).map(|(at, _)| *at).collect();
            gone.iter().for_each(|at| _ = self.0.remove(at));
        }
    }
}

impl Form {
    /// Half of what was too large; none when that was small already.
    fn parts(reason: Option<String>, bytes: usize) -> Option<Self> {
        let bytes_max = bytes.div_ceil(2);
        let form = Self::Parts { reason, bytes_max, next: 0 };
        (bytes_max >= PART_BYTES_MIN).then_some(form)
    }
}

#[cfg(test)]
mod tests {
    use penstock_common::event::Epoch;

    use super::*;

    const AT: Position = Position { segment: 1, epoch: Epoch(1), seq: 5 };

    fn lone(fates: &mut Fates, class: Class, is_letter: bool, bytes: usize, now: Instant) -> Turn {
        fates.refuse(AT, (class, "why"), (is_letter, bytes), now)
    }

    fn parts(fates: &Fates) -> (usize, usize) {
        match fates.form(AT) {
            Some(Form::Parts { bytes_max, next, .. }) => (*bytes_max, *next),
            form => panic!("{form:?}"),
        }
    }

    #[test]
    fn an_event_becomes_a_letter_and_a_letter_parts_until_the_bus_takes_it() {
        let (mut fates, now) = (Fates::default(), Instant::now());
        fates.suspect(AT, now);
        assert_eq!(fates.form(AT), Some(&Form::AsIs));
        assert_eq!(lone(&mut fates, Class::TooLarge, false, 10_000, now), Turn::Changed);
        assert_eq!(fates.form(AT), Some(&Form::Letter { reason: "why".into() }));
        assert_eq!(lone(&mut fates, Class::TooLarge, true, 10_000, now), Turn::Changed);
        assert_eq!(parts(&fates), (5_000, 0));
        assert!(!fates.acknowledge(AT, 10_000));
        assert_eq!(parts(&fates), (5_000, 1));
        // What was sent of it is sent again in smaller parts.
        assert_eq!(lone(&mut fates, Class::TooLarge, true, 5_000, now), Turn::Changed);
        assert_eq!(parts(&fates), (2_500, 0));
        for _ in 0..3 {
            assert!(!fates.acknowledge(AT, 10_000));
        }
        assert!(fates.acknowledge(AT, 10_000));
        assert!(fates.is_empty());
    }

    #[test]
    fn what_no_form_helps_is_tried_for_ever() {
        let (mut fates, now) = (Fates::default(), Instant::now());
        assert_eq!(lone(&mut fates, Class::Unfit, true, 10_000, now), Turn::Stuck);
        assert_eq!(fates.form(AT), Some(&Form::AsIs));
        assert_eq!(lone(&mut fates, Class::TooLarge, true, 1_000, now), Turn::Stuck);
        assert!(fates.acknowledge(AT, 1_000));
    }

    #[test]
    fn only_what_speaks_of_the_record_changes_it() {
        let (mut fates, mut now) = (Fates::default(), Instant::now());
        for _ in 0..100 {
            now += Duration::from_secs(10);
            assert_eq!(lone(&mut fates, Class::Topic, false, 10_000, now), Turn::Later);
            assert_eq!(lone(&mut fates, Class::GivenUp, false, 10_000, now), Turn::Later);
        }
        let (mut fates, mut turns) = (Fates::default(), Vec::new());
        for _ in 0..8 {
            turns.push(lone(&mut fates, Class::Unclear, false, 10_000, now));
            now += Duration::from_secs(5);
        }
        assert_eq!(turns[..7], [Turn::Later; 7]);
        assert_eq!(turns[7], Turn::Changed);
    }
}
