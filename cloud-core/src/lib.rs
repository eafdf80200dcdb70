//! The cloud core: takes events from the bus, stores them exactly once, and answers queries.
//!
//! Data runs downwards: `bus` → `source` → `raw` → `store`; `compact` rewrites what `raw` stored,
//! `series`, `live`, `query` and `api` serve it to those whom `access` lets. `role` alone knows all of them and wires the ones that a process was asked for.

pub mod access;
pub mod api;
pub mod bus;
pub mod cli;
pub mod compact;
pub mod config;
pub mod deadletter;
pub mod failpoint;
pub mod groups;
pub mod ledger;
pub mod live;
pub mod query;
pub mod raw;
pub mod rebuild;
pub mod role;
pub mod rollup;
pub mod series;
pub mod snapshot;
pub mod source;
pub mod store;
