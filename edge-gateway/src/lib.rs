//! The edge gateway: takes events from the devices of one facility, makes them durable, and
//! forwards them. The way of an event is the order of the modules below.

pub mod admit;
pub mod check;
pub mod clock;
pub mod config;
pub mod forward;
pub mod gateway;
pub mod listen;
pub mod open_files;
pub mod pressure;
pub mod snapshot;
pub mod spool;
pub mod spool_tool;
pub mod status;
