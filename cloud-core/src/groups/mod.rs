//! Device groups (spec S4): they belong to another system, and are read in from what it exports.

pub mod parse;
