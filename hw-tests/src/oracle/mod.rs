//! The oracle: what every device was told, against what is stored.
//!
//! It is independent of the pipeline: it reads the store through the public query API, and the
//! topics with a plain consumer; it shares only the frozen header codec.

pub mod api;
pub mod checker;
pub mod drain;
pub mod ledger;
pub mod letters;
pub mod naive;
pub mod record;
pub mod rollups;
pub mod serving;
pub mod topics;
pub mod truth;
pub mod verdict;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use self::api::CoreApi;
use self::checker::{Checker, Tolerance};
use self::ledger::{Ledger, Sums};
use self::record::ToldFleet;
use self::rollups::RollupVerdict;
use self::truth::Truth;
use self::verdict::Verdict;
use crate::fleet::client::Client;
use crate::stack::process::Process;

/// Where the pipeline can be looked at.
#[derive(Clone, Debug)]
pub struct Places {
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// The installation's topic prefix.
    pub topic_prefix: String,
    /// The core's API.
    pub api: CoreApi,
    /// The gateways' admin addresses.
    pub gateways: Vec<SocketAddr>,
    /// The database of the rollups.
    pub rollup_dsn: String,
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
    api::read_store(&places.api, told, &mut checker).await.context("read the store")?;
    let Places { kafka, topic_prefix, .. } = places;
    tokio::task::block_in_place(|| topics::read(kafka, topic_prefix, told, &mut checker))
        .context("read the topics")?;
    Ok(checker.finish())
}

/// A metric of a running process, summed over its labels.
///
/// # Errors
/// When the process does not show it.
pub async fn metrics_of(process: &Process, name: &str) -> anyhow::Result<f64> {
    let admin = Client::new(process.address("admin")?, 1, Duration::from_secs(10));
    drain::metric(&admin, name).await
}

/// Everything that the core says, held against what the devices were told.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Raw store and topics.
    pub verdict: Verdict,
    /// Rollups of all widths.
    pub rollups: RollupVerdict,
    /// The loss ledger.
    pub ledger: Ledger,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sums { received, stored, duplicates, dead_lettered, missing, .. } = self.ledger.total;
        writeln!(f, "{}", self.verdict)?;
        writeln!(f, "{}", self.rollups)?;
        write!(
            f,
            "ledger: received {received} = stored {stored} + duplicates {duplicates} + \
             dead-lettered {dead_lettered}; missing {missing}"
        )
    }
}

/// Judges, then waits until rollups, ledger and dead-letter store have settled, and compares them
/// too. They need cores in all roles, and a stack that is impatient.
///
/// # Errors
/// When one of them is wrong, or can't be read, or does not settle.
pub async fn prove(
    places: &Places,
    told: &ToldFleet,
    tolerance: Tolerance,
) -> anyhow::Result<Proof> {
    let verdict = judge(places, told, tolerance).await?;
    verdict.check()?;
    let truth = tokio::task::block_in_place(|| Truth::read(places)).context("read the truth")?;
    anyhow::ensure!(
        truth.distinct() == verdict.stored + verdict.foreign,
        "{} distinct events on the topic, {} stored",
        truth.distinct(),
        verdict.stored
    );
    let rollups = rollups::judge(places, &told.fleet, &truth).await.context("judge the rollups")?;
    rollups.check()?;
    let ledger = ledger::check(places, &truth).await.context("check the ledger")?;
    letters::check(places, &truth).await.context("check the dead-letter store")?;
    Ok(Proof { verdict, rollups, ledger })
}
