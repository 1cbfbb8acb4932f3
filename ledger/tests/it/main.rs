//! Tests of the ledger over real SQLite files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::float_arithmetic,
    reason = "tests fail by panicking"
)]

mod audit;
mod comparison;
mod decisions;
mod disk;
mod group;
mod intake;
mod invariants;
mod model;
mod power;
mod recovery;
mod slots;
mod statement;
mod store;
mod traps;
mod world;
