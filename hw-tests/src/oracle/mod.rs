//! The oracle: what every device was told, against what is stored.
//!
//! It is independent of the pipeline: it reads the store through the public query API, and the
//! topics with a plain consumer; it shares only the frozen header codec.

pub mod api;
pub mod checker;
pub mod drain;
pub mod record;
pub mod topics;
pub mod verdict;

use std::net::SocketAddr;

use anyhow::Context;

use self::checker::{Checker, Tolerance};
use self::record::ToldFleet;
use self::verdict::Verdict;

/// Where the pipeline can be looked at.
#[derive(Clone, Debug)]
pub struct Places {
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// The installation's topic prefix.
    pub topic_prefix: String,
    /// The core's API.
    pub api: SocketAddr,
    /// The gateways' admin addresses.
    pub gateways: Vec<SocketAddr>,
}

/// Waits until everything has drained, then compares.
///
/// # Errors
/// When a store can't be read, or nothing moves any more before everything has drained. What the
/// verdict says is no error: see [`Verdict::check`].
pub async fn judge(
    places: &Places,
    told: &ToldFleet,
    tolerance: Tolerance,
) -> anyhow::Result<Verdict> {
    drain::wait(places).await.context("wait until the pipeline has drained")?;
    let mut checker = Checker::new(told, tolerance);
    api::read_store(places.api, told, &mut checker).await.context("read the store")?;
    tokio::task::block_in_place(|| topics::read(places, told, &mut checker))
        .context("read the topics")?;
    Ok(checker.finish())
}
