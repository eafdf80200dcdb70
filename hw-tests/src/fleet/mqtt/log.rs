//! What a publisher remembers of its messages, in the order in which it first published them
//! (pure).

use super::saves::{Ack, Fate};
use std::collections::VecDeque;

/// A message.
#[derive(Debug)]
pub(super) struct Entry<M> {
    pub(super) message: M,
    pub(super) state: State,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be published.
    Waiting,
    /// Published on the present connection.
    Published,
    /// Acknowledged by the broker.
    Acknowledged(Ack),
    /// The broker's promise for it holds.
    Kept,
    /// Nobody may have it any more, and the publisher no longer does.
    Forgotten,
}

/// The messages of one publisher.
#[derive(Debug)]
pub(super) struct Log<M> {
    entries: VecDeque<Entry<M>>,
    /// The number of the first entry.
    first: usize,
    is_careful: bool,
}

/// What a broken connection leaves to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Again {
    /// To be published again: never acknowledged.
    pub(super) unacknowledged: u64,
    /// To be published again: acknowledged, and perhaps not saved.
    pub(super) unsaved: u64,
    /// The numbers of those acknowledged, not saved, and not published again.
    pub(super) forgotten: Vec<usize>,
}

impl<M> Log<M> {
    pub(super) fn new(is_careful: bool) -> Self {
        Self { entries: VecDeque::new(), first: 0, is_careful }
    }

    /// Adds a message to be published; returns its number.
    pub(super) fn push(&mut self, message: M) -> usize {
        self.entries.push_back(Entry { message, state: State::Waiting });
        self.first + self.entries.len() - 1
    }

    /// The next one to be published, and its number.
    pub(super) fn next_waiting(&mut self) -> Option<(usize, &M)> {
        let at = self.entries.iter().position(|entry| entry.state == State::Waiting)?;
        let entry = &mut self.entries[at];
        entry.state = State::Published;
        Some((self.first + at, &entry.message))
    }

    /// How many are published and not acknowledged.
    pub(super) fn published(&self) -> usize {
        self.entries.iter().filter(|entry| entry.state == State::Published).count()
    }

    /// How many the publisher still has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn acknowledged(&mut self, number: usize, ack: Ack) {
        if let Some(entry) = number.checked_sub(self.first).and_then(|n| self.entries.get_mut(n)) {
            entry.state = State::Acknowledged(ack);
        }
    }

    /// The connection is gone: decides for each message whether it must be published again.
    pub(super) fn broken(&mut self, fate: impl Fn(&M, Ack) -> Fate) -> Again {
        let mut again = Again::default();
        for (at, entry) in self.entries.iter_mut().enumerate() {
            let number = self.first + at;
            match entry.state {
                State::Published => {
                    again.unacknowledged += 1;
                    entry.state = State::Waiting;
                }
                State::Acknowledged(ack) => match fate(&entry.message, ack) {
                    Fate::Open => {}
                    Fate::Kept => entry.state = State::Kept,
                    Fate::Forgotten if self.is_careful => {
                        again.unsaved += 1;
                        entry.state = State::Waiting;
                    }
                    Fate::Forgotten => {
                        again.forgotten.push(number);
                        entry.state = State::Forgotten;
                    }
                },
                State::Waiting | State::Kept | State::Forgotten => {}
            }
        }
        again
    }

    /// Whether every message is acknowledged, or forgotten.
    pub(super) fn is_settled(&self) -> bool {
        !self.entries.iter().any(|e| matches!(e.state, State::Waiting | State::Published))
    }

    /// Takes out the oldest messages about which nothing more has to be done.
    pub(super) fn take_done(&mut self, fate: impl Fn(&M, Ack) -> Fate) -> Vec<Entry<M>> {
        for entry in &mut self.entries {
            match entry.state {
                State::Acknowledged(ack) if fate(&entry.message, ack) == Fate::Kept => {
                    entry.state = State::Kept;
                }
                State::Kept | State::Forgotten => {}
                _ => break,
            }
        }
        let done = |entry: &Entry<M>| matches!(entry.state, State::Kept | State::Forgotten);
        let mut taken = Vec::new();
        while self.entries.front().is_some_and(done) {
            taken.extend(self.entries.pop_front());
            self.first += 1;
        }
        taken
    }

    /// All that is left, at the end.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry<M>> {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn log(is_careful: bool) -> (Log<char>, Ack) {
        let mut log = Log::new(is_careful);
        for name in ['a', 'b', 'c', 'd'] {
            log.push(name);
        }
        let now = Instant::now();
        (log, Ack { since: now, at: now })
    }

    fn waiting(log: &mut Log<char>) -> String {
        std::iter::from_fn(|| log.next_waiting().map(|(_, name)| *name)).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_published_again_in_order() {
        let (mut log, now) = log(false);
        assert_eq!(waiting(&mut log), "abcd");
        log.acknowledged(1, now);
        assert_eq!(log.published(), 3);
        let again = log.broken(|_, _| Fate::Open);
        assert_eq!(again, Again { unacknowledged: 3, ..Again::default() });
        assert!(!log.is_settled());
        assert_eq!(waiting(&mut log), "acd");
        for number in [0, 2, 3] {
            log.acknowledged(number, now);
        }
        assert!(log.is_settled());
        assert_eq!(log.take_done(|_, _| Fate::Open).len(), 0);
        assert_eq!(log.take_done(|_, _| Fate::Kept).len(), 4);
        // Numbers go on.
        assert_eq!(log.push('e'), 4);
        log.acknowledged(2, now);
        assert_eq!(waiting(&mut log), "e");
    }

    #[test]
    fn only_careful_publishers_repeat_what_the_broker_has_not_saved() {
        for is_careful in [true, false] {
            let (mut log, now) = log(is_careful);
            assert_eq!(waiting(&mut log), "abcd");
            for number in 0..3 {
                let at = now.at + Duration::from_secs(number as u64);
                log.acknowledged(number, Ack { at, ..now });
            }
            let again = log.broken(|_, ack| if ack == now { Fate::Kept } else { Fate::Forgotten });
            let (unsaved, forgotten) = if is_careful { (2, vec![]) } else { (0, vec![1, 2]) };
            assert_eq!(again, Again { unacknowledged: 1, unsaved, forgotten });
            assert_eq!(waiting(&mut log), if is_careful { "bcd" } else { "d" });
            assert_eq!(log.take_done(|_, _| Fate::Open).len(), if is_careful { 1 } else { 3 });
        }
    }
}
