//! The stream alone (`known.rs`), and against what the rollups mean, through a store in memory
//! (`model.rs`, `random.rs`).

mod known;
mod model;
mod random;
