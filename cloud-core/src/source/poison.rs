//! Records that make a stage panic, remembered beyond the stage's life.
//!
//! A panic throws away the stage's state; it begins anew and meets the record again. After
//! [`ATTEMPTS_MAX`] tries the record is handed to [`super::runner::Sink::poison`] instead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A record is tried this often.
pub const ATTEMPTS_MAX: u32 = 3;
/// So many records are remembered; the memory is emptied beyond, and tries begin anew.
const RECORDS_MAX: usize = 10_000;

/// The tries of a role's records; clones share them, and they outlive restarts of the role.
#[derive(Clone, Debug, Default)]
pub struct PoisonMemory {
    attempts: Arc<Mutex<Attempts>>,
}

/// By topic, partition and offset.
type Attempts = HashMap<(String, i32, i64), u32>;

impl PoisonMemory {
    /// Notes that a record made the stage panic; says how often it has by now.
    pub fn note(&self, topic: &str, partition: i32, offset: i64) -> u32 {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() >= RECORDS_MAX {
            attempts.clear();
        }
        let tries = attempts.entry((topic.to_owned(), partition, offset)).or_default();
        *tries += 1;
        *tries
    }

    /// How often a record has made the stage panic, if it has been tried often enough.
    pub fn given_up(&self, topic: &str, partition: i32, offset: i64) -> Option<u32> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.is_empty() {
            return None;
        }
        let tries = attempts.get(&(topic.to_owned(), partition, offset)).copied();
        tries.filter(|tries| *tries >= ATTEMPTS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_given_up_after_its_tries_and_no_other() {
        let memory = PoisonMemory::default();
        for tries in 1..=ATTEMPTS_MAX {
            assert_eq!(memory.given_up("t", 0, 7), None);
            assert_eq!(memory.note("t", 0, 7), tries);
        }
        assert_eq!(memory.clone().given_up("t", 0, 7), Some(ATTEMPTS_MAX));
        assert_eq!(memory.given_up("t", 0, 8), None);
        assert_eq!(memory.given_up("u", 0, 7), None);
    }
}
