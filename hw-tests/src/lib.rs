//! A simulated device fleet, an oracle that knows what every device was told, and the real
//! processes between them. The verdict of every run is conservation: what was accepted is stored
//! exactly once and unaltered, what was rejected is dead-lettered, and nothing else is anywhere.

pub mod bench;
pub mod demo;
pub mod fleet;
pub mod oracle;
pub mod power_cut;
pub mod simulate;
pub mod stack;
pub mod terms;
pub mod wait;
