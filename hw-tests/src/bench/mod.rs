//! The benchmarks: figures, never a verdict about speed; the counts must be exact all the same.

pub mod core;
pub mod freshness;
pub mod gateway;
pub mod ingest;
pub mod query;
mod syncs;

fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        println!(
            "This is a debug build: the numbers mean little. ./dev bench makes a release one."
        );
    }
}
