//! What the edge gateway and the cloud core share: the event and its contracts, the schemas,
//! the rules of admission, the Kafka header codec, the snapshot, the durable log, and small plumbing (clock, config,
//! retry, shutdown, telemetry). Neither side imports the other; both import only this crate.

pub mod admit;
pub mod clock;
pub mod codec;
pub mod config;
pub mod event;
pub mod log;
pub mod retry;
pub mod schema;
pub mod shutdown;
pub mod snapshot;
pub mod status;
pub mod telemetry;
pub mod topic;
