//! What outlives the process: the catalog in Postgres and the objects in the store. These are the
//! only files that know tokio-postgres and object_store.

use std::time::Duration;

use self::postgres::StoreError;

pub mod access;
pub mod catalog;
pub mod compact;
pub mod dead_letters;
pub mod files;
pub mod fleets;
mod footers;
pub mod groups;
pub mod ledger;
pub mod object;
pub mod overview;
pub mod positions;
pub mod postgres;
pub mod publish;
pub mod rollup;
pub mod s3;

/// No single step waits longer than this for Postgres.
const STEP_TIMEOUT: Duration = Duration::from_secs(40);

/// Bounds a step: a connection can be dead without anybody noticing.
async fn in_time<T, E: From<StoreError>>(step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(STEP_TIMEOUT, step).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Timeout(STEP_TIMEOUT).into()),
    }
}
