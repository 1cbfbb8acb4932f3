//! Tests of the ledger over real SQLite files.

mod intake;
mod model;
mod store;
mod world;
