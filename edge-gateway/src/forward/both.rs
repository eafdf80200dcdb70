//! Both lanes of the spool as one sequence: events to forward, and what gave way.

use std::time::Duration;

use crate::spool::{Position, SpoolError, SpoolHandle, SpoolReader, SpooledEntry};

/// While both lanes have entries, one of the dead lane follows so many of the main lane: what gave
/// way must not wait for ever, and what is fresh must not wait for it.
const MAIN_PER_DEAD: u32 = 4;

/// Reads both lanes, each in its order.
pub struct Both {
    main: SpoolReader,
    dead: SpoolReader,
    place: Place,
    /// How many came out of the main lane since the last one of the dead lane.
    main_in_a_row: u32,
}

/// A place in the sequence: everything up to it, in both lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    main: Option<Position>,
    dead: Option<Position>,
}

impl Place {
    /// The bus has everything up to this place.
    pub fn retire(self, spool: &SpoolHandle) {
        if let Some(position) = self.main {
            spool.retire(position);
        }
        if let Some(position) = self.dead {
            spool.retire_dead(position);
        }
    }
}

impl Both {
    /// Of the two readers of an open spool.
    pub fn new(main: SpoolReader, dead: SpoolReader) -> Self {
        Self { main, dead, place: Place::default(), main_in_a_row: 0 }
    }

    /// The next entry and its place; waits up to `wait` for one of the main lane.
    ///
    /// # Errors
    /// As [`SpoolReader::next`].
    pub fn next(&mut self, wait: Duration) -> Result<Option<(Place, SpooledEntry)>, SpoolError> {
        let is_turn_of_the_dead = self.main_in_a_row >= MAIN_PER_DEAD;
        let main = match is_turn_of_the_dead {
            true => None,
            false => self.next_main(Duration::ZERO)?,
        };
        if main.is_some() {
            return Ok(main);
        }
        self.main_in_a_row = 0;
        if let Some(entry) = self.dead.next(Duration::ZERO)? {
            self.place.dead = Some(entry.position);
            return Ok(Some((self.place, entry)));
        }
        self.next_main(wait)
    }

    /// Goes back to the first entry of each lane that is not retired.
    pub fn rewind(&mut self) {
        self.main.rewind();
        self.dead.rewind();
        self.place = Place::default();
    }

    fn next_main(&mut self, wait: Duration) -> Result<Option<(Place, SpooledEntry)>, SpoolError> {
        let Some(entry) = self.main.next(wait)? else { return Ok(None) };
        self.main_in_a_row += 1;
        self.place.main = Some(entry.position);
        Ok(Some((self.place, entry)))
    }
}
