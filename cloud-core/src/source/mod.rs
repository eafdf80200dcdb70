//! The consumer framework: what every role that reads the bus does the same way.
//!
//! `runner.rs` is the loop (claim, read, flush, rebalance, pause, drain), `poison.rs` remembers
//! records that make a stage panic, `patience.rs` tries a step until it succeeds, `metrics.rs` counts. This file decides where a consumer goes
//! on after it was given partitions.
//!
//! Positions live in the catalog, in the transaction of the effect. The bus is asked only for the
//! bounds of its log:
//!
//! | stored position | go on at | because |
//! |---|---|---|
//! | none | the log's start | a new installation reads everything that is there |
//! | within the log | the stored position | |
//! | before the log's start | the log's start | the bus has deleted what was not read: **loss**, told loudly |
//! | after the log's end | the log's start | the log was truncated or made anew; reading again is harmless, skipping is not |
//!
//! An effect that needs older records again (windows that were open) has a rewind point beside its
//! position: reading begins there, the position stays.

use std::time::Duration;

use penstock_common::retry::Backoff;

use crate::bus::{BusError, Consumer};
use crate::store::positions::{Claim, PositionBasis, Positions};
use crate::store::postgres::StoreError;

pub mod metrics;
pub mod patience;
pub mod poison;
pub mod runner;

/// What the table says about a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// There was no position.
    First,
    /// As stored.
    Stored,
    /// The bus has deleted this many records that were never read.
    Lost(i64),
    /// The stored position is this far after the log's end.
    Ahead(i64),
}

impl Resumption {
    /// Applies the table.
    pub const fn of(basis: &PositionBasis) -> Self {
        match basis.stored {
            None => Self::First,
            Some(stored) if stored < basis.low => Self::Lost(basis.low - stored),
            Some(stored) if stored > basis.high => Self::Ahead(stored - basis.high),
            Some(_) => Self::Stored,
        }
    }
}

/// Where to go on.
pub fn next_offset(basis: &PositionBasis) -> i64 {
    match (Resumption::of(basis), basis.stored) {
        (Resumption::Stored, Some(stored)) => stored,
        _ => basis.low,
    }
}

/// Why partitions could not be claimed.
#[derive(Debug, thiserror::Error)]
enum ClaimError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Claims the partitions and decides where to go on, however long the bus or the database
/// are away. Dropping the future gives up.
pub async fn claim(
    role: &str,
    consumer: &dyn Consumer,
    positions: &Positions,
    partitions: &[i32],
) -> Vec<Claim> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match try_claim(role, consumer, positions, partitions).await {
            Ok(claims) => return claims,
            Err(error) => {
                let delay = backoff.next_delay();
                tracing::warn!(%error, role, ?delay, "can't claim partitions, trying again");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

async fn try_claim(
    role: &str,
    consumer: &dyn Consumer,
    positions: &Positions,
    partitions: &[i32],
) -> Result<Vec<Claim>, ClaimError> {
    let bounds = consumer.watermarks(partitions).await?;
    Ok(positions.claim(role, consumer.topic(), &bounds, next_offset).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_positions_holds() {
        let basis =
            |stored| PositionBasis { partition: 0, stored, rewind: None, low: 10, high: 20 };
        let cases = [
            (None, Resumption::First, 10),
            (Some(9), Resumption::Lost(1), 10),
            (Some(10), Resumption::Stored, 10),
            (Some(15), Resumption::Stored, 15),
            (Some(20), Resumption::Stored, 20),
            (Some(21), Resumption::Ahead(1), 10),
        ];
        for (stored, resumption, next) in cases {
            assert_eq!(Resumption::of(&basis(stored)), resumption, "{stored:?}");
            assert_eq!(next_offset(&basis(stored)), next, "{stored:?}");
        }
    }
}
