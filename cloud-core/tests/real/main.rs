//! The core on real parts: Kafka, PostgreSQL, and both kinds of object store. `./dev test` starts
//! them and says where they are in PENSTOCK_KAFKA, PENSTOCK_PG and PENSTOCK_S3_ENDPOINT.

mod access;
mod bus;
mod catalog;
mod compact;
mod crash;
mod dead_letters;
mod dead_letters_api;
mod encryption;
mod fleets;
mod ledger;
mod ledger_store;
mod outage;
mod pages;
mod process;
mod query;
mod raw;
mod rebuild;
mod rollup;
mod rollup_marks;
mod rollup_merge;
mod rollup_store;
mod support;
mod topics;
