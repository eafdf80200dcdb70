//! What outlives the process: the catalog in Postgres and the objects in the store. These are the
//! only files that know tokio-postgres and object_store.

pub mod catalog;
pub mod files;
pub mod object;
pub mod postgres;
pub mod publish;
pub mod rollup;
