//! Which entries are in flight, and up to where the spool may be retired.

use std::collections::VecDeque;

use super::Token;

/// Tokens count up to this and begin again.
const TOKEN_MAX: Token = Token::MAX >> 1;

/// Entries in the order they were read, each acknowledged or not. Acknowledgements come in any
/// order (partitions are independent); retirement follows the order of the spool.
#[derive(Debug)]
pub struct Window<P> {
    /// The token of the front slot; tokens count up by one.
    front: Token,
    slots: VecDeque<Slot<P>>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot<P> {
    position: P,
    bytes: usize,
    acknowledged: bool,
}

impl<P> Default for Window<P> {
    fn default() -> Self {
        Self { front: 0, slots: VecDeque::new(), bytes: 0 }
    }
}

impl<P: Copy> Window<P> {
    /// Records in flight, acknowledged ones behind an unacknowledged one included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Payload bytes in flight.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the next entry of the spool; its token is for [`Self::acknowledge`].
    pub fn push(&mut self, position: P, bytes: usize) -> Token {
        self.slots.push_back(Slot { position, bytes, acknowledged: false });
        self.bytes += bytes;
        self.front.wrapping_add(self.slots.len() - 1) & TOKEN_MAX
    }

    /// Notes an acknowledgement. One for a token that isn't in flight changes nothing.
    pub fn acknowledge(&mut self, token: Token) {
        let index = token.wrapping_sub(self.front) & TOKEN_MAX;
        if let Some(slot) = self.slots.get_mut(index) {
            slot.acknowledged = true;
        }
    }

    /// Removes the acknowledged entries at the front; the last one's position, if any.
    pub fn retire(&mut self) -> Option<P> {
        let mut retired = None;
        while let Some(slot) = self.slots.front().filter(|slot| slot.acknowledged) {
            retired = Some(slot.position);
            self.bytes -= slot.bytes;
            self.slots.pop_front();
            self.front = self.front.wrapping_add(1) & TOKEN_MAX;
        }
        retired
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the order of acknowledgements, a position is retired only when all before it
        /// are acknowledged, and all are retired in the end.
        #[test]
        fn retires_exactly_the_acknowledged_prefix(
            order in Just((0..60usize).collect::<Vec<_>>()).prop_shuffle(),
            batch in 1..8usize,
        ) {
            let mut window = Window::default();
            let tokens: Vec<Token> = (0..order.len()).map(|at| window.push(at, 10)).collect();
            let mut acknowledged = vec![false; order.len()];
            let mut retired = 0;
            for chunk in order.chunks(batch) {
                for &at in chunk {
                    window.acknowledge(tokens[at]);
                    acknowledged[at] = true;
                }
                let prefix = acknowledged.iter().take_while(|done| **done).count();
                let expected = (prefix > retired).then(|| prefix - 1);
                prop_assert_eq!(window.retire(), expected);
                retired = prefix;
                prop_assert_eq!(window.bytes(), 10 * window.len());
                prop_assert_eq!(window.len(), order.len() - retired);
            }
            prop_assert!(window.is_empty());
        }
    }

    #[test]
    fn tokens_begin_again_below_the_highest_bit() {
        let mut window = Window { front: TOKEN_MAX - 1, ..Window::default() };
        let tokens: Vec<Token> = (0..4).map(|n| window.push(n, 1)).collect();
        assert_eq!(tokens, [TOKEN_MAX - 1, TOKEN_MAX, 0, 1]);
        for (n, token) in tokens.into_iter().enumerate() {
            window.acknowledge(token);
            assert_eq!(window.retire(), Some(n));
        }
    }

    #[test]
    fn a_foreign_or_late_token_changes_nothing() {
        let mut window = Window::default();
        let token = window.push('a', 1);
        window.acknowledge(token + 1);
        assert_eq!(window.retire(), None);
        window.acknowledge(token);
        assert_eq!(window.retire(), Some('a'));
        window.push('b', 1);
        window.acknowledge(token);
        assert_eq!(window.retire(), None);
    }
}
