//! Rebuilding rollups from the raw events.
pub mod config;
